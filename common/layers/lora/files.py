"""LoRA experts as PEFT's own files: `adapter_config.json` and `adapter_model.safetensors` in a folder."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...atomic import atomic_write
from ...card import save_weights
from ...errors import WeightError
from ...plain_json import read_object
from ...weights import Coverage, read_state_dict
from .experts import TARGETS, adapter_layers, add_experts, expert_config, expert_names, expert_parameters, expert_target
from .qkv import qkv_modules, qkv_widths

__all__ = ["CONFIG", "PREFIX", "WEIGHTS", "base_hash", "load_adapter", "save_adapter"]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # PEFT's name for the network that it wraps
_PLAIN = {"use_dora": False, "use_rslora": False, "lora_bias": False, "bias": "none", "fan_in_fan_out": False,
          "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None, "target_parameters": None}  # fmt: skip
_SIZED = ("pos_embed", "rel_pos_d", "rel_pos_h", "rel_pos_w")


def base_hash(encoder: nn.Module) -> str:
    """What tells two frozen encoders apart: sha256 over their weights, without experts and positions.

    Position tables are left out because they are resized with the image; the same weights at 224 and 512 pixels give
    the same hash.
    """
    digest = hashlib.sha256()
    state = {name.replace(".base_layer.", "."): tensor for name, tensor in encoder.state_dict().items()}
    for name, tensor in sorted(state.items()):
        if ".lora_" in name or name.rpartition(".")[2] in _SIZED:
            continue
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_adapter(encoder: nn.Module, level: str, folder: str | Path) -> Path:
    """Write one expert the way PEFT does; `peft.PeftModel.from_pretrained(encoder, folder)` reads it.

    For a target of `qv` PEFT's reader needs the encoder's projections split (:func:`split_qkv`). The weights are
    written before the configuration, each file completely or not at all.

    Args:
        encoder: holds the expert.
        level: name of the expert; the files do not contain it.
        folder: created if necessary.

    Returns:
        The folder.

    Raises:
        ConfigError: when there is no such expert.
        CheckpointError: when the disk is full; an earlier expert stays as it was.
    """
    folder = Path(folder)
    state = {PREFIX + name: value for name, value in expert_parameters(encoder, level).items()}
    _, layer = next(adapter_layers(encoder))
    target = expert_target(encoder) or "qv"
    config: Any = expert_config(rank=layer.r[level], target=target, alpha=layer.lora_alpha[level])
    content: dict[str, Any] = config.to_dict() | {"inference_mode": True, "target_modules": TARGETS[target]}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in content.items()}
    save_weights(folder / WEIGHTS, state)
    with atomic_write(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(plain, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
    return folder


def load_adapter(encoder: nn.Module, level: str, folder: str | Path) -> Coverage:
    """Fill an expert from PEFT's files; an expert that the encoder lacks is added (and frozen, as it is trained).

    Args:
        encoder: its blocks have `attn.qkv`.
        level: name that the expert gets, or has.
        folder: with `adapter_config.json` and `adapter_model.safetensors`.

    Returns:
        what was loaded: always everything.

    Raises:
        WeightError: for missing or damaged files, another method than plain LoRA, a name too many or too few, another
            rank, another width; nothing is changed then.
    """
    folder = Path(folder)
    rank, target, alpha = _read_config(folder)
    state = _read_weights(folder)
    own = expert_target(encoder)
    if own not in (None, target):
        got = f"{target}: {TARGETS[target]}"
        expected = f"{own}, as the encoder's other experts"
        raise WeightError("the expert adapts another part of the encoder", where=folder, got=got, expected=expected)
    new = level not in expert_names(encoder)
    shapes = _expected_shapes(encoder, level, rank, target)
    _compare(state, shapes, rank, folder)
    if new:
        add_experts(encoder, (level,), rank=rank, target=target, alpha=alpha)
    with torch.no_grad():
        for name, parameter in expert_parameters(encoder, level).items():
            parameter.copy_(state[name])
            if new:
                parameter.requires_grad_(False)
    for _, layer in adapter_layers(encoder):
        layer.lora_alpha[level], layer.scaling[level] = alpha, alpha / rank
    return Coverage(matched=tuple(shapes))


def _expected_shapes(encoder: nn.Module, level: str, rank: int, target: str) -> dict[str, tuple[int, ...]]:
    if level in expert_names(encoder):
        return {name: tuple(p.shape) for name, p in expert_parameters(encoder, level).items()}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in qkv_modules(encoder).items():
        wide, out = qkv_widths(module)
        for part in (".q", ".v") if target == "qv" else ("",):
            shapes[f"{name}{part}.lora_A.weight"] = (rank, wide)
            shapes[f"{name}{part}.lora_B.weight"] = (out // 3 if part else out, rank)
    return shapes


def _read_config(folder: Path) -> tuple[int, str, float]:
    path = folder / CONFIG
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        problem = "the folder does not hold a whole expert"
        expected = f"{CONFIG} and {WEIGHTS}"
        hint = "train the expert, or name its adapter folder"
        raise WeightError(problem, where=folder, got=f"no {' and no '.join(missing)}", expected=expected, hint=hint)
    config = read_object(path, error=WeightError, problem="the expert's configuration cannot be read")
    try:
        rank, alpha, modules = config["r"], float(config["lora_alpha"]), config["target_modules"]
        if type(rank) is not int or not math.isfinite(alpha):
            raise ValueError(f"r {rank!r}, lora_alpha {alpha!r}")
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise WeightError(f"the expert's configuration cannot be read: {error!r}", where=path) from error
    odd = {k: config[k] for k, plain in _PLAIN.items() if config.get(k, plain) not in (plain, None)}
    if config.get("peft_type") != "LORA" or odd or rank < 1:
        got = odd or f"{config.get('peft_type')}, rank {rank}"
        expected = "peft_type LORA, without variants"
        raise WeightError("the expert is no plain LoRA", where=path, got=got, expected=expected)
    fitting = [
        t for t, names in TARGETS.items() if isinstance(modules, list) and sorted(map(str, modules)) == sorted(names)
    ]
    if not fitting:
        raise WeightError("the expert adapts other layers", where=path, got=modules, expected=list(TARGETS.values()))
    return rank, fitting[0], int(alpha) if alpha.is_integer() else alpha


def _read_weights(folder: Path) -> dict[str, Tensor]:
    state = read_state_dict(folder / WEIGHTS)[0]
    wrong = [name for name in state if not name.startswith(PREFIX)]
    if wrong:
        raise WeightError(
            "the expert's names do not have PEFT's prefix",
            where=folder / WEIGHTS,
            got=wrong[0],
            expected=f"{PREFIX}...",
        )
    broken = [name for name, value in state.items() if not bool(value.isfinite().all())]
    if broken:
        raise WeightError("the expert holds values that are not finite", where=folder / WEIGHTS, got=broken[0])
    return {name.removeprefix(PREFIX): value for name, value in state.items()}


def _compare(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], rank: int, folder: Path) -> None:
    where = folder / WEIGHTS
    unused, unset = [n for n in state if n not in shapes], [n for n in shapes if n not in state]
    if unused:
        problem = "the expert has weights for layers that the encoder lacks"
        hint = "was it trained on another base?"
        raise WeightError(problem, where=where, got=f"{len(unused)}, such as {unused[0]}", hint=hint)
    if unset:
        problem = "the expert leaves layers of the encoder without weights"
        raise WeightError(problem, where=where, got=f"{len(unset)} missing, such as {unset[0]}")
    for name, shape in shapes.items():
        got = tuple(state[name].shape)
        if len(got) != len(shape):
            raise WeightError(
                "the expert has weights of another shape", where=where, got=f"{got} in {name}", expected=shape
            )
        own, width = (shape[0], shape[1]) if ".lora_A." in name else (shape[1], shape[0])
        its, other = (got[0], got[1]) if ".lora_A." in name else (got[1], got[0])
        if len({its, rank, own}) > 1:
            raise WeightError(
                "the expert has another rank", where=where, got=f"{its} in {name}, {rank} in {CONFIG}", expected=own
            )
        if other != width:
            problem = "the expert was trained on a base of another width"
            raise WeightError(problem, where=where, got=f"{other} in {name}", expected=width)
