"""Public SAM checkpoints for networks of other sizes and other numbers of masks: SAM, MedSAM, SAMed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError, WeightError
from ...layers.lora.experts import add_experts, expert_names, expert_parameters
from ...layers.lora.qkv import qkv_modules, qkv_widths
from ...weights import Coverage, load_weights, read_state_dict

__all__ = ["DECODER_GROUPS", "load_sam", "load_samed_experts", "read_sam", "resize_positions", "without_other_tokens"]

ENCODER, DECODER = "image_encoder.", "mask_decoder."
DECODER_GROUPS = ("mask_tokens", "output_hypernetworks_mlps", "iou_prediction_head")
_SAMED = re.compile(r"w_(?P<matrix>[ab])_(?P<index>[0-9]{3,9})$")
_IMAGE_CONSTANTS = ("pixel_mean", "pixel_std")


def read_sam(source: str | Path | Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The tensors of a checkpoint by their plain names, and what a message should call it.

    Args:
        source: a file or a state dict, bare or inside `{"model": ...}`, with or without `module.` before each name.
    """
    state = source if isinstance(source, Mapping) else read_state_dict(Path(source))[0]
    where = "state dict" if isinstance(source, Mapping) else str(source)
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    return {key: value for key, value in plain.items() if key not in _IMAGE_CONSTANTS}, where


def resize_positions(
    state: Mapping[str, Tensor], encoder: nn.Module, *, prefix: str = ENCODER, interpolation: str = "bilinear"
) -> dict[str, Tensor]:
    """Position tables of another image size, resized for an encoder; everything else as it is.

    The position embedding [1, s, s, C] is resized as an image, the distances [2s - 1, c] of global blocks along their
    first axis. Tables of windowed blocks depend on the window alone and are left as they are.

    Args:
        state: names and tensors of a checkpoint.
        encoder: `SamEncoder`; which of its blocks are global decides, not their names.
        prefix: of the encoder's names.
        interpolation: `bilinear` (SAMed, H-SAM) or `bicubic`.

    Raises:
        ConfigError: for another interpolation.
    """
    if interpolation not in ("bilinear", "bicubic"):
        raise ConfigError(
            "unknown interpolation", where="interpolation", got=interpolation, expected="bilinear, bicubic"
        )
    own = {prefix + name: value.shape for name, value in encoder.state_dict().items()}
    found = dict(state)
    position = prefix + "pos_embed"
    if _resizable(found, own, position, 4):
        size = own[position][1:3]
        image = found[position].permute(0, 3, 1, 2).float()
        resized = F.interpolate(image, size=size, mode=interpolation, align_corners=False)
        found[position] = resized.permute(0, 2, 3, 1).to(found[position].dtype)
    blocks: Any = encoder.blocks
    for index, block in enumerate(blocks):
        for axis in ("h", "w") if block.window_size == 0 else ():
            name = f"{prefix}blocks.{index}.attn.rel_pos_{axis}"
            if _resizable(found, own, name, 2):
                table = found[name][None, None].float()
                resized = F.interpolate(table, size=tuple(own[name]), mode=interpolation, align_corners=False)
                found[name] = resized[0, 0].to(found[name].dtype)
    return found


def _resizable(state: Mapping[str, Tensor], own: Mapping[str, torch.Size], name: str, axes: int) -> bool:
    value = state.get(name)
    if value is None or name not in own or value.ndim != axes:
        return False
    return value.shape != own[name] and value.shape[-1] == own[name][-1]


