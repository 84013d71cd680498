"""A gate that sends everything to one expert is paid for it."""

from __future__ import annotations

from torch import Tensor

from ..errors import ConfigError
from ..layers.gating.routing import Routing, soft_routing

__all__ = ["load_balance"]


def load_balance(routing: Routing) -> Tensor:
    """``E sum_e f_e P_e``: 1 when all experts are asked alike, up to E when one is asked for everything.

    ``f_e`` is the mean weight of expert e over samples and positions (no gradient), ``P_e`` the mean of its softmax
    over all experts, which is where the gradient flows; with top-1 routing this is the Switch Transformer's loss.

    Args:
        routing: weights and logits ``[B, E, ...]``.

    Returns:
        A scalar.

    Raises:
        ConfigError: for a routing without logits: a fixed rule cannot be balanced.

    Reference:
        Fedus et al., Switch Transformers, 2022, section 2.2.
    """
    if routing.logits is None:
        raise ConfigError("only a learned gate can be balanced", got="hard routing", hint="set the weight to 0")
    share = routing.weights.detach().float().transpose(0, 1).flatten(1).mean(1)
    wanted = soft_routing(routing.logits.float()).weights.transpose(0, 1).flatten(1).mean(1)
    return share.numel() * (share * wanted).sum()
