"""DICOM series folders: one complete, evenly spaced series, or a refusal that says why."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import itk
import numpy as np
import pydicom
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, RLELossless, SecondaryCaptureImageStorage

from ..errors import DataError, GeometryError
from ..geometry import Grid

__all__ = ["Slice", "is_dicom", "list_series", "read_series"]

_DEFLATED = "1.2.840.10008.1.2.1.99"
_NO_IMAGE = ("SEG", "SR", "RTSTRUCT", "PR", "KO", "RTPLAN", "RTDOSE", "REG")
_TAGS = [
    "SeriesInstanceUID", "SeriesDescription", "Modality", "PatientID", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "SliceThickness", "BitsAllocated", "SpecificCharacterSet",
]  # fmt: skip
_PIXEL_TAGS = [
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept", "PixelData",
]  # fmt: skip
_UNEVEN = 0.05
_MOST_PIXELS = 2**26
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_CONVERT = "convert the series to NIfTI with dcm2niix and check the result"


@dataclass(frozen=True)
class Slice:
    """What one DICOM file says about itself; positions in mm in DICOM's LPS world."""

    path: Path
    series: str
    description: str
    size: tuple[int, int]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float

    @property
    def height(self) -> float:
        """Position along the slice normal in mm."""
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return float(np.dot(normal, self.position))


def is_dicom(path: Path) -> bool:
    """True for a folder, a ``.dcm`` file or a file with DICOM's ``DICM`` mark."""
    if path.is_dir() or path.suffix.lower() == ".dcm":
        return True
    if path.suffix.lower() in (".gz", ".nii", ".png", ".nrrd", ".mha"):
        return False
    with path.open("rb") as handle:
        return handle.read(132)[128:] == b"DICM"


def list_series(folder: str | Path) -> dict[str, list[Slice]]:
    """Slices of every image series in a folder (not below it), by SeriesInstanceUID, in file order.

    Raises:
        DataError: for an unreadable ``.dcm`` file, or a file that is no plain single slice.
    """
    folder = Path(folder)
    files = [folder] if folder.is_file() else sorted(p for p in folder.iterdir() if p.is_file())
    found: dict[str, list[Slice]] = {}
    for path in files:
        one = _read_slice(path) if path.name.upper() != "DICOMDIR" and is_dicom(path) else None
        if one is not None:
            found.setdefault(one.series, []).append(one)
    return found


def read_series(folder: str | Path, series: str | None = None) -> MetaTensor:
    """Read one series as ``[1, X, Y, Z]`` with rescaled intensities (HU for CT), slices in spatial order.

    Args:
        folder: folder of single-slice files, or one such file.
        series: SeriesInstanceUID; may be None when the folder holds one series.

    Raises:
        DataError: when there is no or more than one series, or a file cannot be decoded.
        GeometryError: for missing, repeated, uneven, tilted or mixed slices.
    """
    folder = Path(folder)
    found = list_series(folder)
    slices = sorted(_choose(found, series, folder), key=lambda s: s.height)
    grid = _series_grid(slices, folder)
    pixels = _decode(slices, folder)
    if pixels.shape != grid.shape:
        raise GeometryError("the decoded size differs from the header's", where=folder, got=pixels.shape, expected=grid)
    meta = {
        "filename_or_obj": str(folder),
        "original_affine": grid.affine.copy(),
        "spatial_shape": np.asarray(grid.shape),
        "original_channel_dim": float("nan"),
        "space": "RAS",
    }
    return MetaTensor(torch.from_numpy(pixels)[None], affine=torch.from_numpy(grid.affine.copy()), meta=meta)


def _read_slice(path: Path) -> Slice | None:
    """The slice in a file, None for objects that are no images."""
    try:
        syntax = str(getattr(read_file_meta_info(path), "TransferSyntaxUID", ""))
        if syntax == _DEFLATED:
            raise DataError("deflated DICOM files are not read", where=path, hint="store it uncompressed with dcmconv")
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        if str(data.get("Modality", "")) in _NO_IMAGE or "Rows" not in data:
            return None
        return _described(path, data)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"not a readable DICOM file ({type(error).__name__}: {str(error)[:120]})",
            where=path,
            hint="copy or export the file again; it may have been cut off",
        ) from error


