"""DICOM segmentations (SEG) read as masks or a label map on the grid of their series."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray

from ...errors import DataError, GeometryError, LabelError
from ...geometry import Grid
from ...labels import LabelSpace
from .grid import series_grid, slice_affine
from .seg import load_highdicom
from .slices import Slice

__all__ = ["SegMasks", "is_seg", "read_seg", "segment_names"]

_SEG = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_MOST_VOXELS = 2**31


class SegMasks(NamedTuple):
    """Masks ``[S, X, Y, Z]`` of a SEG on its series' grid, and the segments' names."""

    masks: NDArray[np.bool_]
    names: tuple[str, ...]
    grid: Grid

    def label_map(self, labels: LabelSpace | None = None, where: object | None = None) -> NDArray[np.uint8]:
        """``[X, Y, Z]`` with the number of each voxel's segment (the index in ``labels`` when given).

        Raises:
            LabelError: when two segments overlap, or one is not in the label space.
        """
        result = np.zeros(self.masks.shape[1:], dtype=np.uint8)
        for number, (name, mask) in enumerate(zip(self.names, self.masks, strict=True), start=1):
            if result[mask].any():
                other = self.names[int(result[mask].max()) - 1] if labels is None else "another one"
                raise LabelError(
                    "segments overlap, so they are no label map",
                    where=where,
                    got=f"{name} and {other} share voxels",
                    hint="read the masks one by one",
                )
            result[mask] = number if labels is None else labels.index(name)
        return result


def is_seg(path: Path) -> bool:
    """Whether a file is a DICOM SEG."""
    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "Modality"])
        return str(data.get("SOPClassUID")) in _SEG
    except Exception:
        return False


def segment_names(path: Path) -> tuple[str, ...]:
    """The labels of a SEG's segments; nothing else is read.

    Raises:
        DataError: when the file cannot be read.
    """
    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SegmentSequence", "SpecificCharacterSet"])
        return tuple(str(s.SegmentLabel) for s in data.SegmentSequence if int(s.SegmentNumber))
    except Exception as error:
        raise DataError(f"not a readable DICOM segmentation ({type(error).__name__})", where=path) from error


def read_seg(path: str | Path, slices: Sequence[Slice]) -> SegMasks:
    """Read a binary segmentation as masks on the grid of its series.

    Args:
        path: the SEG file.
        slices: one faultless stack, as :func:`.series.read_dicom` returns it.

    Raises:
        DataError: when the file is no binary segmentation or cannot be read.
        GeometryError: when its frames do not lie on the series' voxels, or the slices are no regular stack.
        ConfigError: when highdicom is missing.
    """
    hd, path = load_highdicom(), Path(path)
    grid = series_grid(slices, path)
    if not is_seg(path):
        raise DataError("not a DICOM segmentation", where=path, expected="a SEG object")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's about other people's headers
            volume, names = _volume(hd, path, slices[0], grid)
            return SegMasks(_placed(hd, volume, slices, grid, path), names, grid)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"the DICOM segmentation cannot be read ({type(error).__name__}: {str(error)[:160]})",
            where=path,
            hint="is the file whole, and are its frames at one distance?",
        ) from error


def _volume(hd: Any, path: Path, one: Slice, grid: Grid) -> tuple[Any, tuple[str, ...]]:
    """The volume (slices, rows, columns, segments) and the segments' names."""
    seg = hd.seg.segread(path)
    if str(seg.SegmentationType) == "FRACTIONAL":
        raise DataError("a fractional segmentation is no label", where=path, expected="a BINARY one")
    numbers = [int(n) for n in seg.segment_numbers if n]
    stored = int(seg.get("NumberOfFrames") or 1) * int(seg.Rows) * int(seg.Columns)
    if max(stored, len(numbers) * int(np.prod(grid.shape))) > _MOST_VOXELS:
        raise DataError("the segmentation has an impossible size", where=path, got=f"{stored} voxels stored")
    header = pydicom.dcmread(one.path, stop_before_pixels=True, specific_tags=["FrameOfReferenceUID"])
    own, theirs = (str(d.get("FrameOfReferenceUID") or "") for d in (seg, header))
    if own and theirs and own != theirs:
        raise GeometryError(
            "the segmentation belongs to another frame of reference",
            where=path,
            got=own,
            expected=f"{theirs}, that of {one.path.name}",
        )
    names = tuple(str(seg.get_segment_description(n).segment_label) for n in numbers)
    return seg.get_volume(segment_numbers=numbers, combine_segments=False), names


def _placed(hd: Any, volume: Any, slices: Sequence[Slice], grid: Grid, path: Path) -> NDArray[np.bool_]:
    """``[S, X, Y, Z]``: flipped, turned, cropped or padded, but never resampled."""
    affine = slice_affine(slices[0])
    if len(slices) > 1:
        affine[:3, 2] = np.subtract(slices[-1].position, slices[0].position) / (len(slices) - 1)
    geometry = hd.VolumeGeometry(affine[:, [2, 1, 0, 3]], grid.shape[::-1], "PATIENT")
    try:
        matched = volume.match_geometry(geometry, tol=0.05 * min(grid.spacing))
    except (ValueError, RuntimeError) as error:
        raise GeometryError(
            f"the segmentation does not lie on the series' voxels ({str(error)[:160]})", where=path, expected=grid
        ) from error
    masks = np.asarray(matched.array) > 0
    if int(masks.sum()) != int((volume.array > 0).sum()):
        raise GeometryError("the segmentation reaches beyond the series", where=path, expected=grid)
    return np.ascontiguousarray(masks.transpose(3, 2, 1, 0))
