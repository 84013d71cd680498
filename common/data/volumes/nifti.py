"""NIfTI: headers that contradict themselves or do not say where a voxel lies are refused, then MONAI reads."""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from monai.transforms import LoadImage

from ...command_words import place, shown
from ...errors import DataError, GeometryError
from ...geometry import PLAUSIBLE_SPACING_MM, Grid
from .contents import AGAIN, EXPORT, cut_off, refuse_other
from .detached import Stored, refuse_damaged

__all__ = ["check_nifti", "is_nifti", "open_nifti", "read_nifti"]

_SMALLEST = 348  # bytes of a header
_MAGNITUDE = (
    "n.save(n.Nifti1Image(np.abs(np.asanyarray(i.dataobj)).astype('f4'), i.affine), sys.argv[2])",
    "magnitude.nii.gz",
)
_GREY = (
    "n.save(n.Nifti1Image(np.mean([np.asarray(i.dataobj)[c] for c in 'RGB'], 0, 'f4'), i.affine), sys.argv[2])",
    "grey.nii.gz",
)
_TOLD = ("n.save(n.Nifti1Image(np.asanyarray(i.dataobj), i.affine), sys.argv[2])", "told.nii.gz")
_UNITS = {1: "metres", 3: "micrometres"}


def is_nifti(path: Path) -> bool:
    """Whether a file's name is that of a NIfTI volume."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def open_nifti(path: Path) -> Any:
    """Open a NIfTI file, naming it when that fails; of a compressed one the checksum is looked at, once."""
    refuse_other(path)
    if path.name.lower().endswith(".gz"):
        refuse_damaged(Stored((path,), 0, None, "gzip", _SMALLEST), path)
    try:
        return nib.load(path)
    except Exception as error:
        raise _unreadable(path, error) from error


def check_nifti(
    path: Path, *, plausible_mm: tuple[float, float] | None = PLAUSIBLE_SPACING_MM, allow_shear: bool = False
) -> None:
    """Refuse a header that says nothing, something impossible or two things about where the voxels lie.

    MONAI's reader silently replaces an sform that does not agree with the header's voxel size, nibabel a voxel size of
    0 and an orientation that is not there.

    Raises:
        DataError: for colour and complex voxels, and what cannot be opened.
        GeometryError: for everything about the place.
    """
    image = open_nifti(path)
    kind = image.get_data_dtype()
    if kind.names or kind.kind == "c":
        colour = bool(kind.names)
        raise DataError(
            f"{'colour' if colour else 'complex'} voxels are not read",
            where=path,
            got=f"{kind.names or kind} a voxel",
            expected="one number a voxel",
            hint=_command(*(_GREY if colour else _MAGNITUDE), path),
        )
    if len(image.shape) < 3:
        return
    _refuse_silent(image, path)
    grid = Grid.of(image).check(where=path, plausible_mm=plausible_mm, allow_shear=allow_shear)
    zooms = [abs(float(z)) for z in image.header.get_zooms()[:3]]
    if not np.allclose(grid.spacing, zooms, rtol=0.01):
        raise GeometryError(
            "the sform and the voxel size of the header disagree about the spacing",
            where=path,
            got=f"sform: {grid.spacing} mm, pixdim: {tuple(zooms)} mm",
            hint="find out which one is right and write it into both",
        )


def _refuse_silent(image: Any, path: Path) -> None:
    """What nibabel fills in: the voxel size, the orientation, the unit."""
    header = _as_stored(image, path)
    sizes = [float(s) for s in header["pixdim"][1:4]]
    if int(header["sform_code"]) == 0 and not (np.isfinite(sizes).all() and min(sizes) > 0):
        raise GeometryError(
            "the header has no voxel size, or one that cannot be",
            where=path,
            got=f"pixdim {tuple(sizes)}",
            expected="mm above 0",
            hint="find out the spacing and write it into the header; do not guess it",
        )
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        raise GeometryError(
            "the header does not say which side is left (no sform, no qform)",
            where=path,
            expected="sform_code or qform_code above 0",
            hint="compare it with the original scan; when its axes run to the left, to the front and up, write that "
            f"down: {_command(*_TOLD, path)}",
        )
    unit = int(header["xyzt_units"]) & 7
    if unit in _UNITS:
        raise GeometryError(
            "the voxel size is not in millimetres",
            where=path,
            got=_UNITS[unit],
            expected="mm (xyzt_units 2)",
            hint="write spacing and affine into the header in mm",
        )


def _as_stored(image: Any, path: Path) -> Any:
    """The header as it is in the file, without nibabel's corrections."""
    with nib.openers.ImageOpener(str(path)) as handle:
        return type(image.header).from_fileobj(handle, check=False)


def read_nifti(path: Path) -> MetaTensor:
    """``[C, X, Y, Z]`` float32 with the scaled intensities; the header is :func:`check_nifti`'s concern.

    Raises:
        DataError: when the voxels cannot be read.
    """
    try:
        image = cast(MetaTensor, _loader()(path))
    except Exception as error:
        raise _unreadable(path, error.__cause__ or error) from error
    while image.ndim > 4 and image.shape[-1] == 1:  # the fifth axis of vectors leaves an empty fourth one
        image = cast(MetaTensor, image[..., 0])
    return image


@cache
def _loader() -> LoadImage:
    return LoadImage(reader="NibabelReader", image_only=True, ensure_channel_first=True, dtype=np.float32)


def _command(work: str, result: str, path: Path) -> str:
    """A line to type: the file's name is an argument, never a part of the program."""
    code = f"import sys, nibabel as n, numpy as np; i = n.load(sys.argv[1]); {work}"
    return shown("python", "-c", code, str(path), result)


def _unreadable(path: Path, error: BaseException) -> DataError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = f"{type(error).__name__}: {' '.join(lines)[:160] or 'no message'}"
    size = path.stat().st_size
    early = isinstance(error, EOFError) or "Expected" in words or size < _SMALLEST
    if early and not path.name.lower().endswith(".gz"):
        return cut_off(path, f"{size} bytes; {words}", "a header and all voxels")
    if early or isinstance(error, zlib.error) or "CRC" in words:
        return DataError(f"the file is cut off or damaged ({words})", where=path, hint=AGAIN)
    if "invalid intercept" in words:
        edit = ["nifti_tool", "-mod_hdr", "-mod_field", "scl_inter", "0", "-infiles", place(path), "-prefix", "new.nii"]
        return DataError(
            "the header's scaling is impossible: scl_slope is a number and scl_inter is none",
            where=path,
            got="scl_inter NaN or infinite",
            expected="the offset that belongs to scl_slope, 0 when there is none",
            hint=f"ask whoever wrote it; when the offset is 0: {shown(*edit)}",
        )
    return DataError(f"not a readable NIfTI file ({words})", where=path, hint=EXPORT)
