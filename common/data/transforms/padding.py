"""Padding that looks like the outside of the body."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import SpatialPadd

__all__ = ["PadMinimumd"]


class PadMinimumd(SpatialPadd):
    """MONAI's ``SpatialPadd`` with every volume's own smallest value, so that air stays air after normalisation.

    A constant zero would be the mean of a z-scored image: a body-like block beside the body. Invertible as its parent.

    Args:
        keys: volumes ``[C, X, Y, Z]``; a label map is padded with its smallest index, the background.
        spatial_size: smallest size in voxels; larger sides stay.
        allow_missing_keys: skip absent entries.
    """

    def __init__(
        self, keys: KeysCollection, spatial_size: Sequence[int] | int, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, spatial_size=spatial_size, mode="constant", allow_missing_keys=allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Return a copy with padded volumes."""
        result = dict(data)
        for key in self.key_iterator(result):
            smallest = float(torch.as_tensor(result[key]).amin())
            result[key] = self.padder(result[key], mode="constant", lazy=lazy, value=smallest)
        return result