def _described(path: Path, data: pydicom.Dataset) -> Slice:
    if int(data.get("NumberOfFrames") or 1) > 1:
        raise DataError("multi-frame DICOM is not read", where=path, got=f"{data.NumberOfFrames} frames", hint=_CONVERT)
    if int(data.get("SamplesPerPixel") or 1) != 1:
        raise DataError("colour DICOM is not read", where=path, got=f"{data.SamplesPerPixel} samples per pixel")
    if not 0 < int(data.Rows) * int(data.Columns) <= _MOST_PIXELS:
        raise DataError("the slice has an impossible size", where=path, got=f"{data.Rows} x {data.Columns} pixels")
    absent = [t for t in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing") if not data.get(t)]
    if absent:
        raise GeometryError(f"the slice has no {' and no '.join(absent)}", where=path, hint=_CONVERT)
    return Slice(
        path=path,
        series=str(data.get("SeriesInstanceUID", "none")),
        description=str(data.get("SeriesDescription", "")),
        size=(int(data.Columns), int(data.Rows)),
        position=_floats(data.ImagePositionPatient, 3, path),
        orientation=_floats(data.ImageOrientationPatient, 6, path),
        spacing=_floats(data.PixelSpacing, 2, path),
        thickness=float(data.get("SliceThickness") or 1.0),
    )


def _floats(values: Sequence[float], count: int, path: Path) -> tuple[float, ...]:
    numbers = tuple(float(v) for v in values)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise GeometryError("the slice's position cannot be read", where=path, got=numbers, expected=f"{count} numbers")
    return numbers


def _choose(found: dict[str, list[Slice]], series: str | None, folder: Path) -> list[Slice]:
    listing = "; ".join(f"{uid} ({len(s)} slices, {s[0].description or 'no description'})" for uid, s in found.items())
    if not found:
        raise DataError("no DICOM image series here", where=folder)
    if series is not None and series not in found:
        raise DataError("the folder has no such series", where=folder, got=series, expected=listing)
    if series is None and len(found) > 1:
        raise DataError(
            f"the folder holds {len(found)} series",
            where=folder,
            got=listing,
            expected="one series",
            hint="give each series its own folder, or choose one by its SeriesInstanceUID",
        )
    return found[series] if series is not None else next(iter(found.values()))


def _series_grid(slices: list[Slice], folder: Path) -> Grid:
    """The grid of slices sorted by height; refuses whatever is no regular grid."""
    first, last = slices[0], slices[-1]
    for one in slices[1:]:
        same = one.size == first.size and np.allclose(one.orientation, first.orientation, atol=1e-3)
        if not same or not np.allclose(one.spacing, first.spacing, rtol=1e-3):
            raise GeometryError(
                "the series mixes slices of different size, orientation or spacing",
                where=one.path,
                got=f"{one.size}, {one.orientation}, {one.spacing} mm",
                expected=f"{first.size}, {first.orientation}, {first.spacing} mm",
                hint=_CONVERT,
            )
    _check_gaps(slices, folder)
    affine = np.eye(4)
    affine[:3, 0] = np.multiply(first.orientation[:3], first.spacing[1])
    affine[:3, 1] = np.multiply(first.orientation[3:], first.spacing[0])
    affine[:3, 3] = first.position
    if len(slices) == 1:
        affine[:3, 2] = np.cross(first.orientation[:3], first.orientation[3:]) * first.thickness
    else:
        affine[:3, 2] = np.subtract(last.position, first.position) / (len(slices) - 1)
    return Grid((*first.size, len(slices)), _LPS_TO_RAS @ affine).check(where=folder)


def _check_gaps(slices: list[Slice], folder: Path) -> None:
    steps = np.diff([s.height for s in slices])
    if not len(steps):
        return
    usual = float(np.median(steps))
    if float(steps.min()) < 1e-3 or usual < 1e-3:
        i = int(steps.argmin())
        raise GeometryError(
            "two slices have one position (several phases or a repeated export?)",
            where=folder,
            got=f"{slices[i].path.name} and {slices[i + 1].path.name}",
            hint="give each phase its own folder",
        )
    gaps = [i for i, step in enumerate(steps) if abs(step - usual) > _UNEVEN * usual]
    if gaps:
        named = [f"{steps[i]:.3g} mm between {slices[i].path.name} and {slices[i + 1].path.name}" for i in gaps[:5]]
        missing = sum(max(0, round(float(steps[i]) / usual) - 1) for i in gaps)
        raise GeometryError(
            f"slices are missing (about {missing})" if missing else "the slices are unevenly spaced",
            where=folder,
            got="; ".join(named),
            expected=f"{usual:.3g} mm everywhere ({len(slices)} slices found)",
            hint="export the complete series again",
        )


def _decode(slices: list[Slice], folder: Path) -> NDArray[np.float32]:
    """``[X, Y, Z]`` rescaled intensities."""
    planes = []
    for one in slices:
        try:
            planes.append(_plane(one.path))
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"the slice cannot be decoded ({type(error).__name__})",
                where=one.path,
                hint="export the slice again; it may have been cut off",
            ) from error
    if len({p.shape for p in planes}) > 1:
        raise GeometryError("the slices decode to different sizes", where=folder)
    return np.ascontiguousarray(np.stack(planes, axis=-1), dtype=np.float32)


