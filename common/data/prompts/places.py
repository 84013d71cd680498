"""Where the structures of a volume lie, found once when it is prepared."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from .crops import start_around

__all__ = ["StructurePlacesd"]


class StructurePlacesd(Transform):
    """Add ``places``: ``{structure: (voxels, x, y, z)}``, how large each is and where its crop of a size begins.

    A crop lies around the middle of the structure's bounding box; around the structure's voxel that is nearest to the
    middle when it would hold none of it, as a ring around the crop.

    Args:
        size: voxels along each side of a crop.
        key: label map ``[1, X, Y, Z]``.
        output: gets the places.
    """

    def __init__(self, size: int, key: str = "label", output: str = "places") -> None:
        self.size, self.key, self.output = size, key, output

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with ``output``."""
        given = data[self.key]
        label = (given.as_tensor() if isinstance(given, MetaTensor) else torch.as_tensor(given))[0]
        found = {}
        for structure in (int(k) for k in torch.unique(label) if k > 0):
            places = (label == structure).nonzero()
            found[structure] = (len(places), *self._start(places))
        return {**data, self.output: found}

    def _start(self, places: torch.Tensor) -> tuple[int, int, int]:
        middle = (places.amin(0) + places.amax(0)) / 2
        start = start_around(middle.tolist(), self.size)
        low = torch.tensor(start)
        if bool(((places >= low) & (places < low + self.size)).all(1).any()):
            return start
        nearest = places[(places - middle).square().sum(1).argmin()]
        return start_around(nearest.tolist(), self.size)
