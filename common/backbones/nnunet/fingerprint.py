"""What nnU-Net must know about a dataset before it plans, read with our own readers."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.transforms import Orientation
from numpy.typing import NDArray

from ...data.datasets.dataset import Dataset
from ...data.datasets.dataset_json import Case
from ...data.io import read_volume
from ...errors import DataError

__all__ = ["Analysed", "analyse", "fingerprint", "samples_per_case", "spread", "to_nnunet", "told"]

logger = logging.getLogger(__name__)

_VOXELS = 100_000_000
_VOXELS_PER_CASE = 500_000
_FLAT_SPACING = 999.0
# What nnU-Net writes as the slice spacing of a 2-D picture.


class _Reader:
    """What nnU-Net's fingerprint needs of a reader, for every file that we can read."""

    def __init__(
        self,
        *,
        dim: int,
        channels: Sequence[str],
        orientation: str | None,
        foreground: Callable[[Case], Any] | None,
        case: Case,
    ) -> None:
        self.dim, self.channels, self.orientation = dim, channels, orientation
        self.foreground, self.case = foreground, case

    def read_images(self, files: Sequence[Path]) -> tuple[NDArray[np.float32], dict[str, Any]]:
        return self._read(files, self.channels)

    def read_seg(self, file: Path | None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        if file is not None:
            return self._read([file], None)
        if self.foreground is not None:
            return self._turned(self.foreground(self.case).float())  # nnU-Net writes -1 into it
        image, properties = self._read(self.case.images, self.channels)
        return np.zeros_like(image[:1]), properties

    def _read(
        self, files: Sequence[Path], channels: Sequence[str] | None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        return self._turned(read_volume(files, dim=self.dim, channels=channels))

    def _turned(self, volume: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
        if self.orientation is not None and self.dim == 3:
            volume = Orientation(axcodes=self.orientation, labels=None)(volume)
        array, spacing = to_nnunet(volume.numpy(), [float(s) for s in volume.pixdim[: self.dim]])
        return array, {"spacing": spacing}


def to_nnunet(array: NDArray[Any], spacing: Sequence[float]) -> tuple[NDArray[Any], list[float]]:
    """``[C, X, Y, Z]`` to nnU-Net's ``[C, Z, Y, X]``; pictures ``[C, X, Y]`` get one slice of 999 mm."""
    if array.ndim == 3:
        return array.transpose(0, 2, 1)[:, None], [_FLAT_SPACING, spacing[1], spacing[0]]
    return array.transpose(0, 3, 2, 1), [spacing[2], spacing[1], spacing[0]]


class Analysed(NamedTuple):
    """What nnU-Net's planner asks of one scan.

    Args:
        shape: of the non-zero part, in nnU-Net's axis order.
        spacing: in mm, in nnU-Net's axis order.
        intensities: of each channel, drawn from the voxels of structures; empty where none are known.
        share: of the scan that is its non-zero part.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    intensities: tuple[NDArray[Any], ...]
    share: float


def analyse(
    dataset: Dataset,
    cases: Sequence[Case],
    orientation: str | None,
    samples: int,
    foreground: Callable[[Case], Any] | None = None,
) -> list[Analysed]:
    """Look at scans one after the other, by nnU-Net's own code.

    Args:
        dataset: whose channels the scans have.
        cases: its cases.
        orientation: axis codes that volumes are turned to; None keeps them.
        samples: foreground voxels that are drawn from each scan, with replacement.
        foreground: for a case without label, a label map ``[1, X, Y, Z]`` (MetaTensor) of which values above 0 count as
            structures; without it, such a case tells nothing of intensities.
    """
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    options: dict[str, Any] = {"dim": dataset.dim, "channels": dataset.channels, "orientation": orientation}
    found = []
    for case in cases:
        reader = functools.partial(_Reader, **options, foreground=foreground, case=case)
        shape, spacing, drawn, _, share = DatasetFingerprintExtractor.analyze_case(
            case.images, case.label, reader, samples
        )
        intensities = tuple(np.asarray(values, dtype=np.float32) for values in drawn)
        sizes = tuple(int(n) for n in shape), tuple(float(s) for s in spacing)
        found.append(Analysed(*sizes, intensities, float(share)))
    return found


def samples_per_case(cases: int) -> int:
    """Foreground voxels of each scan: nnU-Net draws 1e8 in total, we at most half a million of one."""
    return min(_VOXELS // max(1, cases), _VOXELS_PER_CASE)


def fingerprint(dataset: Dataset, orientation: str | None) -> dict[str, Any]:
    """The content of ``dataset_fingerprint.json``: spacings, cropped shapes and foreground intensities.

    Args:
        dataset: its training cases are read one after the other.
        orientation: axis codes that volumes are turned to; None keeps them.

    Raises:
        DataError: when a case has no label, or no case has a labelled voxel.
    """
    cases = dataset.cases("training")
    logger.info("reading the fingerprint of %d training cases of %s", len(cases), dataset.name)
    for case in cases:
        if case.label is None:
            raise DataError("a training case has no label", where=f"case {case.id}")
    found = analyse(dataset, cases, orientation, samples_per_case(len(cases)))
    channels = range(len(dataset.channels))
    return told(found, {c: spread([f.intensities[c] for f in found]) for c in channels})


def told(found: Sequence[Analysed], intensities: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    """The content of ``dataset_fingerprint.json``.

    Args:
        found: scans.
        intensities: by channel, of :func:`spread`.
    """
    return {
        "spacings": [list(f.spacing) for f in found],
        "shapes_after_crop": [list(f.shape) for f in found],
        "foreground_intensity_properties_per_channel": {str(c): dict(v) for c, v in intensities.items()},
        "median_relative_size_after_cropping": float(np.median([f.share for f in found])),
    }


def spread(drawn: Sequence[NDArray[Any]]) -> dict[str, float]:
    """nnU-Net's statistics of a channel's foreground.

    Args:
        drawn: values of each scan.

    Raises:
        DataError: when there are none.
    """
    values = np.concatenate(drawn) if len(drawn) else np.empty(0)
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
