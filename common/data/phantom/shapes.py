"""Implicit shapes in millimetres, the building blocks of the phantom's anatomy.

A shape is a signed field, negative inside. Because it is analytic, the same subject can be sampled on any grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Blend",
    "Canvas",
    "Cut",
    "Ellipsoid",
    "Field",
    "Placed",
    "Points",
    "Shape",
    "Tube",
    "Warp",
    "Waves",
    "rotation",
]

Points = NDArray[np.float32]
# ``[3, N]`` positions in mm, axes right, anterior, superior.
Field = NDArray[np.float32]
# ``[N]`` approximate signed distance in mm, negative inside.
Vector = tuple[float, float, float]


def column(values: Sequence[float] | NDArray[np.float64]) -> Points:
    """``[3, 1]`` float32, to combine with points."""
    return np.asarray(values, dtype=np.float32).reshape(3, 1)


def rotation(degrees: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float32]:
    """``[3, 3]`` rotation matrix ``Rz Ry Rx`` from three angles in degrees."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx, dtype=np.float32)


class Shape(Protocol):
    """Anything with a signed field and a bounding sphere."""

    def field(self, points: Points) -> Field:
        """Signed field at the points, negative inside."""
        ...

    def bounds(self) -> tuple[Vector, float]:
        """Centre and radius (mm) of a sphere that contains the shape."""
        ...


@dataclass(frozen=True)
class Ellipsoid:
    """``(|R^T (p - centre) / radii| - 1) * min(radii)``; lengths in mm, angles in degrees."""

    centre: Vector
    radii: Vector
    angles: Vector = (0.0, 0.0, 0.0)

    def field(self, points: Points) -> Field:
        """See :meth:`Shape.field`."""
        local = (rotation(self.angles).T @ (points - column(self.centre))) / column(self.radii)
        return np.asarray((np.sqrt((local * local).sum(0)) - 1) * min(self.radii), dtype=np.float32)

    def bounds(self) -> tuple[Vector, float]:
        """See :meth:`Shape.bounds`."""
        return self.centre, max(self.radii)


@dataclass(frozen=True)
class Tube:
    """Distance to a polyline minus a radius (mm) that changes linearly between the given points."""

    path: tuple[Vector, ...]
    radii: tuple[float, ...]

    def field(self, points: Points) -> Field:
        """See :meth:`Shape.field`."""
        best = np.full(points.shape[1], np.inf, dtype=np.float32)
        for start, stop, r0, r1 in zip(self.path, self.path[1:], self.radii, self.radii[1:], strict=False):
            along = column(stop) - column(start)
            offset = points - column(start)
            t = np.clip((offset * along).sum(0) / np.float32((along * along).sum()), 0, 1)
            gap = offset - along * t
            best = np.minimum(best, np.sqrt((gap * gap).sum(0)) - (r0 + (r1 - r0) * t))
        return best

    def bounds(self) -> tuple[Vector, float]:
        """See :meth:`Shape.bounds`."""
        low, high = np.min(self.path, axis=0), np.max(self.path, axis=0)
        x, y, z = (float(v) for v in (low + high) / 2)
        return (x, y, z), float(np.linalg.norm(high - low) / 2 + max(self.radii))


@dataclass(frozen=True)
class Blend:
    """Smooth union of two shapes; ``width`` (mm) rounds the seam."""

    first: Shape
    second: Shape
    width: float

    def field(self, points: Points) -> Field:
        """See :meth:`Shape.field`."""
        a, b = self.first.field(points), self.second.field(points)
        h = np.maximum(self.width - np.abs(a - b), 0) / self.width
        return np.asarray(np.minimum(a, b) - h * h * (self.width / 4), dtype=np.float32)

    def bounds(self) -> tuple[Vector, float]:
        """See :meth:`Shape.bounds`."""
        (a, ra), (b, rb) = self.first.bounds(), self.second.bounds()
        x, y, z = (float(v) for v in (np.asarray(a) + np.asarray(b)) / 2)
        return (x, y, z), float(np.linalg.norm(np.subtract(a, b)) / 2 + max(ra, rb) + self.width)


@dataclass(frozen=True)
class Cut:
    """The first shape without the second."""

    first: Shape
    second: Shape

    def field(self, points: Points) -> Field:
        """See :meth:`Shape.field`."""
        return np.maximum(self.first.field(points), -self.second.field(points))

    def bounds(self) -> tuple[Vector, float]:
        """See :meth:`Shape.bounds`."""
        return self.first.bounds()


@dataclass(frozen=True)
class Placed:
    """A shape that is turned and scaled about a pivot, then shifted (mm)."""

    shape: Shape
    pivot: Vector
    shift: Vector = (0.0, 0.0, 0.0)
    scale: float = 1.0
    angles: Vector = (0.0, 0.0, 0.0)

    def field(self, points: Points) -> Field:
        """See :meth:`Shape.field`."""
        local = rotation(self.angles).T @ (points - column(self.pivot) - column(self.shift))
        local = np.asarray(local / np.float32(self.scale) + column(self.pivot), dtype=np.float32)
        return self.shape.field(local) * np.float32(self.scale)

    def bounds(self) -> tuple[Vector, float]:
        """See :meth:`Shape.bounds`."""
        centre, reach = self.shape.bounds()
        moved = rotation(self.angles) @ (column(centre) - column(self.pivot)) * self.scale
        x, y, z = (float(v) for v in (moved + column(self.pivot) + column(self.shift)).ravel())
        return (x, y, z), reach * self.scale


