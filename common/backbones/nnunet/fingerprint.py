"""What nnU-Net must know about a dataset before it plans, read with our own readers."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Orientation
from numpy.typing import NDArray

from ...data.datasets.dataset import Dataset
from ...data.io import read_volume
from ...errors import DataError

__all__ = ["fingerprint", "to_nnunet"]

logger = logging.getLogger(__name__)

_VOXELS = 100_000_000
_VOXELS_PER_CASE = 500_000
_FLAT_SPACING = 999.0
# What nnU-Net writes as the slice spacing of a 2-D picture.


class _Reader:
    """What nnU-Net's fingerprint needs of a reader, for every file that we can read."""

    def __init__(self, *, dim: int, channels: Sequence[str], orientation: str | None) -> None:
        self.dim, self.channels, self.orientation = dim, channels, orientation

    def read_images(self, files: Sequence[Path]) -> tuple[NDArray[np.float32], dict[str, Any]]:
        return self._read(files, self.channels)

    def read_seg(self, file: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
        return self._read([file], None)

    def _read(
        self, files: Sequence[Path], channels: Sequence[str] | None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        volume: Any = read_volume(files, dim=self.dim, channels=channels)
        if self.orientation is not None and self.dim == 3:
            volume = Orientation(axcodes=self.orientation, labels=None)(volume)
        array, spacing = to_nnunet(volume.numpy(), [float(s) for s in volume.pixdim[: self.dim]])
        return array, {"spacing": spacing}


def to_nnunet(array: NDArray[Any], spacing: Sequence[float]) -> tuple[NDArray[Any], list[float]]:
    """``[C, X, Y, Z]`` to nnU-Net's ``[C, Z, Y, X]``; pictures ``[C, X, Y]`` get one slice of 999 mm."""
    if array.ndim == 3:
        return array.transpose(0, 2, 1)[:, None], [_FLAT_SPACING, spacing[1], spacing[0]]
    return array.transpose(0, 3, 2, 1), [spacing[2], spacing[1], spacing[0]]


def fingerprint(dataset: Dataset, orientation: str | None) -> dict[str, Any]:
    """The content of ``dataset_fingerprint.json``: spacings, cropped shapes and foreground intensities.

    nnU-Net draws 1e8 foreground voxels in total, with replacement; we draw at most half a million per case.

    Args:
        dataset: its training cases are read one after the other.
        orientation: axis codes that volumes are turned to; None keeps them.

    Raises:
        DataError: when a case has no label, or no case has a labelled voxel.
    """
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    reader = functools.partial(_Reader, dim=dataset.dim, channels=dataset.channels, orientation=orientation)
    cases = dataset.cases("training")
    samples = min(_VOXELS // len(cases), _VOXELS_PER_CASE)
    found = []
    logger.info("reading the fingerprint of %d training cases of %s", len(cases), dataset.name)
    for case in cases:
        if case.label is None:
            raise DataError("a training case has no label", where=f"case {case.id}")
        found.append(DatasetFingerprintExtractor.analyze_case(case.images, case.label, reader, samples))
    intensities = [np.concatenate([f[2][c] for f in found]) for c in range(len(dataset.channels))]
    return {
        "spacings": [[float(s) for s in f[1]] for f in found],
        "shapes_after_crop": [[int(n) for n in f[0]] for f in found],
        "foreground_intensity_properties_per_channel": {str(c): _spread(v) for c, v in enumerate(intensities)},
        "median_relative_size_after_cropping": float(np.median([f[4] for f in found])),
    }


def _spread(values: NDArray[Any]) -> dict[str, float]:
    if not len(values):
        raise DataError("no training case has a labelled voxel", hint="python -m tools data check")
    low, median, high = np.percentile(values, (0.5, 50.0, 99.5))
    return {
        "mean": float(np.mean(values)),
        "median": float(median),
        "std": float(np.std(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
        "percentile_99_5": float(high),
        "percentile_00_5": float(low),
    }
