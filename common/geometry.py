"""Where the voxels of a volume lie in the patient: shape, spacing, origin, orientation."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from .errors import GeometryError, placed

__all__ = ["PLAUSIBLE_SPACING_MM", "Grid", "most_voxels"]

PLAUSIBLE_SPACING_MM = (0.01, 50.0)
_SHEAR_TOLERANCE = 0.01
_MOST_VOXELS = 2**31
_MEMORY = 2**36  # bytes, where the system does not tell


def most_voxels(bytes_each: int) -> int:
    """How many voxels a volume may have for this machine's memory to hold it, swapped-out memory not counted.

    Args:
        bytes_each: what a voxel needs while it is computed, all channels and copies together, >= 1.
    """
    told = hasattr(os, "sysconf") and {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= os.sysconf_names.keys()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if told else _MEMORY
    return max(1, min(_MOST_VOXELS, memory // bytes_each))


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular voxel grid in RAS+ world coordinates: ``world_mm = affine @ (i, j, k, 1)``.

    Args:
        shape: voxels per axis, two or three axes.
        affine: ``[4, 4]`` voxel-to-world matrix in mm (NIfTI's convention); a smaller one is embedded.

    Raises:
        GeometryError: when the shape has not two or three positive entries or the matrix is not square.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise GeometryError("a grid has two or three axes with at least one voxel each", got=shape)
        given = np.asarray(self.affine, dtype=np.float64)
        if given.ndim != 2 or given.shape[0] != given.shape[1] or not 3 <= given.shape[0] <= 4:
            raise GeometryError("an affine is a 4 x 4 matrix", got=f"shape {given.shape}")
        affine = np.eye(4)
        n = given.shape[0] - 1
        affine[:n, :n], affine[:n, 3] = given[:n, :n], given[:n, n]
        affine[3] = given[3] if n == 3 else affine[3]
        affine.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def of(cls, image: Any, *, where: object | None = None) -> Grid:
        """The grid of a nibabel image ``[X, Y, Z, ...]`` or of a MetaTensor ``[C, X, Y, Z]``.

        Args:
            image: with an ``affine``.
            where: file or case for the message; the image's own file when None.

        Raises:
            GeometryError: as of the class.
        """
        affine = image.affine
        affine = affine.detach().cpu().numpy() if hasattr(affine, "detach") else affine
        shape = tuple(image.shape[1:]) if hasattr(image, "meta") else tuple(image.shape[:3])
        try:
            return cls(shape, affine)
        except GeometryError as error:
            raise placed(error, where or _file_of(image)) from error

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size in mm per axis of ``shape``."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, : len(self.shape)], axis=0))

    @property
    def origin(self) -> tuple[float, float, float]:
        """World position in mm of the centre of voxel (0, 0, 0)."""
        x, y, z = self.affine[:3, 3]
        return float(x), float(y), float(z)

    @property
    def direction(self) -> NDArray[np.float64]:
        """``[3, 3]`` unit vectors (columns) of the voxel axes."""
        columns = self.affine[:3, :3]
        return np.asarray(columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-30), dtype=np.float64)

    @property
    def axcodes(self) -> str:
        """Anatomical direction towards which each axis runs, for example ``"RAS"`` or ``"LPS"``."""
        return "".join(code or "?" for code in nib.orientations.aff2axcodes(self.affine))[: len(self.shape)]

    def corners(self) -> NDArray[np.float64]:
        """``[8, 3]`` world positions in mm of the corner voxels' centres."""
        extent = [(0, n - 1) for n in (*self.shape, 1)[:3]]
        voxels = np.array([(*c, 1) for c in itertools.product(*extent)], dtype=np.float64)
        return np.asarray((voxels @ self.affine.T)[:, :3], dtype=np.float64)

    def difference(self, other: Grid, tol_mm: float | None = None) -> str | None:
        """What differs between two grids, or None when corresponding corner voxels coincide.

        Args:
            other: the grid to compare with.
            tol_mm: largest distance in mm between corresponding corners; 5 % of the smallest spacing when None.
        """
        if self.shape != other.shape:
            return f"shape {self.shape} and {other.shape}"
        tol_mm = 0.05 * min(*self.spacing, *other.spacing) if tol_mm is None else tol_mm
        apart = float(np.linalg.norm(self.corners() - other.corners(), axis=1).max())
        if apart <= tol_mm:
            return None
        parts = []
        if not np.allclose(self.spacing, other.spacing, rtol=1e-3):
            parts.append(f"spacing {_numbers(self.spacing)} and {_numbers(other.spacing)} mm")
        if self.axcodes != other.axcodes:
            parts.append(f"orientation {self.axcodes} and {other.axcodes}")
        elif not np.allclose(self.direction, other.direction, atol=1e-3):
            parts.append("rotation of the axes")
        if not np.allclose(self.origin, other.origin, atol=tol_mm):
            parts.append(f"origin {_numbers(self.origin)} and {_numbers(other.origin)} mm")
        return f"{'; '.join(parts) or 'position'} (corners {apart:.3g} mm apart)"

    def same_as(self, other: Grid, tol_mm: float | None = None) -> bool:
        """True when :meth:`difference` finds none."""
        return self.difference(other, tol_mm) is None

    def resampled_shape(self, spacing: Sequence[float]) -> tuple[int, ...]:
        """Voxels per axis between the same outer voxel centres at another spacing in mm (values <= 0 keep an axis).

        ``round((n - 1) * s / t + 1)``, which is what MONAI's ``Spacing`` produces.
        """
        return tuple(
            max(1, round((n - 1) * s / t + 1)) if t > 0 else n
            for n, s, t in zip(self.shape, self.spacing, spacing, strict=True)
        )

    def check(
        self,
        *,
        where: object | None = None,
        plausible_mm: tuple[float, float] | None = PLAUSIBLE_SPACING_MM,
        allow_shear: bool = False,
    ) -> Grid:
        """Return the grid itself when a body can lie on it.

        Args:
            where: file or case for the message.
            plausible_mm: smallest and largest accepted spacing in mm; None accepts any.
            allow_shear: accept axes that are not at right angles.

        Raises:
            GeometryError: for a non-finite, zero, singular or sheared matrix, or implausible spacing.
        """
        m = self.affine
        if not np.isfinite(m).all():
            raise GeometryError("the affine holds NaN or infinite values", where=where, got=_rows(m), hint=_HEADER_HINT)
        if not m[:3, :3].any():
            raise GeometryError("the affine is zero", where=where, got=_rows(m), hint=_HEADER_HINT)
        if abs(np.linalg.det(self.direction)) < 1e-6 or min(np.linalg.norm(m[:3, :3], axis=0)) == 0:
            raise GeometryError("the affine is singular", where=where, got=_rows(m), hint=_HEADER_HINT)
        cosines = self.direction.T @ self.direction - np.eye(3)
        if not allow_shear and np.abs(cosines).max() > _SHEAR_TOLERANCE:
            raise GeometryError(
                "the axes are sheared",
                where=where,
                got=f"an angle of {np.degrees(np.arccos(np.abs(cosines).max())):.1f} degrees between two axes",
                expected="right angles",
                hint="resample the volume to a rectangular grid first (gantry tilt is the usual cause)",
            )
        low, high = plausible_mm or (0.0, float("inf"))
        if not all(low <= s <= high for s in self.spacing):
            raise GeometryError(
                "the spacing is implausible",
                where=where,
                got=f"{_numbers(self.spacing)} mm",
                expected=f"{low} to {high} mm",
                hint="correct the header (metres instead of mm?), or pass another plausible range",
            )
        return self

    def __str__(self) -> str:
        return f"{self.shape} voxels of {_numbers(self.spacing)} mm, {self.axcodes}, origin {_numbers(self.origin)}"


_HEADER_HINT = "write a valid affine (sform) into the header and try again"


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"


def _file_of(image: Any) -> str | None:
    """Where an image lies, as far as it says."""
    told = image.meta.get("filename_or_obj") if hasattr(image, "meta") else getattr(image, "get_filename", str)()
    return told if isinstance(told, str) and told else None


def _rows(matrix: NDArray[np.float64]) -> str:
    return "; ".join(" ".join(f"{v:.4g}" for v in row) for row in matrix[:3])
