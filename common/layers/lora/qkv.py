"""Fused projections whose queries and values can be adapted, and what LoRA experts add to them.

A block's `attn.qkv` becomes three linear layers under the fused layer's state-dict names, so that PEFT's own LoRA
layers sit on `q` and `v` and `k` stays untouched: `q += B_q A_q x`, `v += B_v A_v x`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError

__all__ = [
    "SplitQKV",
    "base_qkv",
    "batched_deltas",
    "batched_qkv",
    "expert_deltas",
    "expert_matrices",
    "qkv_modules",
    "qkv_widths",
    "split_qkv",
]


class SplitQKV(nn.Module):
    """A fused projection as three layers `q`, `k`, `v`; saved and loaded as the fused `weight` and `bias`.

    Args:
        fused: linear layer [C -> 3C'], whose rows are those of q, k and v.

    Raises:
        ConfigError: when the rows cannot be shared out among three.
    """

    def __init__(self, *, fused: nn.Linear) -> None:
        super().__init__()
        if fused.out_features % 3:
            raise ConfigError("a fused projection has three equal parts", got=fused.out_features, expected="3 x width")
        self.in_features, self.out_features = fused.in_features, fused.out_features
        width = fused.out_features // 3
        for part, name in enumerate(("q", "k", "v")):
            layer = nn.Linear(fused.in_features, width, bias=fused.bias is not None, device="meta")
            rows = slice(part * width, (part + 1) * width)
            for key, value in fused.named_parameters(recurse=False):
                own = nn.Parameter(value.detach()[rows].clone(), requires_grad=value.requires_grad)
                setattr(layer, key, own)
            setattr(self, name, layer.train(fused.training))
        _save_fused(self)

    @property
    def weight(self) -> Tensor:
        """The frozen projection [3C', C], without experts."""
        return torch.cat([layer.weight for layer in self.parts()])

    @property
    def bias(self) -> Tensor | None:
        """Its bias [3C']; what a padded token would have as key and value. Experts have no bias."""
        biases: list[Tensor | None] = [layer.bias for layer in self.parts()]
        return None if biases[0] is None else torch.cat([bias for bias in biases if bias is not None])

    def parts(self) -> list[nn.Linear]:
        """The layers of q, k and v without the experts around them."""
        return [_plain(getattr(self, name)) for name in ("q", "k", "v")]

    def base(self, x: Tensor) -> Tensor:
        """The frozen projection of x [..., C] -> [..., 3C'], whichever expert is switched on."""
        return torch.cat([F.linear(x, layer.weight, layer.bias) for layer in self.parts()], -1)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., 3C'], with the expert that is switched on."""
        return torch.cat([getattr(self, name)(x) for name in ("q", "k", "v")], -1)


def _plain(layer: nn.Module) -> nn.Linear:
    plain: Any = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
    linear: nn.Linear = plain
    return linear


def _places(module: SplitQKV, prefix: str, key: str) -> list[str]:
    inner = [f"{n}.base_layer" if isinstance(getattr(module, n), LoraLayer) else n for n in ("q", "k", "v")]
    return [f"{prefix}{name}.{key}" for name in inner]


def _save_fused(module: nn.Module) -> None:
    module.register_state_dict_post_hook(_join)
    module.register_load_state_dict_pre_hook(_split)


def _join(module: SplitQKV, state: dict[str, Tensor], prefix: str, _metadata: Any) -> None:
    for key in ("weight", "bias"):
        names = _places(module, prefix, key)
        if names[0] in state:
            state[prefix + key] = torch.cat([state.pop(name) for name in names])


def _split(module: SplitQKV, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for key in ("weight", "bias"):
        if prefix + key in state:
            fused = state.pop(prefix + key)
            state.update(zip(_places(module, prefix, key), fused.chunk(3), strict=True))


def qkv_modules(encoder: nn.Module) -> dict[str, nn.Module]:
    """The fused projections of an encoder, by name: everything called `attn.qkv`, in any of its three forms.

    Raises:
        ConfigError: when there is none.
    """
    found = {n: m for n, m in encoder.named_modules() if n.endswith("attn.qkv")}
    if not found:
        raise ConfigError("the encoder has no fused projection attn.qkv", got=type(encoder).__name__)
    return found


def qkv_widths(qkv: nn.Module) -> tuple[int, int]:
    """Channels C that a fused projection takes and 3C' that it gives, in any of its three forms."""
    fused = qkv if isinstance(qkv, SplitQKV) else _plain(qkv)
    return fused.in_features, fused.out_features


def split_qkv(encoder: nn.Module) -> None:
    """Put a :class:`SplitQKV` in the place of every plain `attn.qkv`; its function and state dict stay the same."""
    for name, module in qkv_modules(encoder).items():
        if isinstance(module, nn.Linear) and not isinstance(module, LoraLayer):
            encoder.get_submodule(name.rpartition(".")[0]).qkv = SplitQKV(fused=module)


def base_qkv(qkv: nn.Module, normed: Tensor) -> Tensor:
    """The frozen projection [..., 3C'] of normed tokens [..., C], whichever expert is switched on."""
    if isinstance(qkv, SplitQKV):
        return qkv.base(normed)
    projected: Tensor = _plain(qkv)(normed)
    return projected


def expert_matrices(qkv: nn.Module, level: str) -> list[tuple[slice, Tensor, Tensor]]:
    """The adapted parts of a projection: rows of the fused output, `A` [r, C] and scaled `B` [rows, r].

    Raises:
        ConfigError: when the projection has no such expert.
    """
    width = qkv_widths(qkv)[1] // 3
    if isinstance(qkv, SplitQKV):
        parts: list[tuple[slice, Any]] = [(slice(0, width), qkv.q), (slice(2 * width, 3 * width), qkv.v)]
    else:
        parts = [(slice(0, 3 * width), qkv)]
    found: list[tuple[slice, Tensor, Tensor]] = []
    for rows, layer in parts:
        if not isinstance(layer, LoraLayer) or level not in layer.lora_A:
            raise ConfigError("the projection has no such expert", got=level, expected="an expert of add_experts")
        a: Any = layer.lora_A[level].weight
        b: Any = layer.lora_B[level].weight
        found.append((rows, a, b if layer.scaling[level] == 1 else b * layer.scaling[level]))
    return found


def expert_deltas(qkv: nn.Module, level: str, normed: Tensor) -> Tensor:
    """What one expert adds to the fused projection: `B A x` on q and v, zero on k.

    Args:
        qkv: a block's `attn.qkv`.
        level: name of the expert; it need not be switched on.
        normed: [..., C].

    Returns:
        [..., 3C'].
    """
    delta: Tensor = batched_deltas(qkv, (level,), normed)[0]
    return delta


def batched_deltas(qkv: nn.Module, levels: Sequence[str], normed: Tensor) -> Tensor:
    """:func:`expert_deltas` of several experts at once: [E, ..., 3C']."""
    zero = normed.new_zeros(*normed.shape[:-1], qkv_widths(qkv)[1])
    return batched_qkv(qkv, levels, normed, zero)


def batched_qkv(qkv: nn.Module, levels: Sequence[str], normed: Tensor, base: Tensor | None = None) -> Tensor:
    """The fused projection with each of several experts: [E, ..., 3C'].

    Args:
        qkv: a block's `attn.qkv`.
        levels: names of the experts.
        normed: [..., C].
        base: the frozen projection [..., 3C'] when it is known already.
    """
    base = base_qkv(qkv, normed) if base is None else base
    parts = list(zip(*(expert_matrices(qkv, level) for level in levels), strict=True))
    rank = max(a.shape[0] for part in parts for _, a, _ in part)
    experts, tokens = len(levels), normed.shape[:-1].numel()
    narrow = torch.cat([_to_rank(a, rank, 0) for part in parts for _, a, _ in part])
    codes = F.linear(normed.reshape(tokens, -1), narrow.to(normed.dtype)).view(tokens, len(parts), experts, rank)
    flat = base.reshape(tokens, -1).expand(experts, -1, -1)
    pieces, end = [], 0
    for part, code in zip(parts, codes.permute(1, 2, 0, 3), strict=True):
        rows = part[0][0]
        wide = torch.stack([_to_rank(b, rank, 1).t() for _, _, b in part]).to(code.dtype)
        pieces += [flat[..., end : rows.start]] if rows.start > end else []
        pieces.append(torch.baddbmm(flat[..., rows].to(code.dtype), code, wide))
        end = rows.stop
    return torch.cat(pieces, -1).view(experts, *base.shape)


def _to_rank(matrix: Tensor, rank: int, axis: int) -> Tensor:
    # zeros for the ranks that an expert does not have
    lacking = rank - matrix.shape[axis]
    return matrix if lacking == 0 else F.pad(matrix, (0, 0, 0, lacking) if axis == 0 else (0, lacking))
