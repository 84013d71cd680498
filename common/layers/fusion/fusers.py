"""Other ways to combine what experts say: a fixed mean, and a gate that looks at all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError
from ..gating.routing import soft_routing
from .hl_attention import Fused

__all__ = ["GatedSum", "WeightedSum", "expert_weights"]


def expert_weights(weights: Sequence[float] | None, experts: int) -> list[float]:
    """One weight per expert; ``1 / E`` each when None.

    Raises:
        ConfigError: for another number of weights than experts.
    """
    given = [1.0 / max(experts, 1)] * experts if weights is None else [float(w) for w in weights]
    if len(given) != experts:
        raise ConfigError("one weight per expert", where="weights", got=given, expected=f"{experts} numbers")
    return given


class WeightedSum(nn.Module):
    """``E = sum_i w_i R_i`` with fixed weights (linear arithmetic composition on outputs).

    Args:
        experts: number of signals E.
        weights: of the signals; ``1 / E`` each when None.

    Raises:
        ConfigError: for another number of weights than experts.

    Reference:
        SAMora, table 4, row LAC.
    """

    weights: Tensor

    def __init__(self, *, experts: int, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(expert_weights(weights, experts)))

    def forward(self, signals: Tensor, window: int = 0) -> Fused:
        """``signals [E, B, h, w, C] -> [B, h, w, C]``."""
        return Fused(torch.einsum("e,ebhwc->bhwc", self.weights.to(signals.dtype), signals), None)


class GatedSum(nn.Module):
    """``E = sum_i g_i R_i`` with ``g = softmax(G(n(R_1), ..., n(R_E)) / T)`` for each image (MoLE).

    ``n`` normalises each token and averages over all tokens, so that the gate has no resolution of its own; ``G`` is
    linear and starts at zero: all experts alike.

    Args:
        channels: width C of the signals.
        experts: number of signals E.
        temperature: T > 0.

    Raises:
        ConfigError: for a temperature that is not positive.

    Reference:
        Wu et al., Mixture of LoRA Experts, 2024, eq. 6 to 8, whose gate is as long as all tokens of all experts.
    """

    def __init__(self, *, channels: int, experts: int, temperature: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ConfigError("the temperature must be positive", where="temperature", got=temperature)
        self.gate, self.temperature = nn.Linear(experts * channels, experts), temperature
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, signals: Tensor, window: int = 0) -> Fused:
        """``signals [E, B, h, w, C] -> [B, h, w, C]`` and the gate's routing ``[B, E]``."""
        pooled = F.layer_norm(signals, signals.shape[-1:], eps=1e-6).mean((2, 3))
        routing = soft_routing(self.gate(pooled.transpose(0, 1).flatten(1)), temperature=self.temperature)
        return Fused(torch.einsum("be,ebhwc->bhwc", routing.weights.to(signals.dtype), signals), routing)
