"""DICOM segmentations as the label maps of a dataset: written once as NIfTI on the grid of their series."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..dicom.seg_masks import SegMasks, is_seg, read_seg, segment_names
from ..dicom.series import read_dicom
from ..io import write_label_map
from .dataset_json import Case

__all__ = ["seg_cases"]

logger = logging.getLogger(__name__)


def seg_cases(
    cases: Sequence[Case], out: str | Path, structures: Mapping[str, int] | None
) -> tuple[list[Case], Mapping[str, int] | None]:
    """Cases whose label is a DICOM SEG get ``out/labels/<case>.nii.gz`` instead; other cases stay as they are.

    Args:
        cases: each image the folder of a DICOM series where the label is a SEG.
        out: the dataset's folder.
        structures: ``{segment name: value}``, segments of other names are left out; all segments, numbered in the order
            in which they appear, when None.

    Returns:
        the cases, and ``{name: value}`` where a SEG said the names.

    Raises:
        DataError: when a SEG cannot be read, does not lie on its series, or its segments overlap.
    """
    segs = {c.id: c.label for c in cases if c.label and c.label.suffix.lower() == ".dcm" and is_seg(c.label)}
    if not segs:
        return list(cases), structures
    names = dict.fromkeys(name for path in segs.values() for name in segment_names(path))
    values = dict(structures) if structures is not None else {n: i for i, n in enumerate(names, start=1)}
    result = []
    for case in cases:
        if case.id in segs:
            masks = _named(_masks(case), values, case)
            table = np.array([0, *(values[n] for n in masks.names)])
            label = table[masks.label_map(where=case.label)]
            path = Path(out) / "labels" / f"{case.id}.nii.gz"
            dtype = "uint8" if max(values.values()) < 256 else "uint16"
            case = replace(case, label=write_label_map(label, masks.grid, path, dtype))
        result.append(case)
    return result, values


def _masks(case: Case) -> SegMasks:
    if len(case.images) != 1 or not case.images[0].is_dir():
        raise DataError(
            "a DICOM SEG is the label of a DICOM series",
            where=case.label,
            got=", ".join(p.name for p in case.images),
            expected=f"a folder {case.id} with the series",
        )
    assert case.label is not None
    return read_seg(case.label, read_dicom(case.images[0]).slices)


def _named(masks: SegMasks, values: Mapping[str, int], case: Case) -> SegMasks:
    """The segments that have a value."""
    keep = [i for i, name in enumerate(masks.names) if name in values]
    left = [name for name in masks.names if name not in values]
    if left:
        logger.warning("%s: segments left out: %s", case.label, ", ".join(left))
    twice = [n for n in masks.names if masks.names.count(n) > 1]
    if twice:
        raise DataError("two segments have one name", where=case.label, got=twice[0])
    return SegMasks(masks.masks[keep], tuple(masks.names[i] for i in keep), masks.grid)
