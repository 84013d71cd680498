"""SAMora: what self-supervised LoRA experts add to a frozen SAM encoder, fused in every block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ....backbones.sam.encoder import BlockParts, SamFeatures
from ....backbones.sam.network import SamLogits
from ....errors import ConfigError
from ....layers.frozen_features import FrozenFeatures, forget_on_loading
from ....layers.fusion.fusers import expert_weights
from ....layers.fusion.hl_attention import Fused
from ....layers.gating.routing import Routing
from ....layers.image_channels import repeated
from ....layers.lora.experts import set_expert
from ....layers.lora.mix import MIXES, mixed_qkv
from ....layers.lora.qkv import base_qkv, batched_qkv

__all__ = ["SIGNALS", "SAMora", "SAMoraOutputs", "fusion_window"]

SIGNALS = ("block_residual", "attn_residual", "block")


class SAMoraOutputs(NamedTuple):
    """What the decoders say of a batch.

    Args:
        logits: ``[B, K+1, S/4, S/4]``.
        fine: of a second decoder ``[B, K+1, S, S]``, None where there is only one.
        routings: of the gates, one per block; empty without gates.
    """

    logits: Tensor
    fine: Tensor | None = None
    routings: tuple[Routing, ...] = ()


class Mixture(nn.Module):
    """The weights of experts that are mixed into one, kept with a network's state but not trained.

    Args:
        weights: one per expert.
    """

    weights: Tensor

    def __init__(self, *, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))


def fusion_window(block: BlockParts, before: int, after: int) -> int:
    """Side of a block's windows on the grid of its output, which may be smaller than that of its input; 0 = global."""
    return max(1, int(block.window_size) * after // before) if block.window_size else 0


class SAMora(nn.Module):
    """A frozen SAM whose blocks also say what their experts add: ``O(x) = F(x) + E(x)`` in each block.

    ``F(x) = Block(x; theta)``, ``R_i = Block(x; theta + Delta_i) - F(x)``, ``E = fuser(R_1, ..., R_n)``. LayerNorm and
    the frozen q, k and v are computed once, then the base and all experts go through the block as one batch.

    Without fusers there is one branch, ``O(x) = Block(x; theta + sum_i w_i Delta_i)``, or SAM itself without levels.

    Args:
        base: a SAM whose image encoder has the experts' adapters (:func:`common.layers.lora.experts.add_experts`).
        levels: names of the experts, highest first; none for SAM alone.
        fusers: one per block, ``(signals [E, B, h, w, C], window) -> Fused``; None for one branch.
        expert_signal: what is fused. ``block_residual``: ``R_i`` above. ``attn_residual``: the same difference after
            the attention's projection, added before the perceptron. ``block``: ``Block(x; theta + Delta_i)`` itself.
        window: ``block``: fusers work in the windows of their block; ``global``: on the whole grid.
        mix: of one branch. ``product``: ``sum_i w_i B_i A_i``. ``separate``: ``(sum_i w_i B_i)(sum_i w_i A_i)``.
        weights: w of one branch; ``1 / E`` each when None.
        train_experts: train the adapters, too (SAMed).
        train_prompt_encoder: train the "no prompt" embedding, too (SAMed).
        checkpointing: in training keep only the tokens between blocks and compute the rest again.
        cache_gb: gigabytes of main memory for what nothing trainable comes before; pays where images repeat exactly.

    Shapes:
        image ``[B, 1 or 3, S, S]`` -> :class:`SAMoraOutputs`.

    Raises:
        ConfigError: for an unknown signal, window or mix, another number of fusers than blocks, fusers without experts,
            or a cache in front of trainable experts.

    Reference:
        SAMora, section 3.3, eq. 2 to 8. The paper's ``E_i`` read literally is either ``x`` or a second residual stream;
        ``R_i`` is what its figures and its code mean.
    """

    base: Any

    def __init__(
        self,
        *,
        base: nn.Module,
        levels: Sequence[str],
        fusers: Sequence[nn.Module] | None = None,
        expert_signal: str = "block_residual",
        window: str = "block",
        mix: str = "product",
        weights: Sequence[float] | None = None,
        train_experts: bool = False,
        train_prompt_encoder: bool = False,
        checkpointing: bool = False,
        cache_gb: float = 0.0,
    ) -> None:
        super().__init__()
        for key, value, known in (("expert_signal", expert_signal, SIGNALS), ("window", window, ("block", "global")),
                                  ("mix", mix, MIXES)):  # fmt: skip
            if value not in known:
                raise ConfigError(f"unknown {key}", where=key, got=value, expected=", ".join(known))
        self.base = base
        self.levels, self.expert_signal, self.window, self.mix = tuple(levels), expert_signal, window, mix
        if fusers is not None and (not levels or len(fusers) != len(self.blocks)):
            got = len(fusers)
            expected = f"{len(self.blocks)} fusers, and levels"
            raise ConfigError("one fuser per block, of at least one expert", where="fusers", got=got, expected=expected)
        if train_experts and (cache_gb or not levels):
            raise ConfigError("features of trainable experts change and cannot be kept" if levels else
                              "there are no experts to train", where="train_experts", got=(cache_gb, list(levels)),
                              expected="cache_gb 0 and a level")  # fmt: skip
        self.fusers = None if fusers is None else nn.ModuleList(fusers)
        self.mixture = Mixture(weights=expert_weights(weights, len(levels)))
        self.train_experts, self.train_prompt_encoder = train_experts, train_prompt_encoder
        self.checkpointing = checkpointing
        self.cache = FrozenFeatures(gigabytes=cache_gb) if cache_gb else None
        self._silent: tuple[str, ...] = ()
        self._kind: Any = SamFeatures
        if levels:
            set_expert(self.base.image_encoder, None)
        for name, parameter in self.named_parameters():
            if not self.trains(name):
                parameter.requires_grad_(False)
        forget_on_loading(self, _forget)

    @property
    def blocks(self) -> Sequence[BlockParts]:
        """The encoder's blocks."""
        blocks: Sequence[BlockParts] = self.base.image_encoder.blocks
        return blocks

    @property
    def weights(self) -> Tensor:
        """Of the experts of one branch, ``[E]``."""
        return self.mixture.weights

    def set_weights(self, weights: Sequence[float]) -> None:
        """Weigh the experts of one branch anew.

        Raises:
            ConfigError: for another number of weights than experts.
        """
        self.mixture.weights.copy_(torch.tensor(expert_weights(list(weights), len(self.levels))))
        _forget(self)

    def trains(self, name: str) -> bool:
        """Whether the parameter of this name is to be trained: fusers, decoders and what was asked for."""
        if name.startswith("base.image_encoder."):
            return self.train_experts and ".lora_" in name
        if name.startswith(("base.prompt_encoder.", "base.sam_prompt_encoder.")):
            return self.train_prompt_encoder
        unused = ("iou_prediction_head.", "pred_obj_score_head.")  # scores that no loss sees
        return not name.startswith("base.no_mem") and not any(part in name for part in unused)

    def trainable(self) -> list[nn.Parameter]:
        """Parameters for the optimizer."""
        return [p for name, p in self.named_parameters() if self.trains(name) and p.requires_grad]

    def train(self, mode: bool = True) -> SAMora:
        """Switch between training and evaluation; a frozen encoder always evaluates."""
        super().train(mode)
        self.base.image_encoder.train(mode and self.train_experts)
        return self

    def forward(self, image: Tensor, label: Tensor | None = None) -> SAMoraOutputs:
        """Segment slices.

        Args:
            image: ``[B, 1 or 3, S, S]``.
            label: ``[B, 1, S, S]``, for decoders that use it in training.
        """
        routings: list[Routing] = []
        features = self.encode(image, routings)
        told = self.training and label is not None and getattr(self.base, "uses_labels", False)
        out = self.base.decode(features, label) if told else self.base.decode(features)
        return SAMoraOutputs(out.coarse, out.fine, tuple(routings))

    def logits(self, out: SAMoraOutputs) -> Tensor:
        """The answer ``[B, K+1, S, S]``."""
        answer: Tensor = self.base.logits(SamLogits(out.logits, out.fine))
        return answer

    def encode(self, image: Tensor, routings: list[Routing] | None = None) -> Any:
        """Features of ``[B, 1 or 3, S, S]`` for the decoder; ``routings`` receives what gates choose."""
        image, start = repeated(image, 3), None
        if self.cache is not None and self.training:
            if self.fusers is None:
                return self._features(*self.cache(image, self._whole))
            start = self.cache(image, self._first)
        return self.base.encode(image, _Steps(self, start, [] if routings is None else routings))

    def silenced(self, *levels: str) -> _Silence:
        """In this context, experts of these levels say nothing: ``with network.silenced("image"): ...``.

        Raises:
            ConfigError: for a level that the network does not have.
        """
        unknown = [level for level in levels if level not in self.levels]
        if unknown:
            raise ConfigError("there is no such expert", where="levels", got=unknown, expected=", ".join(self.levels))
        return _Silence(self, levels)

    # -- one block -----------------------------------------------------------------------------------------------

    def window_of(self, index: int, before: int, after: int) -> int:
        """Window of a block's fuser, in tokens of the block's output; 0 is the whole grid."""
        return 0 if self.window == "global" else fusion_window(self.blocks[index], before, after)

    def run_block(self, index: int, tokens: Tensor) -> tuple[Tensor, Routing | None]:
        """``[B, h, w, C] -> [B, h', w', C']``, with what a gate chose."""
        if self.fusers is None:
            return self.one_branch(index, tokens), None
        return self.fuse(index, tokens.shape[1], *self.branches(index, tokens))

    def one_branch(self, index: int, tokens: Tensor) -> Tensor:
        """A block with a mixture of experts, or as it is."""
        block = self.blocks[index]
        if not self.levels:
            return block(tokens)
        shortcut, normed = block.start(tokens)
        loud = torch.tensor([level not in self._silent for level in self.levels], device=self.weights.device)
        qkv = mixed_qkv(block.attn.qkv, self.levels, self.weights * loud, normed, mix=self.mix)
        return block.finish(shortcut, block.attend(qkv))

    def branches(self, index: int, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a block needs to fuse: its residual, what the base says, and the signals ``[B, E, ...]``.

        LayerNorm and the frozen projection run once, base and experts go on as one batch.
        """
        block, batch = self.blocks[index], len(tokens)
        shortcut, normed = block.start(tokens)
        base = base_qkv(block.attn.qkv, normed)
        qkv = torch.cat([base[None], batched_qkv(block.attn.qkv, self.levels, normed, base)])
        if self.checkpointing and torch.is_grad_enabled():  # one branch's inner values at a time
            each = [checkpoint(self._branch, block, shortcut, one, use_reentrant=False) for one in qkv]
            attended = torch.stack(each)
        else:
            attended = self._branch(block, shortcut, qkv.flatten(0, 1)).unflatten(0, (-1, batch))
        own, experts = attended[0], attended[1:]
        signals = experts if self.expert_signal == "block" else experts - own
        return shortcut, own, signals.transpose(0, 1)

    def _branch(self, block: BlockParts, shortcut: Tensor, qkv: Tensor) -> Tensor:
        attended = block.attend(qkv)
        if self.expert_signal == "attn_residual":
            return attended
        rows = len(qkv) // len(shortcut)
        return block.finish(shortcut.repeat(rows, 1, 1, 1) if rows > 1 else shortcut, attended)

    def fuse(
        self, index: int, before: int, shortcut: Tensor, own: Tensor, signals: Tensor
    ) -> tuple[Tensor, Routing | None]:
        """The block's output from :meth:`branches`; ``before`` is the height of its input."""
        assert self.fusers is not None
        signals = signals.transpose(0, 1)
        if self._silent:
            nothing = own if self.expert_signal == "block" else torch.zeros_like(own)
            heard = [nothing if n in self._silent else s for n, s in zip(self.levels, signals, strict=True)]
            signals = torch.stack(heard)
        fused: Fused = self.fusers[index](signals, self.window_of(index, before, own.shape[1]))
        total = own + fused.tokens
        if self.expert_signal == "attn_residual":
            total = self.blocks[index].finish(shortcut, total)
        return total, fused.routing

    # -- features that nothing trainable comes before --------------------------------------------------------------

    def _first(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.branches(0, self.base.image_encoder.embed(image))

    def _whole(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.base.encode(image, _Steps(self, None, []))
        self._kind = type(features)
        return (features.embedding, *getattr(features, "fine", ()))

    def _features(self, embedding: Tensor, *fine: Tensor) -> Any:
        rest = {"fine": fine} if fine else {}
        return self._kind(embedding=embedding, tokens=embedding.new_empty(0), **rest)


class _Steps:
    """Runs the encoder's blocks and writes down what gates choose."""

    def __init__(self, network: SAMora, start: tuple[Tensor, ...] | None, routings: list[Routing]) -> None:
        self.network, self.start, self.routings = network, start, routings

    def __call__(self, index: int, tokens: Tensor) -> Tensor:
        """Block ``index`` on ``[B, h, w, C]``."""
        network = self.network
        if index == 0 and self.start is not None:
            out, routing = network.fuse(0, tokens.shape[1], *self.start)
        elif network.checkpointing and torch.is_grad_enabled():
            out, routing = checkpoint(network.run_block, index, tokens, use_reentrant=False)
        else:
            out, routing = network.run_block(index, tokens)
        if routing is not None:
            self.routings.append(routing)
        return out


class _Silence:
    """Context in which some experts say nothing."""

    def __init__(self, network: SAMora, levels: tuple[str, ...]) -> None:
        self.network, self.levels, self._before = network, levels, network._silent

    def __enter__(self) -> SAMora:
        self._before, self.network._silent = self.network._silent, self.levels
        return self.network

    def __exit__(self, *_: object) -> None:
        self.network._silent = self._before


def _forget(network: SAMora, *_: object) -> None:
    if network.cache is not None:
        network.cache.clear()
