"""Scans and experts for the tests of ``amalgamate``."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from common.experts.spec import ExpertSpec
from common.labels import LabelSpace

__all__ = ["expert", "write_scans"]


def expert(name: str, *structures: str, channels: tuple[str, ...] = ("CT",), exclusive: bool = True) -> ExpertSpec:
    """A description of nothing that can be opened."""
    labels = LabelSpace(structures, exclusive=exclusive)
    return ExpertSpec(name=name, kind="nnunet", path="nowhere", labels=labels, channels=channels, role="external")


def write_scans(folder: Path, count: int = 5, *, endings: tuple[str, ...] = ("",), stem: str = "case") -> Path:
    """Small volumes ``<stem><number><ending>.nii.gz``."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        for ending in endings:
            voxels = np.random.default_rng(number).integers(-50, 100, (12, 10, 8)).astype(np.int16)
            nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2, 3, 1])), folder / f"{stem}{number}{ending}.nii.gz")
    return folder
