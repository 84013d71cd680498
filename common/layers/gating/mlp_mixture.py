"""The feed-forward of a transformer block as a mixture of experts under a gate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from monai.networks.blocks.mlp import MLPBlock
from torch import Tensor, nn

from ...errors import ConfigError
from .mlp_experts import MLPExperts
from .routing import Routing, hard_routing, soft_routing, top_k_routing

__all__ = ["GATES", "GATE_INPUTS", "MLP", "MLPMixture", "Mixed"]

GATES = ("expert", "channel_official", "none")
GATE_INPUTS = ("token", "image_mean")


class Mixed(NamedTuple):
    """Tokens ``[B, H, W, C]`` and who was asked: weights ``[B, E, H, W]`` or ``[B, E]``; None without a choice."""

    tokens: Tensor
    routing: Routing | None


class MLP(MLPBlock):
    """MONAI's perceptron where a mixture would be: ``[B, H, W, C]`` and a modality that it does not ask for.

    Args:
        channels: width C of the tokens.
        mlp_ratio: hidden width over C.
    """

    def __init__(self, channels: int, mlp_ratio: float = 4.0) -> None:
        super().__init__(channels, int(channels * mlp_ratio))

    def forward(self, tokens: Tensor, modality: Tensor | None = None) -> Mixed:
        """Nobody is chosen."""
        plain: Callable[[Tensor], Tensor] = super().forward
        return Mixed(plain(tokens), None)


class MLPMixture(nn.Module):
    """``y = sum_e w_e(x) E_e(x)`` with ``w = softmax(W_g x + b_g)`` over the experts.

    Args:
        channels: width C of the tokens.
        experts: number of experts, one per modality.
        gate: ``expert`` (the equation), ``channel_official`` (the released code: ``softmax_c(W_g x) * sum_e E_e(x)``,
            a softmax over channels that never chooses between experts) or ``none`` (the expert of the sample's
            modality).
        gate_input: the gate sees each ``token``, or the ``image_mean`` of all tokens, with one choice per image.
        top_k: experts asked per token; None asks all of them.
        mlp_ratio: hidden width over C.

    Shapes:
        tokens ``[B, H, W, C]``, modality ``[B]`` -> :class:`Mixed`.

    Raises:
        ConfigError: for unknown choices or combinations that mean nothing.

    Reference:
        M4oE, section 2.2, equations 2 and 3; top-k and the gate per image are ours.
    """

    def __init__(
        self,
        *,
        channels: int,
        experts: int,
        gate: str = "expert",
        gate_input: str = "token",
        top_k: int | None = None,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        for where, value, known in (("gate", gate, GATES), ("gate_input", gate_input, GATE_INPUTS)):
            if value not in known:
                raise ConfigError("unknown choice", where=where, got=value, expected=", ".join(known))
        if gate != "expert" and (top_k is not None or gate_input != "token"):
            got = f"gate {gate}, gate_input {gate_input}, top_k {top_k}"
            raise ConfigError("only the gate over experts can choose per image or take the best k", got=got)
        if top_k is not None and not 1 <= top_k <= experts:
            raise ConfigError("top-k asks for more experts than there are", got=top_k, expected=f"1 .. {experts}")
        self.kind, self.gate_input, self.top_k = gate, gate_input, top_k
        self.experts = MLPExperts(channels=channels, hidden=int(channels * mlp_ratio), experts=experts)
        self.gate: nn.Linear | None = None
        if gate != "none":
            self.gate = nn.Linear(channels, experts if gate == "expert" else channels)
            nn.init.trunc_normal_(self.gate.weight, std=0.02)
            nn.init.zeros_(self.gate.bias)

    def route(self, tokens: Tensor, modality: Tensor | None) -> Routing | None:
        """Weights over the experts, ``[B, E, H, W]`` or ``[B, E]``; None for the released code's gate."""
        if self.kind == "channel_official":
            return None
        if self.gate is None:
            if modality is None:
                raise ConfigError(
                    "routing by modality needs the modality", where="gate none", expected="one id a sample"
                )
            return hard_routing(modality, self.experts.experts)
        seen = tokens if self.gate_input == "token" else tokens.mean((1, 2))
        logits = self.gate(seen).movedim(-1, 1)
        return soft_routing(logits) if self.top_k is None else top_k_routing(logits, self.top_k)

    def forward(self, tokens: Tensor, modality: Tensor | None = None) -> Mixed:
        """Mix what the experts say of each token."""
        routing = self.route(tokens, modality)
        rows = tokens.flatten(0, 2)
        if routing is None:
            assert self.gate is not None
            everyone = torch.ones([rows.shape[0], self.experts.experts], dtype=rows.dtype, device=rows.device)
            scale = self.gate(tokens).softmax(-1)
            return Mixed(self.experts(rows, everyone).view_as(tokens) * scale, None)
        weights = routing.weights.view(
            *routing.weights.shape[:2], *([1, 1] if routing.weights.ndim == 2 else routing.weights.shape[2:])
        )
        weights = weights.expand(-1, -1, *tokens.shape[1:3]).movedim(1, -1).flatten(0, 2)
        sparse = self.gate is None or self.top_k is not None
        return Mixed(self.experts(rows, weights, sparse).view_as(tokens), routing)

    @torch.no_grad()
    def append(self, copy_of: int | None = None) -> None:
        """Add an expert and its row of the gate.

        Args:
            copy_of: the expert that it starts as, sharing its weight, so that a mixture of all experts stays the same;
                None starts it at random, as likely as the others are on average.

        Raises:
            ConfigError: when there is no expert to copy, or the gate has no row per expert.
        """
        if self.kind == "channel_official":
            raise ConfigError("the released code's gate has no row per expert", hint="use gate expert or none")
        self.experts.append(copy_of)
        if self.gate is not None:
            old = self.gate
            self.gate = nn.Linear(old.in_features, old.out_features + 1).to(old.weight)
            weight, bias = old.weight, old.bias.clone()
            if copy_of is not None:
                bias[copy_of] -= math.log(2.0)  # half of its share each
            source = slice(None) if copy_of is None else slice(copy_of, copy_of + 1)
            self.gate.weight.copy_(torch.cat([weight, weight[source].mean(0, keepdim=True)]))
            self.gate.bias.copy_(torch.cat([bias, bias[source].mean(0, keepdim=True)]))
            self.gate.requires_grad_(old.weight.requires_grad)
