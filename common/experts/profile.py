"""Home profiles: how an expert is asked by the program that it lives in, where that does more than nnU-Net."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AmalgamationError, ExpertError
from ..geometry import Grid, most_voxels
from ..literals import check_name

__all__ = ["HomeProfile"]

_AXES = ({"L", "R"}, {"P", "A"}, {"I", "S"})
_HIGHEST_ORDER = 5
_BYTES = 24  # of a resampled voxel in the making: twice as float64, while its channels are put together, and as float32


@dataclass(frozen=True)
class HomeProfile:
    """What a program does to a scan before nnU-Net sees it, and how it runs nnU-Net.

    Args:
        program: its name.
        version: of which this is true.
        orientation: axis codes to which it turns every scan.
        spacing: mm along x, y, z to which it resamples every scan; None leaves the scan's.
        order: of the spline by which it does, 0 to 5.
        whole_numbers: whether it cuts what that gives to whole numbers, towards zero.
        tile_step: step of nnU-Net's tiles as a share of the patch.
        mirroring: whether nnU-Net answers also for mirrored scans, where the training mirrored.

    Raises:
        ExpertError: for an entry of a wrong kind or range.
    """

    program: str
    version: str
    orientation: str
    spacing: tuple[float, float, float] | None = None
    order: int = 3
    whole_numbers: bool = False
    tile_step: float = 0.5
    mirroring: bool = True

    def __post_init__(self) -> None:
        for text in ("program", "version"):
            check_name(getattr(self, text), f"profile's {text}", error=ExpertError)
        codes, given, order = self.orientation, self.spacing, self.order
        turned = isinstance(codes, str) and len(codes) == 3 and all(sum(c in a for c in codes) == 1 for a in _AXES)
        self._need(turned, "orientation", "three axis codes such as RAS")
        three = isinstance(given, (list, tuple)) and len(given) == 3 and all(_number(s, 1e4, 0.01) for s in given)
        self._need(given is None or three, "spacing", "three numbers of at least 0.01, in mm")
        object.__setattr__(self, "spacing", None if given is None else tuple(float(s) for s in given))
        self._need(type(order) is int and 0 <= order <= _HIGHEST_ORDER, "order", "a whole number from 0 to 5")
        self._need(_number(self.tile_step, 1, 0.05), "tile_step", "a number from 0.05 to 1")
        for flag in ("whole_numbers", "mirroring"):
            self._need(isinstance(getattr(self, flag), bool), flag, "true or false")

    def _need(self, fits: bool, field: str, expected: str) -> None:
        if not fits:
            raise ExpertError(f"a home profile has a wrong {field}", where=ascii(self.program)[:100],
                              got=ascii(getattr(self, field))[:100], expected=expected)  # fmt: skip

    @classmethod
    def of(cls, spec: Any) -> HomeProfile | None:
        """The profile in an expert's description, None for most.

        Args:
            spec: an :class:`~common.experts.spec.ExpertSpec`.

        Raises:
            ExpertError: when it cannot be read, or the expert is no nnU-Net.
        """
        if spec.profile is None:
            return None
        if spec.kind != "nnunet":
            raise ExpertError("only nnU-Net experts have a home profile", where=spec.name, got=spec.kind)
        try:
            return cls.from_dict(spec.profile)
        except AmalgamationError as error:
            where = f"expert {spec.name!a} ({error.where})"
            raise ExpertError(error.problem, where=where, got=error.got, expected=error.expected) from error

    @classmethod
    def from_dict(cls, data: Any, *, where: object | None = None) -> HomeProfile:
        """Read it strictly: no entry too many, none of another kind.

        Raises:
            ExpertError: for the first thing that is wrong.
        """
        known = [f.name for f in fields(cls)]
        expected = ", ".join(known)
        if not isinstance(data, Mapping):
            raise ExpertError("a home profile is a mapping", where=where, got=ascii(data)[:100], expected=expected)
        unknown = [k for k in data if k not in known]
        missing = [k for k in known[:3] if k not in data]
        if unknown or missing:
            got = f"unknown: {', '.join(map(ascii, unknown))}" if unknown else f"missing: {', '.join(missing)}"
            raise ExpertError("cannot read a home profile", where=where, got=got, expected=expected)
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {**asdict(self), "spacing": None if self.spacing is None else list(self.spacing)}

    def resampled(
        self, volume: NDArray[Any], grid: Grid, *, where: object | None = None
    ) -> tuple[NDArray[Any], Grid, tuple[float, ...]]:
        """A scan as the program hands it to nnU-Net.

        Args:
            volume: ``[C, X, Y, Z]`` in the profile's orientation.
            grid: its grid.
            where: the expert and the scan, for the message.

        Returns:
            the volume on the program's grid, that grid as it lies in the patient (a spline from first to last voxel
            centre keeps these in place, so that a voxel is not exactly ``spacing`` wide), and the spacing that nnU-Net
            is told.

        Raises:
            ExpertError: when that would have no voxel, or more than this machine holds.
        """
        if self.spacing is None:
            return volume, grid, grid.spacing
        from scipy.ndimage import zoom

        factors = [float(s / t) for s, t in zip(grid.spacing, self.spacing, strict=True)]
        shape = [round(n * f) for n, f in zip(volume.shape[1:], factors, strict=True)]
        most = most_voxels(_BYTES * len(volume))
        if min(shape) < 1 or math.prod(shape) > most:
            raise ExpertError(f"the scan cannot be resampled as {ascii(self.program)[:100]} does", where=where,
                              got=f"{shape} voxels from {list(volume.shape[1:])} of {grid.spacing} mm",
                              expected=f"1 to {most:,} voxels at {self.spacing} mm, which this machine holds",
                              hint="correct the profile's spacing, or the scan's")  # fmt: skip
        result = np.stack([zoom(c.astype(np.float64), factors, order=self.order) for c in volume])
        if self.whole_numbers:
            result = np.trunc(result)
        affine, here, there = grid.affine.copy(), volume.shape[1:], result.shape[1:]
        for axis, (n, m, f) in enumerate(zip(here, there, factors, strict=True)):
            affine[:3, axis] *= (n - 1) / (m - 1) if n > 1 and m > 1 else 1 / f
        return result.astype(np.float32), Grid(tuple(there), affine), self.spacing


def _number(value: Any, most: float, least: float) -> bool:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and least <= value <= most  # neither NaN nor infinity is, nor a number of 400 digits
