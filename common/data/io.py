"""Reading volumes with guards that name the file, and writing label maps that are complete or absent."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image

from ..command_words import shown_place
from ..errors import DataError, GeometryError
from ..geometry import PLAUSIBLE_SPACING_MM, Grid
from ..paths import check_path
from .dicom.series import read_series
from .dicom.slices import is_dicom
from .pictures import PICTURES, is_picture, read_picture
from .volumes.contents import AGAIN, EXPORT, VOLUMES
from .volumes.nifti import check_nifti, is_nifti, read_nifti
from .volumes.simple_itk import is_itk, read_itk, write_itk

__all__ = ["check_file", "check_volume", "read_volume", "write_label_map", "write_volume"]


def read_volume(
    path: str | Path | Sequence[str | Path],
    *,
    dim: int = 3,
    channels: Sequence[str] | None = None,
    volume: int | None = None,
    series: str | None = None,
    finite: bool = True,
    plausible_mm: tuple[float, float] | None = PLAUSIBLE_SPACING_MM,
    allow_shear: bool = False,
) -> MetaTensor:
    """Read a scan and refuse, by file name, what cannot be read correctly.

    Args:
        path: a file, one file per channel, or the folder of a DICOM series.
        dim: expected spatial dimensions, 2 or 3.
        channels: expected channel names; one channel when None.
        volume: which volume of a 4-D file to take, counted from 0.
        series: SeriesInstanceUID to take from a folder with several.
        finite: refuse NaN and infinite voxels.
        plausible_mm: accepted range of the spacing in mm; None accepts any.
        allow_shear: accept axes that are not at right angles.

    Returns:
        ``[C, X, Y, Z]`` float32 with the native intensities and affine (RAS+ world, mm).

    Raises:
        DataError: for unreadable, truncated or empty files, a wrong number of dimensions or channels, NaN voxels.
        GeometryError: for an impossible grid, or channels on different grids.
    """
    paths = [Path(path)] if isinstance(path, (str, Path)) else [Path(p) for p in path]
    parts: list[MetaTensor] = []
    for p in paths:
        check_file(p, plausible_mm=plausible_mm if dim == 3 else None, allow_shear=allow_shear)
        wanted = channels if len(paths) == 1 else None
        part = read_series(p, series) if is_dicom(p) else _load(p, 1 if wanted is None else len(wanted))
        part = _one_volume(part, volume, p)
        check_volume(part, p, dim=dim, channels=wanted, finite=finite)
        if dim == 3:
            Grid.of(part).check(where=p, plausible_mm=plausible_mm, allow_shear=allow_shear)
        difference = Grid.of(parts[0]).difference(Grid.of(part)) if parts else None
        if difference:
            raise GeometryError(f"the channels do not lie on one grid: {difference}", where=p, expected=paths[0])
        parts.append(part)
    image = MetaTensor(torch.cat([p.as_tensor() for p in parts])).copy_meta_from(parts[0])
    if channels is not None and len(image) != len(channels):
        raise _channel_error(len(image), channels, paths[0])
    return cast(MetaTensor, image)


def check_file(
    path: Path, *, plausible_mm: tuple[float, float] | None = PLAUSIBLE_SPACING_MM, allow_shear: bool = False
) -> None:
    """Refuse a missing or empty file, one of no kind that is read, and an impossible NIfTI header.

    Raises:
        DataError: when the file cannot be a volume.
    """
    if not check_path(path, what="file").exists():
        raise DataError("the file does not exist", where=path, hint="correct the path in dataset.json")
    if path.is_dir():
        return
    if path.stat().st_size == 0:
        raise DataError("the file is empty", where=path, got="0 bytes", hint=AGAIN)
    if is_nifti(path):
        check_nifti(path, plausible_mm=plausible_mm, allow_shear=allow_shear)


def check_volume(
    image: MetaTensor, where: object, *, dim: int = 3, channels: Sequence[str] | None = None, finite: bool = True
) -> None:
    """Refuse a channel-first volume of the wrong dimension or channel count, or with NaN or infinite voxels.

    Raises:
        DataError: naming ``where``.
    """
    shape = tuple(image.shape[1:])
    if len(shape) != dim:
        raise _dimension_error(shape, dim, where)
    expected = ("image",) if channels is None else channels
    if len(image) != len(expected):
        if len(expected) == 1 and len(image) > 1 and dim == 3:
            raise _dimension_error((*shape, len(image)), dim, where)
        raise _channel_error(len(image), expected, where)
    if finite and not bool(torch.isfinite(image.as_tensor()).all()):
        bad = int((~torch.isfinite(image.as_tensor())).sum())
        raise DataError(
            "the volume holds NaN or infinite voxels",
            where=where,
            got=f"{bad} of {image.numel()} voxels",
            expected="finite intensities",
            hint="replace them in the file by the background's intensity",
        )


def _load(path: Path, channels: int) -> MetaTensor:
    if is_picture(path):
        return read_picture(path, channels)
    if is_nifti(path):
        return read_nifti(path)
    if is_itk(path):
        return read_itk(path)
    raise DataError(
        "not a kind of file that is read",
        where=path,
        got=path.suffix or "a name without an ending",
        expected=f"{', '.join((*VOLUMES, *PICTURES))}, or DICOM",
        hint=EXPORT,
    )


def _one_volume(image: MetaTensor, volume: int | None, path: Path) -> MetaTensor:
    if volume is None:
        return image
    if not 0 <= volume < len(image):
        raise DataError("no such volume", where=path, got=volume, expected=f"0 to {len(image) - 1}")
    return cast(MetaTensor, image[volume : volume + 1])


def _dimension_error(shape: tuple[int, ...], dim: int, where: object) -> DataError:
    several = len(shape) > dim
    return DataError(
        f"expected a {dim}-D volume, got {len(shape)}-D",
        where=where,
        got=f"shape {shape}",
        expected=f"{dim} spatial axes",
        hint=(
            f"choose volume k of {shape[-1]} with: python -m tools data extract {shown_place(str(where))} k OUT.nii.gz"
            "; where they are the channels of one scan, and no moments, do so for each, to OUT_0000.nii.gz, "
            "OUT_0001.nii.gz, ... in the model's order, and give the folder"
            if several
            else f'set "dim": {len(shape)} in dataset.json, or stack the slices to volumes'
        ),
    )


def _channel_error(count: int, channels: Sequence[str], where: object) -> DataError:
    missing = ", ".join(channels[count:])
    return DataError(
        f"missing channel {missing}" if missing else "too many channels",
        where=where,
        got=f"{count} channels",
        expected=", ".join(channels),
        hint="the channels of a case must be those of its dataset, in the same order",
    )


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
            write_itk(values, grid, temporary)
        elif name.endswith(".png") and values.ndim == 2:
            Image.fromarray(values.T).save(temporary)
        else:
            raise DataError(
                "cannot write this kind of label map",
                where=path,
                expected=".nii.gz, .nii, .nrrd, .mha; .png for two dimensions",
            )
    return path


def write_volume(image: MetaTensor, path: str | Path) -> Path:
    """Write a one-channel volume ``[1, X, Y, Z]`` as float32 NIfTI, complete or not at all.

    Raises:
        DataError: when it has several channels or the name is not ``.nii`` or ``.nii.gz``.
    """
    path = Path(path)
    if len(image) != 1 or not path.name.lower().endswith((".nii", ".nii.gz")):
        raise DataError("one channel goes to a .nii or .nii.gz file", where=path, got=f"{len(image)} channels")
    with _replacing(path) as temporary:
        _write_nifti(image.numpy()[0].astype(np.float32), Grid.of(image), temporary)
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
