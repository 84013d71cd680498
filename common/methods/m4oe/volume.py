"""A slice network on volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from ...errors import ConfigError
from .network import M4oE

__all__ = ["M4oEVolume", "slice_by_slice"]


def slice_by_slice(volume: Tensor, slices: int, ids: Sequence[Tensor], step: Callable[..., Tensor]) -> Tensor:
    """Send every slice of volumes along their last axis through a network.

    Args:
        volume: ``[B, C, H, W, Z]``.
        slices: slices per call, >= 1.
        ids: what each volume has, ``[B]``, given to its slices.
        step: ``(slices [n, C, H, W], *ids [n]) -> [n, K, H, W]``.

    Returns:
        ``[B, K, H, W, Z]``.

    Raises:
        ConfigError: for a volume that has no depth.
    """
    if volume.ndim != 5:
        raise ConfigError("slices are cut from volumes", got=tuple(volume.shape), expected="[B, C, H, W, Z]")
    # slices are no volumes: their number is none that the metadata of the batch could follow
    volume = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
    batch, depth = volume.shape[0], volume.shape[-1]
    flat = volume.permute(0, 4, 1, 2, 3).flatten(0, 1)
    own = [i.to(volume.device).repeat_interleave(depth).split(slices) for i in ids]
    parts = [step(*several) for several in zip(flat.split(slices), *own, strict=True)]
    whole: Tensor = torch.cat(parts).unflatten(0, (batch, depth)).permute(0, 2, 3, 4, 1)
    return whole


class M4oEVolume(nn.Module):
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

    def __init__(self, *, network: M4oE, slices: int = 8, modality: int = 0, head: int = 0) -> None:
        super().__init__()
        if slices < 1:
            raise ConfigError("at least one slice per forward pass", where="slices", got=slices)
        self.backbone, self.heads = network.backbone, network.heads
        self._network = (network,)  # in a tuple, so that nothing is registered under a second name
        self.slices, self.modality, self.head = slices, modality, head

    @property
    def network(self) -> M4oE:
        """The network of slices, which has the same parameters."""
        return self._network[0]

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
