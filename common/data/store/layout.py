"""In which pieces an array lies on disk, so that a training crop or a slice reads little more than itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...errors import ConfigError

__all__ = ["Pieces", "Reading", "pieces"]

_PER_EDGE = 8  # a crop of 96 voxels overlaps at most 9 blocks of 12: (108 / 96)^3 = 1.4 times its voxels
_BLOCKS = 4  # blocks along each edge of a chunk, the unit in which the file is indexed
_LEAST = 8  # smaller blocks cost more than they save


class Reading(NamedTuple):
    """How training reads volumes.

    Args:
        crop: voxels of a crop along each axis, in the axes of the prepared volume; None for slices.
        axis: spatial axis that slices are cut along.
    """

    crop: tuple[int, ...] | None = None
    axis: int = 2

    @classmethod
    def crops(cls, size: Sequence[int] | int, dim: int = 3) -> Reading:
        """Crops of a size.

        Raises:
            ConfigError: for a size below one voxel.
        """
        edges = tuple(int(n) for n in ([size] * dim if isinstance(size, int) else size))
        if not edges or min(edges) < 1:
            raise ConfigError("a crop has at least one voxel along each axis", where="crop", got=edges)
        return cls(edges)


class Pieces(NamedTuple):
    """Shapes of what is read at once (block) and of what is found at once (chunk), both ``[C, ...]``."""

    block: tuple[int, ...]
    chunk: tuple[int, ...]


def pieces(shape: Sequence[int], reading: Reading) -> Pieces:
    """The pieces of a volume ``[C, ...]``.

    Args:
        shape: of the volume, with its channels, which are read together.
        reading: how it will be read.
    """
    channels, spatial = int(shape[0]), [max(1, int(n)) for n in shape[1:]]
    if reading.crop is None:
        block = [n if a != reading.axis else 1 for a, n in enumerate(spatial)]
        chunk = [n if a != reading.axis else min(n, 16) for a, n in enumerate(spatial)]
    else:
        crop = (*([1] * (len(spatial) - len(reading.crop))), *reading.crop)[-len(spatial) :]
        block = [min(n, _block(edge)) for n, edge in zip(spatial, crop, strict=True)]
        chunk = [min(-(-n // b) * b, b * _BLOCKS) for n, b in zip(spatial, block, strict=True)]
    leading = (max(1, channels),)
    return Pieces((*leading, *block), (*leading, *(max(b, c) for b, c in zip(block, chunk, strict=True))))


def _block(edge: int) -> int:
    return max(min(edge, _LEAST), edge // _PER_EDGE)
