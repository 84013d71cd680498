"""Random crops of prepared volumes, turned and scaled while they are read: only the voxels that they need are."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...errors import ConfigError, DataError
from ...labels import LabelSpace
from ..datasets.dataset_json import case_name
from ..store.entry import box_of
from .positions import BACKGROUND

__all__ = ["RandomCropsd", "flippable"]

_SIDES = {"left", "right", "l", "r"}


class RandomCropsd(Randomizable, MapTransform):
    """Crops ``[C, *size]`` around random voxels, some of them rotated and scaled.

    With probability ``pos / (pos + neg)`` the middle lies on a voxel of a structure: first a structure is drawn, then
    one of its voxels, so that small structures are met as often as large ones; else on the background. Crops lie within
    the volume as far as it is large enough. A turned crop is sampled straight from the volume, trilinearly, labels by
    the nearest voxel; outside the volume its nearest voxel is repeated.

    Args:
        keys: volumes ``[C, ...]`` of one size, prepared (:class:`~common.data.store.entry.StoredArray`) or in memory.
        size: voxels of a crop along each axis.
        labels: those of ``keys`` that hold labels.
        pos: weight of structures.
        neg: weight of the background.
        num_samples: crops of one case, >= 1.
        rotate: largest angle around each axis in rad.
        scale: smallest and largest factor of enlargement.
        prob: probability of turning; of scaling as well.
        positions: entry that holds voxels by structure.

    Raises:
        ConfigError: for impossible settings.
        DataError: when the case has no positions.

    Reference:
        nnU-Net's augmentation: rotations up to 30 degrees and factors 0.7 to 1.4, each with probability 0.2.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: Sequence[int],
        *,
        labels: Sequence[str] = ("label",),
        pos: float = 2.0,
        neg: float = 1.0,
        num_samples: int = 1,
        rotate: float = 0.52,
        scale: Sequence[float] = (0.7, 1.4),
        prob: float = 0.2,
        positions: str = "positions",
    ) -> None:
        MapTransform.__init__(self, keys)
        if num_samples < 1 or min(size) < 1:
            raise ConfigError("at least one crop of at least one voxel", got=f"{num_samples} of {list(size)}")
        if pos < 0 or neg < 0 or pos + neg <= 0:
            raise ConfigError("weights of structures and background are >= 0, one above", got=(pos, neg))
        if not 0 < scale[0] <= scale[1] or rotate < 0 or not 0 <= prob <= 1:
            raise ConfigError("cannot turn crops like this", got=f"rotate {rotate}, scale {list(scale)}, prob {prob}")
        self.size, self.labels, self.share = tuple(int(n) for n in size), tuple(labels), pos / (pos + neg)
        self.num_samples, self.rotate, self.scale, self.prob = num_samples, float(rotate), tuple(scale), prob
        self.positions = positions

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Return ``num_samples`` dictionaries."""
        if not data.get(self.positions):
            hint = "end the preprocessing with ForegroundPositionsd"
            raise DataError("the case has no positions to crop around", where=f"case {case_name(data)}", hint=hint)
        rest = {k: v for k, v in data.items() if k != self.positions and k not in self.keys}
        return [{**rest, **self._crop(data)} for _ in range(self.num_samples)]

    def _crop(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Tensor]:
        middle, turn = self._middle(data), self._turn()
        shape = np.array(data[self.keys[0]].shape[1:])
        if turn is None:
            low = self._within(middle - np.array(self.size) // 2, shape)
            return {k: box_of(data[k], low, [a + n for a, n in zip(low, self.size, strict=True)]) for k in self.keys}
        half = (np.array(self.size) - 1) / 2
        centre = np.array(self._within(middle - np.array(self.size) // 2, shape)) + half
        reach = np.abs(turn) @ half  # of the turned crop along the volume's axes
        first = np.clip(np.floor(centre - reach), 0, shape - 1).astype(np.int64)
        last = np.clip(np.ceil(centre + reach) + 1, first + 1, shape).astype(np.int64)
        grid = self._grid(turn, centre - first, last - first)
        return {k: self._sampled(box_of(data[k], first.tolist(), last.tolist()), grid, k) for k in self.keys}

    def _middle(self, data: Mapping[Hashable, Any]) -> NDArray[np.int64]:
        places = data[self.positions]
        structures = sorted(k for k in places if k != BACKGROUND)
        if structures and (self.R.random() < self.share or BACKGROUND not in places):
            chosen = places[structures[self.R.randint(len(structures))]]
        else:
            chosen = places[BACKGROUND]
        return np.asarray(chosen[self.R.randint(len(chosen))], dtype=np.int64)

    def _turn(self) -> NDArray[np.float64] | None:
        """From the crop's axes to the volume's, None for a crop that lies straight."""
        dim = len(self.size)
        turned, scaled = self.R.random() < self.prob and self.rotate > 0, self.R.random() < self.prob
        if not turned and not scaled:
            return None
        matrix = np.eye(dim)
        if turned:
            planes = [(1, 2), (0, 2), (0, 1)] if dim == 3 else [(0, 1)]
            for a, b in planes:
                angle, step = self.R.uniform(-self.rotate, self.rotate), np.eye(dim)
                step[a, a] = step[b, b] = math.cos(angle)
                step[a, b], step[b, a] = -math.sin(angle), math.sin(angle)
                matrix = matrix @ step
        if scaled:
            larger = self.R.random() < 0.5  # as many crops are enlarged as made smaller
            low, high = (1.0, max(1.0, self.scale[1])) if larger else (min(1.0, self.scale[0]), 1.0)
            matrix = matrix / self.R.uniform(low, high)
        return matrix

    def _within(self, low: NDArray[np.int64], shape: NDArray[np.int64]) -> list[int]:
        """The nearest place of a crop that lies within the volume; in the middle of one that is too small."""
        room = shape - np.array(self.size)
        return [int(min(max(a, 0), r)) if r >= 0 else int(r // 2) for a, r in zip(low, room, strict=True)]

    def _grid(self, turn: NDArray[Any], middle: NDArray[Any], shape: NDArray[Any]) -> Tensor:
        """Where each voxel of the crop is sampled, ``[1, *size, dim]`` in torch's frame: last axis first, -1 to 1."""
        unit = 2 / np.maximum(shape - 1, 1)
        scaled = turn * (np.array(self.size) - 1)[None] / 2 * unit[:, None]
        theta = np.concatenate([scaled, (middle * unit - 1)[:, None]], axis=1)
        theta = np.concatenate([theta[::-1, :-1][:, ::-1], theta[::-1, -1:]], axis=1)
        affine = torch.from_numpy(np.ascontiguousarray(theta, dtype=np.float32))[None]
        return F.affine_grid(affine, [1, 1, *self.size], align_corners=True)

    def _sampled(self, box: Tensor, grid: Tensor, key: Hashable) -> Tensor:
        mode = "nearest" if key in self.labels else "bilinear"
        found = F.grid_sample(box[None].float(), grid, mode=mode, padding_mode="border", align_corners=True)
        return found[0].to(box.dtype)


def flippable(labels: LabelSpace, orientation: str | None = "RAS") -> tuple[int, ...]:
    """Axes along which a flip leaves every structure what it is called.

    Left and right change places along one axis: it is left out when a structure's name says its side, and so are all
    axes where nobody knows which one it is.

    Args:
        labels: the structures.
        orientation: axis codes of the volumes; None for volumes as they are on disk.
    """
    words = {w for name in labels.names for w in name.lower().replace("-", " ").replace("_", " ").split()}
    if not words & _SIDES:
        return (0, 1, 2)
    return tuple(n for n, code in enumerate(orientation or "") if code not in "RL")
