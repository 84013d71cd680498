"""A volume on the network's own grid, whose crops are encoded once and kept."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...data.prompts.crops import crop_at, z_score_positive
from ...data.transforms.transforms import SafeSpacingd
from ...errors import ConfigError, DataError
from ...geometry import Grid
from .promptable import Promptable

__all__ = ["NOTHING", "Block", "EncodedVolume", "Start"]

logger = logging.getLogger(__name__)

NOTHING = -20.0
# Logit of voxels that no window has looked at.

Start = tuple[int, int, int]


class Block(NamedTuple):
    """Values of a part of a grid: ``start`` (first voxel) and ``values`` ``[X, Y, Z]``."""

    start: Start
    values: Tensor


class EncodedVolume:
    """Resamples a scan to isotropic voxels along RAS once, cuts crops, and keeps the last embeddings.

    Intensities are clipped first; each crop is z-scored over its voxels > 0. Where a crop leaves the volume it is zero
    before the z-score.

    Args:
        network: encodes ``[1, 1, S, S, S]``.
        image: ``[1, X, Y, Z]`` with the affine of its own grid, in any orientation.
        spacing: of the network's grid in mm.
        clip: lowest and highest intensity, for CT (-1000, 1000) HU; None clips nothing.
        cache: embeddings to keep, >= 1; the least recently used goes first.
        device: where the network is.
        where: file or case for messages.

    Raises:
        DataError: when the image is no one-channel volume with an affine, or not finite.
        GeometryError: when its grid is impossible.
        ConfigError: for a spacing, bounds or cache size out of range.

    Reference:
        Wang et al., SAM-Med3D, 2023, public preprocessing.
    """

    def __init__(
        self,
        *,
        network: Promptable,
        image: MetaTensor,
        spacing: float = 1.5,
        clip: Sequence[float] | None = None,
        cache: int = 8,
        device: torch.device | str = "cpu",
        where: object | None = None,
    ) -> None:
        if not (spacing > 0 and cache >= 1):
            raise ConfigError("spacing and cache are positive", got=f"spacing {spacing}, cache {cache}")
        if clip is not None and not (len(clip) == 2 and clip[0] < clip[1]):
            raise ConfigError("clipping needs a lower and an upper bound", where="clip", got=list(clip))
        if not isinstance(image, MetaTensor) or image.ndim != 4 or len(image) != 1:
            got = f"{type(image).__name__} {tuple(getattr(image, 'shape', ()))}"
            raise DataError("a session needs one volume with its affine", where=where, got=got, expected="[1, X, Y, Z]")
        if not bool(torch.isfinite(image.as_tensor()).all()):
            raise DataError("the volume holds NaN or infinite voxels", where=where, expected="finite intensities")
        self.network, self.device, self.size = network, torch.device(device), network.image_size
        self.given = Grid.of(image).check(where=where)
        values = image.as_tensor().float()
        values = values if clip is None else values.clamp(*map(float, clip))
        chain = Compose([Orientationd("image", axcodes="RAS", labels=None), SafeSpacingd("image", (spacing,) * 3)])
        inner = chain({"image": MetaTensor(values, affine=image.affine)})["image"]
        self.volume: Tensor = inner.as_tensor().float()
        self.inner = Grid.of(inner)
        self.cache, self.encodings = cache, 0
        self._kept: OrderedDict[Start, Tensor] = OrderedDict()

    @property
    def shape(self) -> Start:
        """Voxels of the network's grid."""
        x, y, z = self.inner.shape
        return x, y, z

    @property
    def encoded(self) -> tuple[Start, ...]:
        """First voxels of the crops whose embeddings are kept, the most recently used last."""
        return tuple(self._kept)

    def embedding(self, start: Start) -> Tensor:
        """``[1, C, g, g, g]`` of the crop at ``start``; the encoder runs only if it is not kept."""
        if start not in self._kept:
            crop = z_score_positive(crop_at(self.volume, start, self.size))
            with torch.no_grad():
                self._kept[start] = self.network.encode(crop[None].to(self.device))
            self.encodings += 1
            logger.info("a crop was encoded, at %s", start)
            while len(self._kept) > self.cache:
                self._kept.popitem(last=False)
        self._kept.move_to_end(start)
        return self._kept[start]

    def to_inner(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voxels ``[P, 3]`` of the given image to voxels of the network's grid (not rounded)."""
        matrix = np.linalg.inv(self.inner.affine) @ self.given.affine
        return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])

    def full(self, block: Block, fill: float) -> Tensor:
        """``[x, y, z]`` of the whole network's grid with the block's values in their place."""
        values = torch.full(self.shape, fill)
        low = [max(0, s) for s in block.start]
        high = [min(n, s + k) for n, s, k in zip(self.shape, block.start, block.values.shape, strict=True)]
        x, y, z = (slice(a, b) for a, b in zip(low, high, strict=True))
        i, j, k = (slice(a - s, b - s) for a, b, s in zip(low, high, block.start, strict=True))
        values[x, y, z] = block.values[i, j, k].to(values)
        return values

    def to_given(self, block: Block) -> Block | None:
        """Logits of the network's grid, interpolated on the given image's grid; None where nothing is positive.

        Only the part around positive logits is resampled, which changes nothing: a positive value needs a positive
        neighbour. Beyond half a voxel outside of the block all is :data:`NOTHING`.
        """
        hit = (block.values > 0).nonzero()
        if not len(hit):
            return None
        size = torch.tensor(block.values.shape)
        low = (hit.amin(0) - 1).clamp(min=0)
        high = torch.minimum(hit.amax(0) + 1, size - 1)
        matrix = np.linalg.inv(self.given.affine) @ self.inner.affine
        corners = np.array([[(low, high)[b][a] for a, b in enumerate(c)] for c in np.ndindex(2, 2, 2)], dtype=float)
        corners += np.where(corners == low.numpy(), -0.5, 0.5) + np.array(block.start)
        at = corners @ matrix[:3, :3].T + matrix[:3, 3]
        first = np.maximum(np.floor(at.min(0)).astype(int), 0)
        last = np.minimum(np.ceil(at.max(0)).astype(int), np.array(self.given.shape) - 1)
        if (last < first).any():
            return None
        part = block.values[tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))]
        back = torch.from_numpy(np.linalg.inv(matrix))
        back[:3, 3] -= torch.tensor(block.start, dtype=torch.float64)
        values = _sample(part, low, size, back, first, last)
        x, y, z = (int(i) for i in first)
        return Block((x, y, z), values)


