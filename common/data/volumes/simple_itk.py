"""NRRD and MetaImage files read and written by SimpleITK, in our frame: ``[X, Y, Z]`` and RAS+ world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from ...errors import DataError, GeometryError
from ...geometry import Grid
from .contents import EXPORT, refuse_other
from .metaimage import check_metaimage
from .nrrd import check_nrrd

__all__ = ["is_itk", "read_itk", "write_itk"]

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_NRRD, _META = (".nrrd", ".nhdr"), (".mha", ".mhd")


def is_itk(path: Path) -> bool:
    """Whether a file's name is that of a NRRD or MetaImage volume."""
    return path.name.lower().endswith(_NRRD + _META)


def read_itk(path: Path) -> MetaTensor:
    """``[C, X, Y, Z]`` (``[C, X, Y]``) float32: several values a voxel, or a fourth axis, are channels.

    World positions are those of ``TransformIndexToPhysicalPoint``, turned from LPS to RAS.

    Raises:
        DataError: for what cannot be read, or would not be what the header says.
        GeometryError: where that concerns the place of the voxels.
    """
    refuse_other(path)
    nrrd = path.name.lower().endswith(_NRRD)
    (check_nrrd if nrrd else check_metaimage)(path)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    dim = image.GetDimension()
    array = SimpleITK.GetArrayViewFromImage(image)
    if np.iscomplexobj(array):
        raise DataError("complex voxels are not read", where=path, hint="save their magnitude as NIfTI")
    if image.GetNumberOfComponentsPerPixel() > 1:
        channels = np.moveaxis(array, -1, 0)
    elif dim > 3:
        channels, dim = array, 3
    else:
        channels = array[None]
    voxels = np.ascontiguousarray(channels.transpose(0, *range(dim, 0, -1)), dtype=np.float32)
    affine = _RAS_TO_LPS @ _affine(image, dim)
    meta = {
        "filename_or_obj": str(path),
        "original_affine": affine.copy(),
        "spatial_shape": np.asarray(voxels.shape[1:]),
        "original_channel_dim": float("nan"),
        "space": "RAS",
    }
    return MetaTensor(torch.from_numpy(voxels), affine=torch.from_numpy(affine), meta=meta)


def _affine(image: SimpleITK.Image, dim: int) -> NDArray[np.float64]:
    """``[4, 4]`` from (i, j, k) to SimpleITK's LPS world in mm; the direction may be more than a rotation."""
    size = image.GetDimension()
    turn = np.reshape(image.GetDirection(), (size, size))[:dim, :dim]
    affine = np.eye(4)
    affine[:dim, :dim] = turn * np.asarray(image.GetSpacing()[:dim])
    affine[:dim, 3] = image.GetOrigin()[:dim]
    return affine


def _unreadable(path: Path, error: Exception) -> DataError:
    text = str(error)
    if "direction" in text or "spacing" in text:
        return GeometryError(
            "the affine is singular: an axis has no length, or two axes are one",
            where=path,
            got=text.splitlines()[-1].strip() if "spacing" in text else "directions without a volume between them",
            hint="write valid directions into the header, or convert the original scan to NIfTI",
        )
    words = [line.strip() for line in text.splitlines() if line.strip()]
    return DataError(f"SimpleITK cannot read the file ({words[-1][:160]})", where=path, hint=EXPORT)


def write_itk(values: NDArray[Any], grid: Grid, path: Path) -> None:
    """Write ``[X, Y, Z]`` (``[X, Y]``) compressed; the ending of the name chooses the format."""
    n = values.ndim
    affine = _RAS_TO_LPS @ grid.affine
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values.T))
    spacing = np.linalg.norm(affine[:n, :n], axis=0)
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([float(o) for o in affine[:n, 3]])
    image.SetDirection((affine[:n, :n] / spacing).ravel().tolist())
    SimpleITK.WriteImage(image, str(path), useCompression=True)