def without_other_tokens(
    state: Mapping[str, Tensor], decoder: Any, *, prefix: str = DECODER
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Leave out what depends on the number of masks when it differs from the decoder's.

    Args:
        state: names and tensors of a checkpoint.
        decoder: has `mask_tokens`.
        prefix: of the decoder's names.

    Returns:
        the rest, and glob patterns of the network's names that therefore keep their values.
    """
    tokens = state.get(f"{prefix}mask_tokens.weight")
    if tokens is None or tokens.shape[0] == decoder.mask_tokens.weight.shape[0]:
        return dict(state), ()
    groups = tuple(f"{prefix}{group}." for group in DECODER_GROUPS)
    return {k: v for k, v in state.items() if not k.startswith(groups)}, tuple(f"{group}*" for group in groups)


def load_sam(
    network: nn.Module,
    source: str | Path | Mapping[str, Tensor],
    *,
    interpolation: str = "bilinear",
    level: str = "samed",
) -> Coverage:
    """Fill a network from a public checkpoint: SAM, MedSAM, or SAMed's LoRA file.

    SAM's and MedSAM's 314 tensors fill everything; tables are resized to the network's image size, and the mask
    tokens with their heads keep their values where the file has another number of them. SAMed's file (`w_a_000`, ...)
    fills prompt encoder, mask decoder and the LoRA expert `level`, and leaves the image encoder as it is: load SAM
    first.

    Args:
        network: `Sam`, with or without experts.
        source: a file or a state dict.
        interpolation: `bilinear` or `bicubic`, see :func:`resize_positions`.
        level: name of the expert that SAMed's matrices become.

    Returns:
        what was loaded.

    Raises:
        WeightError: when anything else does not fit; nothing is changed then.
        ConfigError: for an unknown interpolation.
    """
    state, where = read_sam(source)
    encoder, decoder = network.get_submodule("image_encoder"), network.get_submodule("mask_decoder")
    matrices = {name: state.pop(name) for name in list(state) if _SAMED.match(name)}
    state, kept = without_other_tokens(state, decoder)
    if matrices:
        plan = _samed_plan(matrices, encoder, level, where)
        rest = nn.ModuleDict({n: part for n, part in network.named_children() if f"{n}." != ENCODER})
        found = load_weights(rest, state, where=where, allow_missing=kept)
        _fill(encoder, level, plan)
        return Coverage((*(ENCODER + n for n in plan), *found.matched), missing=found.missing)
    state = resize_positions(state, encoder, interpolation=interpolation)
    wrapped = {n.replace(".base_layer.", "."): n for n in network.state_dict() if ".qkv.base_layer." in n}
    state = {wrapped.get(name, name): value for name, value in state.items()}
    experts = ("*.lora_*",) if expert_names(encoder) else ()
    return load_weights(network, state, where=where, allow_missing=(*kept, *experts))


def load_samed_experts(encoder: nn.Module, source: str | Path | Mapping[str, Tensor], level: str = "samed") -> None:
    """Only the LoRA matrices of SAMed's file, as the expert `level` of an encoder.

    Raises:
        WeightError: unless there is a pair of matrices for q and for v of every block, of one rank and the right width.
    """
    state, where = read_sam(source)
    matrices = {name: value for name, value in state.items() if _SAMED.match(name)}
    _fill(encoder, level, _samed_plan(matrices, encoder, level, where))


def _samed_plan(matrices: Mapping[str, Tensor], encoder: nn.Module, level: str, where: str) -> dict[str, Tensor]:
    # SAMed numbers them q0, v0, q1, v1, ...; everything is checked before anything is changed
    modules = qkv_modules(encoder)
    expected = {f"w_{m}_{i:03d}" for m in "ab" for i in range(2 * len(modules))}
    if set(matrices) != expected:
        odd = sorted(expected.symmetric_difference(matrices))
        raise WeightError(
            "SAMed's matrices do not fit the encoder's blocks",
            where=where,
            got=f"{len(matrices)} matrices; {odd[0]} is {'missing' if odd[0] in expected else 'too many'}",
            expected=f"{len(expected)} for {len(modules)} blocks",
        )
    rank = matrices["w_a_000"].shape[0]
    present = level in expert_names(encoder)
    own = next(iter(expert_parameters(encoder, level).values())).shape[0] if present else rank
    plan: dict[str, Tensor] = {}
    for index, (name, module) in enumerate(modules.items()):
        wide, fused = qkv_widths(module)
        out = fused // 3
        for part, letter in enumerate("qv"):
            a, b = (matrices[f"w_{m}_{2 * index + part:03d}"] for m in "ab")
            if a.shape != (own, wide) or b.shape != (out, own):
                raise WeightError(
                    "a matrix of SAMed's file has another shape", where=f"{where}, block {index}, {letter}",
                    got=f"{tuple(a.shape)}, {tuple(b.shape)}", expected=f"{(own, wide)}, {(out, own)}",
                )  # fmt: skip
            plan[f"{name}.{letter}.lora_A.weight"], plan[f"{name}.{letter}.lora_B.weight"] = a, b
    broken = [name for name, value in plan.items() if not bool(value.isfinite().all())]
    if broken:
        raise WeightError("weights contain NaN or infinite values", where=where, got=broken[0])
    return plan


def _fill(encoder: nn.Module, level: str, plan: Mapping[str, Tensor]) -> None:
    if level not in expert_names(encoder):
        add_experts(encoder, (level,), rank=next(iter(plan.values())).shape[0])
    with torch.no_grad():
        for name, parameter in expert_parameters(encoder, level).items():
            parameter.copy_(plan[name])