def _plane(path: Path) -> NDArray[np.float32]:
    """``[X, Y]`` of one slice; JPEG kinds are decoded by ITK from a copy that holds the pixel elements only.

    A damaged header can make GDCM reserve gigabytes, so it never sees the file itself.
    """
    data = pydicom.dcmread(path, specific_tags=[*_TAGS, *_PIXEL_TAGS])
    syntax = data.file_meta.TransferSyntaxUID
    needed = int(data.Rows) * int(data.Columns) * int(data.BitsAllocated) // 8
    got = len(data.get("PixelData") or b"")
    if got == 0 or (not syntax.is_compressed and got < needed):
        raise DataError("the slice is truncated", where=path, got=f"{got} bytes of pixels", expected=f"{needed} bytes")
    if not syntax.is_compressed or syntax == RLELossless:
        stored = data.pixel_array.astype(np.float32)
    else:
        stored = _decoded_by_itk(data)
    slope, intercept = float(data.get("RescaleSlope") or 1.0), float(data.get("RescaleIntercept") or 0.0)
    return np.asarray(stored.T * slope + intercept, dtype=np.float32)


def _decoded_by_itk(data: pydicom.Dataset) -> NDArray[np.float32]:
    _refuse_broken_fragments(data.PixelData)
    copy = pydicom.Dataset()
    for tag in _PIXEL_TAGS:
        if tag in data and not tag.startswith("Rescale"):
            copy[tag] = data[tag]
    copy.file_meta = pydicom.dataset.FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    copy.file_meta.MediaStorageSOPClassUID = copy.SOPClassUID = SecondaryCaptureImageStorage
    copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID = UID("1.2.3")
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "slice.dcm"
        data_set = pydicom.dataset.FileDataset(str(clean), copy, file_meta=copy.file_meta, preamble=b"\0" * 128)
        data_set.is_little_endian, data_set.is_implicit_VR = True, False
        data_set.save_as(clean)
        plane = np.asarray(itk.array_from_image(itk.imread(str(clean), itk.F)), dtype=np.float32)
    return plane.reshape(plane.shape[-2:])


def _refuse_broken_fragments(pixels: bytes) -> None:
    """Refuse encapsulated pixel data whose items reach beyond its end."""
    position = 0
    while position + 8 <= len(pixels):
        tag, length = pixels[position : position + 4], int.from_bytes(pixels[position + 4 : position + 8], "little")
        if tag == b"\xfe\xff\xdd\xe0":
            return
        if tag != b"\xfe\xff\x00\xe0" or position + 8 + length > len(pixels):
            raise ValueError("damaged encapsulation")
        position += 8 + length
