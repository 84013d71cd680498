"""The first transform of every chain: files and DICOM folders to volumes, with guards that name case and file."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import ImageReader
from monai.transforms import LoadImaged

from ...errors import AmalgamationError
from ...geometry import PLAUSIBLE_SPACING_MM
from ..datasets.dataset_json import case_name
from ..dicom.contents import modality_tag
from ..dicom.grid import series_grid
from ..dicom.pixels import read_stack
from ..dicom.series import read_series
from ..dicom.slices import is_dicom, scan_files
from ..io import read_volume
from ..pictures import read_picture
from ..volumes.nifti import read_nifti
from ..volumes.simple_itk import read_itk

__all__ = ["BETWEEN_TAGS", "TAGS", "LoadCased"]

TAGS = "dicom_tags"  # of an image's meta: DICOM's Modality of each file, empty of others
BETWEEN_TAGS = " | "

# one of each file whose code decides which voxels are read and where they lie
_READERS = (read_volume, read_nifti, read_itk, read_picture, read_series, scan_files, series_grid, read_stack)


class LoadCased(LoadImaged):
    """MONAI's ``LoadImaged`` (channel first, float32) on :func:`~common.data.io.read_volume`.

    Args:
        keys: entries that hold a path, a list of paths (one per channel) or the folder of a DICOM series.
        channels: channel names that ``image_key`` must have; one channel per file when None.
        image_key: the entry that ``channels`` is about; the others have one channel.
        dim: spatial dimensions, 2 or 3.
        finite: refuse NaN and infinite voxels.
        plausible_mm: accepted spacing in mm; None accepts any.
        allow_shear: accept axes that are not at right angles (``Spacingd`` then resamples to a rectangular grid).
        image_only: as for ``LoadImaged``; MONAI Label sets it to False.
        tags: put DICOM's Modality of each file into the ``meta`` (:data:`TAGS`), for who compares it.
        allow_missing_keys: skip absent entries.

    Raises:
        DataError: as :func:`~common.data.io.read_volume`, with the case.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        channels: Sequence[str] | None = None,
        image_key: str = "image",
        dim: int = 3,
        finite: bool = True,
        plausible_mm: tuple[float, float] | None = PLAUSIBLE_SPACING_MM,
        allow_shear: bool = False,
        image_only: bool = True,
        allow_missing_keys: bool = False,
        tags: bool = False,
    ) -> None:
        with warnings.catch_warnings():  # MONAI makes every reader it knows, and one misses a GPU
            warnings.filterwarnings("ignore", "NvImgCodecPydicomReader")
            super().__init__(
                keys,
                image_only=image_only,
                ensure_channel_first=True,
                dtype=np.float32,
                allow_missing_keys=allow_missing_keys,
            )
        self.tags = tags
        self.channels, self.image_key = None if channels is None else tuple(channels), image_key
        self.options: dict[str, Any] = {
            "dim": dim,
            "finite": finite,
            "plausible_mm": plausible_mm,
            "allow_shear": allow_shear,
        }

    def chain_identity(self) -> dict[str, Any]:
        """What decides the result, our readers included; those that MONAI found on this machine do not."""
        settings = {"keys": self.keys, "channels": self.channels, "image_key": self.image_key, **self.options}
        return {**settings, "readers": _READERS}

    def __call__(self, data: Mapping[Hashable, Any], reader: ImageReader | None = None) -> dict[Hashable, Any]:
        """Return a copy with MetaTensors ``[C, X, Y, Z]``."""
        result = dict(data)
        for key, postfix in self.key_iterator(result, self.meta_key_postfix):
            channels = self.channels if key == self.image_key else None
            files = result[key]
            try:
                result[key] = read_volume(files, channels=channels, **self.options)
            except AmalgamationError as error:
                raise type(error)(
                    error.problem,
                    where=f"case {case_name(data)}, {error.where}",
                    got=error.got,
                    expected=error.expected,
                    hint=error.hint,
                ) from error
            if self.tags:
                result[key].meta[TAGS] = BETWEEN_TAGS.join(_tags(files))
            if not getattr(self._loader, "image_only", True):
                result[f"{key}_{postfix}"] = result[key].meta
        return result


def _tags(files: Any) -> list[str]:
    """DICOM's Modality of each file or series; empty of what is no DICOM."""
    paths = [files] if isinstance(files, str | Path) else list(files)
    return [modality_tag(Path(p)) if is_dicom(Path(p)) else "" for p in paths]
