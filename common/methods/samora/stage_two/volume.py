"""SAMora on volumes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ....errors import ConfigError
from ....layers.same_weights import SameWeights
from ....layers.slice_by_slice import slice_by_slice
from .network import SAMora
from .views import ExpertViews, expert_views

__all__ = ["SAMoraVolume"]


class SAMoraVolume(SameWeights):
    """Segment every slice of a volume along its last axis.

    Slices of another size than the network's are resized, and their logits resized back (both bilinearly).

    Args:
        network: of slices; its parameters keep their names, so that weights of one are weights of the other.
        slices: slices per forward pass, >= 1.

    Shapes:
        volume ``[B, 1 or 3, H, W, Z]`` -> logits ``[B, K+1, H, W, Z]``.

    Raises:
        ConfigError: for a volume that has no depth, or fewer than one slice per pass.
    """

    network: SAMora

    def __init__(self, *, network: SAMora, slices: int = 8) -> None:
        super().__init__(network)
        if slices < 1:
            raise ConfigError("at least one slice per forward pass", where="slices", got=slices)
        self.slices = slices

    def forward(self, volume: Tensor) -> Tensor:
        """Segment."""
        return slice_by_slice(volume, self.slices, (), self.segment)

    def segment(self, image: Tensor) -> Tensor:
        """Logits ``[n, K+1, H, W]`` of slices ``[n, 1 or 3, H, W]``."""
        size, own = tuple(image.shape[2:]), (self.network.base.image_size,) * 2
        if size != own:
            image = F.interpolate(image, size=own, mode="bilinear", align_corners=False, antialias=True)
        logits = self.network.logits(self.network(image))
        if size != own:
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return logits

    def views(self, image: Tensor) -> ExpertViews:
        """What the experts do on one slice ``[1, 1 or 3, H, W]``, see :func:`~.views.expert_views`."""
        own = (self.network.base.image_size,) * 2
        if tuple(image.shape[2:]) != own:
            raise ConfigError(
                "a slice is looked at in the network's own size", got=tuple(image.shape[2:]), expected=own
            )
        return expert_views(self.network, image)
