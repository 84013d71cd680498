"""Reading volumes with guards that name the file, and writing label maps that are complete or absent."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError
from ..geometry import Grid

__all__ = ["write_label_map"]

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_label_map(array: NDArray[Any], grid: Grid, path: str | Path, dtype: str = "uint8") -> Path:
    """Write an integer label map; the file appears under its name only when it is complete.

    Args:
        array: ``[X, Y, Z]`` (``[X, Y]`` for pictures) integer values.
        grid: where it lies; its shape must be the array's.
        path: ``.nii.gz``, ``.nii``, ``.nrrd``, ``.mha`` or, for two axes, ``.png``.
        dtype: integer type of the file.

    Raises:
        DataError: when shape, values or suffix do not fit, or the disk refuses the file.
    """
    path = Path(path)
    values = _integers(array, dtype, path)
    if tuple(values.shape) != grid.shape:
        raise DataError(
            "the label map does not have its grid's shape", where=path, got=values.shape, expected=grid.shape
        )
    with _replacing(path) as temporary:
        name = path.name.lower()
        if name.endswith((".nii", ".nii.gz")):
            _write_nifti(values, grid, temporary)
        elif name.endswith((".nrrd", ".mha")):
            _write_itk(values, grid, temporary)
        elif name.endswith(".png") and values.ndim == 2:
            Image.fromarray(values.T).save(temporary)
        else:
            raise DataError(
                "cannot write this kind of label map",
                where=path,
                expected=".nii.gz, .nii, .nrrd, .mha; .png for two dimensions",
            )
    return path


def _integers(array: NDArray[Any], dtype: str, path: Path) -> NDArray[Any]:
    given, kind = np.asarray(array), np.dtype(dtype)
    if not np.issubdtype(kind, np.integer):
        raise DataError("label maps have an integer type", where=path, got=dtype, expected="uint8, int16, ...")
    values = given.astype(kind)
    if given.dtype != kind and not np.array_equal(values, given):
        raise DataError(
            "the label map's values do not fit its type",
            where=path,
            got=f"{given.dtype} from {np.nanmin(given)} to {np.nanmax(given)}",
            expected=f"integers that fit {dtype}",
        )
    return values


def _write_nifti(values: NDArray[Any], grid: Grid, path: Path) -> None:
    image = nib.Nifti1Image(values, grid.affine, dtype=values.dtype)
    image.set_sform(grid.affine, 1)
    image.set_qform(grid.affine, 1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _write_itk(values: NDArray[Any], grid: Grid, path: Path) -> None:
    n = values.ndim
    affine = _RAS_TO_LPS @ grid.affine
    image = itk.image_from_array(np.ascontiguousarray(values.T))
    spacing = np.linalg.norm(affine[:n, :n], axis=0)
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([float(o) for o in affine[:n, 3]])
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(affine[:n, :n] / spacing)))
    itk.imwrite(image, str(path), compression=True)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder that replaces ``path`` when the block ends well."""
    suffix = next((s for s in (".nii.gz",) if path.name.lower().endswith(s)), path.suffix)
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"cannot write the file: {error.strerror or error}",
            where=path,
            hint="check free space and permissions, or choose another output_dir",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
