"""Sliding windows whose features are kept, so that the next prompts on the same scan cost a mask head only."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from ...errors import ConfigError
from .windows import WindowInferer

__all__ = ["FeatureNetwork", "KeptWindowInferer"]

logger = logging.getLogger(__name__)


class FeatureNetwork(Protocol):
    """A network in two parts, of which the first does not see the prompts."""

    def features(self, image: Tensor) -> Tensor:
        """``[B, C, X, Y, Z]`` -> ``[B, F, X, Y, Z]``."""

    def mask_head(self, features: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Features and boxes ``[B, K, 2, 3]`` to logits ``[B, K+1, X, Y, Z]``."""


class _Kept:
    """Features of one scan's windows, by the windows' content."""

    def __init__(self) -> None:
        self.mark: tuple[Any, ...] = ()
        self.windows: dict[bytes, Tensor] = {}
        self.size = 0


# with the network and not with the inferer: an app that reads its configuration again makes a new inferer
_kept: WeakKeyDictionary[nn.Module, _Kept] = WeakKeyDictionary()


class _Halves(Protocol):
    """A network whose prompts come in after most of its work."""

    def features(self, image: Tensor) -> Tensor:
        """``[B, C, X, Y, Z]`` -> all that does not depend on prompts."""

    def mask_head(self, features: Tensor, boxes: Tensor | None) -> Tensor:
        """The rest, to logits ``[B, K+1, X, Y, Z]``."""


class KeptWindowInferer(WindowInferer):
    """A :class:`WindowInferer` that encodes each window of a scan once, and gives exactly what that one gives.

    Features of the last scan stay until another one, or other weights, come. Windows that find no room any more are
    computed again each time. Only without gradients.

    Args:
        cache_gb: room for features in gigabytes, where the network is; 0 keeps none.
        options: of :class:`WindowInferer`.

    Raises:
        ConfigError: for a negative room.
    """

    def __init__(self, *, cache_gb: float = 2.0, **options: Any) -> None:
        super().__init__(**options)
        if cache_gb < 0:
            raise ConfigError("room for features is not negative", where="cache_gb", got=cache_gb)
        self.room = int(cache_gb * 1e9)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Segment ``inputs`` ``[B, C, X, Y, Z]`` -> ``[B, K+1, X, Y, Z]``."""
        if torch.is_grad_enabled() or not isinstance(network, nn.Module) or not hasattr(network, "features"):
            return super().__call__(inputs, network, *args, **kwargs)
        kept, halves = _kept.setdefault(network, _Kept()), cast(_Halves, network)
        mark = _mark(inputs, network)
        if kept.mark != mark:
            kept.mark, kept.size = mark, 0
            kept.windows.clear()

        def step(window: Tensor, *more: Any, boxes: Tensor | None = None, **named: Any) -> Tensor:
            return halves.mask_head(self._features(window, halves, kept), boxes)

        return super().__call__(inputs, step, *args, **kwargs)

    def _features(self, window: Tensor, network: _Halves, kept: _Kept) -> Tensor:
        key = _digest(window)
        if key in kept.windows:
            return kept.windows[key]
        features = network.features(window)
        logger.info("%d windows were encoded", len(window))
        needed = features.numel() * features.element_size()
        if kept.size + needed <= self.room:
            kept.windows[key] = features
            kept.size += needed
        return features


def _digest(values: Tensor) -> bytes:
    plain = values.as_tensor() if isinstance(values, MetaTensor) else values
    data = plain.detach().cpu().contiguous().view(torch.uint8).numpy().data
    return hashlib.blake2b(data, digest_size=16).digest()


def _mark(inputs: Tensor, network: nn.Module) -> tuple[Any, ...]:
    """What tells a scan and the weights that see it from others."""
    weights = tuple(-1 if t.is_inference() else t._version for t in network.parameters())
    return _digest(inputs), tuple(inputs.shape), str(inputs.device), network.training, weights