@dataclass(frozen=True)
class Waves:
    """A smooth random scalar field ``sum_i a_i sin(k_i . p + phase_i)``."""

    vectors: NDArray[np.float32]
    phases: NDArray[np.float32]
    amplitudes: NDArray[np.float32]

    @classmethod
    def draw(cls, rng: np.random.Generator, *, count: int, wavelength: tuple[float, float], amplitude: float) -> Waves:
        """Random waves; wavelengths in mm, ``amplitude`` = standard deviation of the sum."""
        directions = rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        vectors = directions * (2 * np.pi / rng.uniform(*wavelength, size=(count, 1)))
        sizes = rng.uniform(0.5, 1.0, size=count)
        sizes *= amplitude * np.sqrt(2 / (sizes**2).sum())
        phases = rng.uniform(0, 2 * np.pi, size=count)
        return cls(vectors.astype(np.float32), phases.astype(np.float32), sizes.astype(np.float32))

    def __call__(self, points: Points) -> Field:
        """``[N]`` values at the points."""
        total = np.zeros(points.shape[1], dtype=np.float32)
        for vector, phase, amplitude in zip(self.vectors, self.phases, self.amplitudes, strict=True):
            total += amplitude * np.sin(vector @ points + phase)
        return total


@dataclass(frozen=True)
class Warp:
    """From a subject's space to the template's: a random affine map plus a smooth deformation (mm)."""

    matrix: NDArray[np.float32]
    waves: tuple[Waves, Waves, Waves]

    @classmethod
    def draw(cls, rng: np.random.Generator, *, scale: float, degrees: float, bend: float) -> Warp:
        """Random warp; ``scale`` is relative, ``degrees`` the largest turn, ``bend`` the deformation's sd in mm."""
        sizes = 1 + rng.uniform(-scale, scale) + rng.uniform(-scale / 2, scale / 2, size=3)
        matrix = np.diag(1 / sizes) @ rotation(rng.uniform(-degrees, degrees, size=3))
        a, b, c = (Waves.draw(rng, count=4, wavelength=(90.0, 220.0), amplitude=bend) for _ in range(3))
        return cls(matrix.astype(np.float32), (a, b, c))

    def __call__(self, points: Points) -> Points:
        """Template positions ``[3, N]`` of a subject's positions."""
        return np.asarray(self.matrix @ points + np.stack([w(points) for w in self.waves]), dtype=np.float32)


class Canvas:
    """Tissue and structure codes at every point; later strokes cover earlier ones.

    Args:
        points: ``[3, N]`` template positions in mm.
        tissues: tissue names, code = index; code 0 is where nothing was painted.
        structures: structure names, code = index + 1; code 0 is none.
    """

    def __init__(self, *, points: Points, tissues: Sequence[str], structures: Sequence[str]) -> None:
        self.points = points
        self.tissue = np.zeros(points.shape[1], dtype=np.uint8)
        self.structure = np.zeros(points.shape[1], dtype=np.uint8)
        self.tissue_code = {name: i for i, name in enumerate(tissues)}
        self.structure_code = {name: i for i, name in enumerate(structures, start=1)}

    def fill(self, where: NDArray[np.bool_] | NDArray[np.intp], tissue: str, structure: str | None = "") -> None:
        """Set a region; ``structure=""`` clears the structure there, None leaves it as it is."""
        self.tissue[where] = self.tissue_code[tissue]
        if structure is not None:
            self.structure[where] = self.structure_code[structure] if structure else 0

    def near(self, shape: Shape, margin: float = 8.0) -> NDArray[np.intp]:
        """Indices of the points in the shape's bounding sphere."""
        centre, reach = shape.bounds()
        offset = self.points - column(centre)
        return np.flatnonzero((offset * offset).sum(0) < (reach + margin) ** 2)

    def paint(
        self,
        shape: Shape,
        tissue: str,
        structure: str | None = "",
        *,
        over: Sequence[str] = (),
        ripple: Waves | None = None,
        grow: float = 0.0,
    ) -> None:
        """Paint a shape.

        Args:
            shape: what to paint.
            tissue: its tissue.
            structure: see :meth:`fill`.
            over: paint only on these tissues; everywhere when empty.
            ripple: roughness added to the surface, mm.
            grow: move the surface outwards by this, mm.
        """
        index = self.near(shape, margin=8.0 + grow)
        field = shape.field(self.points[:, index]) - np.float32(grow)
        if ripple is not None:
            field = field + ripple(self.points[:, index])
        inside = field < 0
        if over:
            inside &= np.isin(self.tissue[index], [self.tissue_code[t] for t in over])
        self.fill(index[inside], tissue, structure)