def _sample(
    part: Tensor, low: Tensor, size: Tensor, matrix: Tensor, first: NDArray[np.int_], last: NDArray[np.int_]
) -> Tensor:
    """Trilinear values of a block's ``part`` (from ``low``) at voxels ``first..last`` of another grid.

    Args:
        part: ``[x, y, z]``.
        low: first voxel of the part in the block ``[3]``.
        size: of the whole block ``[3]``.
        matrix: ``[4, 4]``, voxels of the other grid to voxels of the block.
        first: of the other grid ``[3]``.
        last: of the other grid ``[3]``.
    """
    lines = [torch.arange(int(a), int(b) + 1, dtype=torch.float64) for a, b in zip(first, last, strict=True)]
    found = torch.empty([len(x) for x in lines])
    plane = torch.stack(torch.meshgrid(lines[1], lines[2], indexing="ij"), -1)
    fixed = plane @ matrix[:3, 1:3].T + matrix[:3, 3]
    scale = 2.0 / (torch.tensor(part.shape) - 1).clamp(min=1)
    source = part.float()[None, None]
    for i, x in enumerate(lines[0]):  # plane by plane: the coordinates of a whole scan are large
        at = fixed + x * matrix[:3, 0]
        inside = ((at >= -0.5) & (at <= size - 0.5)).all(-1)
        flow = ((at - low) * scale - 1).flip(-1).float()
        values = F.grid_sample(source, flow[None, None], mode="bilinear", padding_mode="border", align_corners=True)
        found[i] = torch.where(inside, values[0, 0, 0], NOTHING)
    return found
