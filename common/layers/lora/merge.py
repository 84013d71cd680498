"""One LoRA expert out of several, and experts folded into the weights that they adapt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from .experts import adapter_layers, add_experts, expert_names, expert_parameters, expert_target
from .qkv import expert_matrices, qkv_modules

__all__ = ["merge_expert", "remove_expert", "weighted_adapter"]


def weighted_adapter(
    encoder: nn.Module, weights: Mapping[str, float], how: str = "product", name: str = "merged"
) -> str:
    """Combine experts into a further one, frozen; called again it is filled anew.

    `product` adds the adapted weights, `ΔW = Σ w_e B_e A_e`, exactly (its rank is the sum of theirs); `separate` adds
    the matrices, `A = Σ w_e A_e` and `B = Σ w_e B_e` (LoRAHub; their rank, which must be one).

    Args:
        encoder: holds the experts.
        weights: any number per expert; 1/3 each is LAC.
        how: `product` or `separate`.
        name: of the combined expert, to be switched on with `set_expert`.

    Returns:
        The name.

    Raises:
        ConfigError: for an unknown way, no or unknown experts, or several ranks to be added separately.

    Reference:
        Huang et al., LoraHub, 2023 (`separate`).
    """
    names = expert_names(encoder)
    unknown = [level for level in weights if level not in names or level == name]
    if how not in ("product", "separate") or unknown or not weights:
        raise ConfigError(
            "these experts cannot be combined",
            got=f"how={how!r}, {unknown or 'no experts'}",
            expected=f"how product or separate, experts among {', '.join(n for n in names if n != name)}",
        )
    ranks = {level: next(iter(expert_parameters(encoder, level).values())).shape[0] for level in weights}
    if how == "separate" and len(set(ranks.values())) > 1:
        raise ConfigError("matrices of several ranks cannot be added", got=ranks, expected="one rank")
    rank = sum(ranks.values()) if how == "product" else next(iter(ranks.values()))
    _prepare(encoder, name, rank)
    matrices = iter(expert_parameters(encoder, name).values())  # A and B of each part, block by block
    with torch.no_grad():
        for module in qkv_modules(encoder).values():
            for part in zip(*(expert_matrices(module, level) for level in weights), strict=True):
                for value in _combine(list(zip(weights.values(), part, strict=True)), how):
                    next(matrices).copy_(value)
    return name


def _combine(parts: list[tuple[float, tuple[slice, Tensor, Tensor]]], how: str) -> tuple[Tensor, Tensor]:
    if how == "product":
        return torch.cat([a for _, (_, a, _) in parts]), torch.cat([w * b for w, (_, _, b) in parts], 1)
    first, second = [w * a for w, (_, a, _) in parts], [w * b for w, (_, _, b) in parts]
    return torch.stack(first).sum(0), torch.stack(second).sum(0)


def _prepare(encoder: nn.Module, name: str, rank: int) -> None:
    # an empty, unscaled expert of this rank; what is switched on stays so
    if name in expert_names(encoder):
        layers = [layer for _, layer in adapter_layers(encoder)]
        if all(layer.r[name] == rank and layer.scaling[name] == 1 for layer in layers):
            return
        remove_expert(encoder, name)
    active = [(layer, list(layer.active_adapters), layer.disable_adapters) for _, layer in adapter_layers(encoder)]
    add_experts(encoder, (name,), rank=rank, target=expert_target(encoder) or "qv")
    for parameter in expert_parameters(encoder, name).values():
        parameter.requires_grad_(False)
    for layer, adapters, disabled in active:
        _switch(layer, adapters, disabled)


def _switch(layer: Any, adapters: list[str], disabled: bool) -> None:
    trained = [(p, p.requires_grad) for p in layer.parameters()]
    layer.set_adapter(adapters)
    layer.enable_adapters(not disabled)
    for parameter, flag in trained:
        parameter.requires_grad_(flag)


def remove_expert(encoder: nn.Module, level: str) -> None:
    """Take one expert out of the encoder.

    Raises:
        ConfigError: when there is no such expert.
    """
    expert_parameters(encoder, level)
    for _, layer in adapter_layers(encoder):
        trained = [(p, p.requires_grad) for p in layer.parameters()]
        layer.delete_adapter(level)
        for parameter, flag in trained:
            parameter.requires_grad_(flag)
    encoder.peft_config.pop(level, None)  # type: ignore[operator, union-attr]


def merge_expert(encoder: nn.Module, level: str) -> None:
    """Add one expert to the weights, `W += B A`, and take all experts out: plain fused projections remain.

    Raises:
        ConfigError: when there is no such expert.
    """
    expert_parameters(encoder, level)
    for name, module in qkv_modules(encoder).items():
        old: Any = module
        with torch.no_grad():
            weight = old.weight.detach().clone()
            for rows, a, b in expert_matrices(module, level):
                weight[rows] += b @ a
        fused = nn.Linear(old.in_features, old.out_features, bias=old.bias is not None, device="meta")
        fused.weight = nn.Parameter(weight, requires_grad=False)
        if old.bias is not None:
            fused.bias = nn.Parameter(old.bias.detach().clone(), requires_grad=False)
        parent: Any = encoder.get_submodule(name.rpartition(".")[0])
        parent.qkv = fused.train(old.training)
    del encoder.peft_config
