"""A slice network on volumes."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import ConfigError
from ...layers.same_weights import SameWeights
from ...layers.slice_by_slice import slice_by_slice
from .network import M4oE

__all__ = ["M4oEVolume"]


class M4oEVolume(SameWeights):
    """Segment every slice of a volume along its last axis.

    Args:
        network: of slices; its parameters keep their names, so that weights of one are weights of the other.
        slices: slices per forward pass, >= 1.
        modality: index of the modality of volumes that are given without one.
        head: index of the data set of volumes that are given without one.

    Shapes:
        volume ``[B, 1 or c, H, W, Z]`` -> logits ``[B, K+1, H, W, Z]``, minus infinity for classes that the volume's
        head does not know.

    Raises:
        ConfigError: for a volume that has no depth, or fewer than one slice per pass.
    """

    network: M4oE

    def __init__(self, *, network: M4oE, slices: int = 8, modality: int = 0, head: int = 0) -> None:
        super().__init__(network)
        if slices < 1:
            raise ConfigError("at least one slice per forward pass", where="slices", got=slices)
        self.slices, self.modality, self.head = slices, modality, head

    def forward(self, volume: Tensor, modality: Tensor | None = None, head: Tensor | None = None) -> Tensor:
        """Segment.

        Args:
            volume: ``[B, 1 or c, H, W, Z]``, H and W multiples of 32.
            modality: ``[B]``; the default one when None.
            head: ``[B]``; the default one when None.
        """
        batch = volume.shape[0]
        modality = torch.full((batch,), self.modality) if modality is None else modality
        head = torch.full((batch,), self.head) if head is None else head
        return slice_by_slice(volume, self.slices, (modality, head), self._segmented)

    def _segmented(self, image: Tensor, modality: Tensor, head: Tensor) -> Tensor:
        logits: Tensor = self.network(image, modality, head).logits
        return logits
