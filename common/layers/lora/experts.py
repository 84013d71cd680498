"""Named LoRA experts on a frozen encoder: adding them, finding their parameters, switching between them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from ...errors import ConfigError
from .qkv import qkv_modules, split_qkv

__all__ = [
    "LEVELS",
    "TARGETS",
    "adapter_layers",
    "add_experts",
    "expert_config",
    "expert_names",
    "expert_parameters",
    "expert_target",
    "set_expert",
]

LEVELS = ("image", "patch", "pixel")
TARGETS = {"qv": ["qkv.q", "qkv.v"], "fused": ["attn.qkv"]}


def adapter_layers(encoder: nn.Module) -> Iterator[tuple[str, Any]]:
    """PEFT's layers inside the projections, with their names, in the encoder's order."""
    for name, module in encoder.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def expert_names(encoder: nn.Module) -> tuple[str, ...]:
    """The experts that the encoder holds, in the order in which they were added."""
    for _, layer in adapter_layers(encoder):
        return tuple(layer.lora_A)
    return ()


def expert_target(encoder: nn.Module) -> str | None:
    """What the experts adapt: `qv`, `fused`, or None when there are none."""
    for name, _ in adapter_layers(encoder):
        return "fused" if name.endswith("qkv") else "qv"
    return None


def expert_parameters(encoder: nn.Module, level: str) -> dict[str, nn.Parameter]:
    """The parameters of one expert by their names in PEFT's files (without PEFT's prefix).

    Raises:
        ConfigError: when there is no such expert.
    """
    _require(encoder, level)
    found: dict[str, nn.Parameter] = {}
    for name, layer in adapter_layers(encoder):
        for matrix in ("lora_A", "lora_B"):
            found[f"{name}.{matrix}.weight"] = getattr(layer, matrix)[level].weight
    return found


def add_experts(
    encoder: nn.Module, levels: Sequence[str] = LEVELS, rank: int = 4, target: str = "qv", alpha: float | None = None
) -> None:
    """Freeze an encoder and give it one LoRA expert per level; the first one is switched on.

    `A` starts uniform (Kaiming, a = sqrt 5), `B` at zero, so that the encoder's function does not change; the product
    is not scaled. ViT-B with rank 4 has 147,456 parameters per expert.

    Args:
        encoder: its blocks have a fused projection `attn.qkv` (SAM, SAM2).
        levels: names of the experts.
        rank: of `B A`, at least 1.
        target: `qv` leaves the keys alone (the method); `fused` adapts the fused projection as PEFT would.
        alpha: the product is scaled by alpha / rank; None means no scaling.

    Raises:
        ConfigError: for an unknown target, a rank below one, an expert that exists or no `attn.qkv`.
    """
    if target not in TARGETS or rank < 1:
        expected = f"target one of {', '.join(TARGETS)}; rank >= 1"
        raise ConfigError("an expert cannot be built so", got=f"target={target!r}, rank={rank}", expected=expected)
    present, own = expert_names(encoder), expert_target(encoder)
    double = [level for level in levels if level in present or list(levels).count(level) > 1]
    if double or not levels or own not in (None, target):
        raise ConfigError(
            "these experts cannot be added",
            got=f"{list(levels)} on {target}",
            expected=f"new names, each once; the encoder has {list(present)} on {own or 'nothing'}",
        )
    if target == "qv":
        split_qkv(encoder)
    qkv_modules(encoder)
    trained = {id(p) for _, layer in adapter_layers(encoder) for p in layer.parameters() if p.requires_grad}
    for level in levels:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several experts are the point
            inject_adapter_in_model(expert_config(rank=rank, target=target, alpha=alpha), encoder, adapter_name=level)
    for parameter in encoder.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    for level in levels:
        for parameter in expert_parameters(encoder, level).values():
            parameter.requires_grad_(True)
    set_expert(encoder, (*present, *levels)[0])


def expert_config(*, rank: int, target: str, alpha: float | None = None) -> LoraConfig:
    """PEFT's configuration of one expert."""
    scale: Any = rank if alpha is None else alpha
    return LoraConfig(r=rank, lora_alpha=scale, target_modules=TARGETS[target], lora_dropout=0.0, bias="none")


def set_expert(encoder: nn.Module, level: str | None) -> None:
    """Switch one expert on, or all off (None): PEFT's own way, one expert per pass.

    Which parameters are trained stays as it was.

    Raises:
        ConfigError: when there is no such expert.
    """
    if level is not None:
        _require(encoder, level)
    for _, layer in adapter_layers(encoder):
        trained = [(p, p.requires_grad) for p in layer.parameters()]
        layer.enable_adapters(level is not None)
        if level is not None:
            layer.set_adapter([level])
        for parameter, flag in trained:
            parameter.requires_grad_(flag)


def _require(encoder: nn.Module, level: str) -> None:
    if level not in expert_names(encoder):
        raise ConfigError(
            "the encoder has no such expert",
            got=level,
            expected=", ".join(expert_names(encoder)) or "none was added",
            hint="add_experts(encoder, levels=...) or load_adapter(encoder, level, folder)",
        )
