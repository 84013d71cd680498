"""From slices to one regular grid: stacks that a series mixes, gaps, gantry tilt; and back to the slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...errors import GeometryError
from ...geometry import Grid
from .slices import CONVERT, Slice, predict_takes

__all__ = ["Regular", "on_slices", "regular", "series_grid", "slice_affine", "stacks"]

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_UNEVEN = 0.05  # of the usual distance between slices
_SIDEWAYS = 0.1  # of a pixel
_TILT = 0.01  # cosine between a slice axis and the stacking direction, as Grid.check
_TOUCHING_MM = 1e-3


class Regular(NamedTuple):
    """Slices put onto a regular grid: ``[X, Y, Z]`` voxels, the grid, and what had to be done, in words."""

    voxels: NDArray[np.float32]
    grid: Grid
    notes: tuple[str, ...]


def stacks(slices: Sequence[Slice]) -> list[tuple[str, list[Slice]]]:
    """The parts of a series whose slices have one size, orientation and spacing and repeat no position, described.

    Slices at one position are told apart by the first header value (echo, time, b-value, ...) that does it throughout;
    where none does, they stay together. Each part is sorted by height.
    """
    shapes: list[list[Slice]] = []
    for one in slices:
        home = next((s for s in shapes if _alike(s[0], one)), None)
        if home is None:
            shapes.append([one])
        else:
            home.append(one)
    parts = [part for shape in shapes for part in _by_mark(sorted(shape, key=_height))]
    return [(_words(part, mark), part) for mark, part in parts]


def series_grid(slices: Sequence[Slice], folder: Path) -> Grid:
    """The grid of slices sorted by height.

    Raises:
        GeometryError: for repeated, missing, uneven, shifted or tilted slices.
    """
    _refuse_repeats(slices, folder)
    _refuse_gaps(slices, folder)
    first, last = slices[0], slices[-1]
    affine = slice_affine(first)
    if len(slices) > 1:
        affine[:3, 2] = np.subtract(last.position, first.position) / (len(slices) - 1)
        _refuse_tilt(affine[:3, 2], first, folder)
    grid = Grid((*first.size, len(slices)), _LPS_TO_RAS @ affine).check(where=folder)
    if len(slices) > 1:
        _refuse_shifts(slices)
    return grid


def slice_affine(one: Slice) -> NDArray[np.float64]:
    """``[4, 4]`` from (column, row, slice) to DICOM's LPS world in mm; the third axis has the slice's thickness."""
    affine = np.eye(4)
    affine[:3, 0] = np.multiply(one.orientation[:3], one.spacing[1])
    affine[:3, 1] = np.multiply(one.orientation[3:], one.spacing[0])
    affine[:3, 2] = np.cross(one.orientation[:3], one.orientation[3:]) * one.thickness
    affine[:3, 3] = one.position
    return affine


def regular(
    slices: Sequence[Slice], pixels: NDArray[np.float32], folder: Path, *, straighten: bool = False, fill: bool = False
) -> Regular:
    """Put slices sorted by height onto a regular, rectangular grid.

    Args:
        slices: one stack.
        pixels: ``[X, Y, Z]`` its intensities.
        folder: for messages.
        straighten: shift tilted slices within their planes (linear), onto a canvas that holds all of them.
        fill: interpolate (linearly) where slices are missing or unevenly spaced.

    Raises:
        GeometryError: for what the two do not mend, or when more slices would be invented than there are.
    """
    notes: list[str] = []
    if straighten and len(slices) > 1:
        slices, pixels = _straightened(slices, pixels, notes)
    if fill and len(slices) > 2:
        _refuse_repeats(slices, folder)
        slices, pixels = _filled(slices, pixels, folder, notes)
    return Regular(pixels, series_grid(slices, folder), tuple(notes))


def on_slices(label: NDArray[Any], grid: Grid, slices: Sequence[Slice]) -> NDArray[Any]:
    """A label map on :func:`regular`'s grid sampled (nearest voxel) at the original slices.

    Args:
        label: ``[..., X, Y, Z]`` on ``grid``.
        grid: what :func:`regular` returned.
        slices: the slices that it was given.

    Returns:
        ``[..., N, rows, columns]``, one plane per slice; 0 outside the grid.

    Raises:
        GeometryError: when the grid's axes are not those of the slices.
    """
    inverse = np.linalg.inv(grid.affine) @ _LPS_TO_RAS
    planes = []
    for one in slices:
        place = inverse @ slice_affine(one)
        if not np.allclose(place[:3, :2], np.eye(3)[:, :2], atol=_TILT):
            raise GeometryError("the label map's axes are not those of the slice", where=one.path, got=grid)
        column, row, layer = (int(i) for i in np.rint(place[:3, 3]))
        if 0 <= layer < grid.shape[2]:
            planes.append(_window(label[..., layer], (column, row), one.size))
        else:
            planes.append(np.zeros((*label.shape[:-3], *one.size), dtype=label.dtype))
    return np.ascontiguousarray(np.stack(planes, axis=-3).swapaxes(-1, -2))


def _window(plane: NDArray[Any], start: tuple[int, int], size: tuple[int, int]) -> NDArray[Any]:
    result = np.zeros((*plane.shape[:-2], *size), dtype=plane.dtype)
    there: list[slice] = []
    here: list[slice] = []
    for begin, wanted, present in zip(start, size, plane.shape[-2:], strict=True):
        low, high = max(0, begin), min(present, begin + wanted)
        there.append(slice(low, max(low, high)))
        here.append(slice(low - begin, max(low, high) - begin))
    result[..., here[0], here[1]] = plane[..., there[0], there[1]]
    return result


def _height(one: Slice) -> float:
    return one.height


def _alike(a: Slice, b: Slice) -> bool:
    same = a.size == b.size and np.allclose(a.orientation, b.orientation, atol=1e-3)
    return bool(same and np.allclose(a.spacing, b.spacing, rtol=1e-3))


def _by_mark(part: list[Slice]) -> list[tuple[str, list[Slice]]]:
    if not _repeats(part):
        return [("", part)]
    for name in dict.fromkeys(n for one in part for n, _ in one.marks):
        groups: dict[str, list[Slice]] = {}
        for one in part:
            groups.setdefault(dict(one.marks).get(name, "none"), []).append(one)
        if len(groups) > 1 and not any(_repeats(g) for g in groups.values()):
            return [(f"{name} {value}", g) for value, g in groups.items()]
    return [("", part)]


def _repeats(part: Sequence[Slice]) -> bool:
    return bool(len(part) > 1 and np.diff([s.height for s in part]).min() < _TOUCHING_MM)


def _words(part: Sequence[Slice], mark: str) -> str:
    one = part[0]
    normal = np.abs(np.cross(one.orientation[:3], one.orientation[3:]))
    plane = ("sagittal", "coronal", "axial")[int(normal.argmax())]
    size = f"{len(part)} {plane} slices of {one.size[0]} x {one.size[1]} pixels, {one.spacing[0]:.3g} mm"
    return f"{size}, {mark}" if mark else size


def _refuse_repeats(slices: Sequence[Slice], folder: Path) -> None:
    if _repeats(slices):
        i = int(np.diff([s.height for s in slices]).argmin())
        raise GeometryError(
            "two slices have one position (several phases or a repeated export?)",
            where=folder,
            got=f"{slices[i].name} and {slices[i + 1].name}",
            hint="give each phase its own folder; to drop slices that are there twice, "
            + predict_takes("--skip_repeated True"),
        )


def _refuse_gaps(slices: Sequence[Slice], folder: Path) -> None:
    steps = np.diff([s.height for s in slices])
    if not len(steps):
        return
    usual = float(np.median(steps))
    gaps = [i for i, step in enumerate(steps) if abs(step - usual) > _UNEVEN * usual]
    if gaps:
        named = [f"{steps[i]:.3g} mm between {slices[i].name} and {slices[i + 1].name}" for i in gaps[:5]]
        missing = sum(max(0, round(float(steps[i]) / usual) - 1) for i in gaps)
        raise GeometryError(
            f"slices are missing (about {missing})" if missing else "the slices are unevenly spaced",
            where=folder,
            got="; ".join(named),
            expected=f"{usual:.3g} mm everywhere ({len(slices)} slices found)",
            hint=f"export the complete series again; to interpolate, {predict_takes('--fill_gaps True')}",
        )


def _refuse_tilt(step: NDArray[np.float64], first: Slice, folder: Path) -> None:
    axes = np.array([first.orientation[:3], first.orientation[3:]])
    cosine = float(np.abs(axes @ (step / np.linalg.norm(step))).max())
    if cosine > _TILT:
        raise GeometryError(
            "the slices are sheared against each other (gantry tilt)",
            where=folder,
            got=f"{90 - np.degrees(np.arccos(min(1.0, cosine))):.1f} degrees",
            expected="slices stacked along their normal",
            hint=predict_takes("--straighten True"),
        )


def _refuse_shifts(slices: Sequence[Slice]) -> None:
    """Refuse a slice that lies beside the line from the first to the last."""
    offsets = _offsets(slices)
    share = np.array([s.height - slices[0].height for s in slices]) / (slices[-1].height - slices[0].height)
    beside = np.abs(offsets - share[:, None] * offsets[-1]).max(axis=1)
    worst = int(beside.argmax())
    if beside[worst] > _SIDEWAYS:
        raise GeometryError(
            "a slice is shifted sideways",
            where=slices[worst].path,
            got=f"{beside[worst]:.3g} pixels beside its neighbours",
            hint=predict_takes("--straighten True"),
        )


def _offsets(slices: Sequence[Slice]) -> NDArray[np.float64]:
    """``[N, 2]`` shifts of the slices within their plane in pixels (columns, rows), the first being 0."""
    first = slices[0]
    apart = np.subtract([s.position for s in slices], first.position)
    axes = np.array([first.orientation[:3], first.orientation[3:]]).T
    return np.asarray(apart @ axes / np.array([first.spacing[1], first.spacing[0]]), dtype=np.float64)


def _straightened(
    slices: Sequence[Slice], pixels: NDArray[np.float32], notes: list[str]
) -> tuple[list[Slice], NDArray[np.float32]]:
    offsets = _offsets(slices).round(3)
    if np.abs(offsets).max() <= _SIDEWAYS:
        return list(slices), pixels
    low, high = np.floor(offsets.min(axis=0)), np.ceil(offsets.max(axis=0))
    size = np.add(slices[0].size, high - low).astype(int)
    if np.prod(size) > 4 * np.prod(slices[0].size):
        raise GeometryError(
            "the slices lie too far beside each other to be one stack",
            where=slices[0].path.parent,
            got=f"{high - low} pixels",
            hint=CONVERT,
        )
    around = float(pixels.min())
    canvas = np.full((*size, len(slices)), around, dtype=np.float32)
    for k, offset in enumerate(offsets - low):
        plane = np.full(tuple(size), around, dtype=np.float32)
        plane[: pixels.shape[0], : pixels.shape[1]] = pixels[..., k]
        canvas[..., k] = ndimage.shift(plane, offset, order=1, mode="grid-constant", cval=around)
    first = slices[0]
    corner = slice_affine(first)[:3] @ [*low, 0, 1]
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    moved = [corner + normal * (s.height - first.height) for s in slices]
    notes.append(
        f"slices shifted within their planes by up to {np.abs(offsets).max():.3g} pixels; {around:g} around them"
    )
    return [_moved(s, p, (int(size[0]), int(size[1]))) for s, p in zip(slices, moved, strict=True)], canvas


def _filled(
    slices: Sequence[Slice], pixels: NDArray[np.float32], folder: Path, notes: list[str]
) -> tuple[list[Slice], NDArray[np.float32]]:
    heights = np.array([s.height for s in slices])
    usual = float(np.median(np.diff(heights)))
    count = round(float((heights[-1] - heights[0]) / usual)) + 1
    if count > 2 * len(slices):
        raise GeometryError(
            "more slices are missing than there are",
            where=folder,
            got=f"{len(slices)} of {count} slices",
            hint="export the complete series again",
        )
    wanted = np.linspace(heights[0], heights[-1], count)
    step = float(wanted[1] - wanted[0])
    result, places = np.empty((*pixels.shape[:2], count), dtype=np.float32), []
    start, line = np.array(slices[0].position), np.subtract(slices[-1].position, slices[0].position)
    invented = []
    for j, height in enumerate(wanted):
        near = int(np.abs(heights - height).argmin())
        if abs(heights[near] - height) <= _UNEVEN * step:
            result[..., j] = pixels[..., near]
        else:
            above = int(np.searchsorted(heights, height))
            part = (height - heights[above - 1]) / (heights[above] - heights[above - 1])
            result[..., j] = (1 - part) * pixels[..., above - 1] + part * pixels[..., above]
            invented.append(f"slice {j} between {slices[above - 1].name} and {slices[above].name}")
        places.append(_moved(slices[0], start + line * (height - heights[0]) / (heights[-1] - heights[0])))
    if invented:
        notes.append(f"{len(invented)} of {count} slices are interpolated: {'; '.join(invented)}")
    return places, result


def _moved(one: Slice, position: NDArray[np.float64], size: tuple[int, int] | None = None) -> Slice:
    return replace(one, position=tuple(float(p) for p in position), size=size or one.size)
