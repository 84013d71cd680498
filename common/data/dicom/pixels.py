"""The pixels of DICOM slices, rescaled; damaged ones are refused by name and never fill the memory."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray
from pydicom.uid import UID, RLELossless, SecondaryCaptureImageStorage

from ...errors import DataError, GeometryError
from .slices import Slice, predict_takes

__all__ = ["decodable", "read_planes", "read_stack"]

_PIXEL_TAGS = [
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept", "PixelData",
]  # fmt: skip
_AGAIN = f"export the slice again, it may have been cut off; to leave it out, {predict_takes('--skip_broken True')}"


def read_stack(slices: Sequence[Slice], folder: Path) -> NDArray[np.float32]:
    """``[X, Y, Z]`` rescaled intensities (HU for CT) of slices of one size, in their order.

    Raises:
        DataError: for a slice that cannot be decoded, by its name.
        GeometryError: when a slice decodes to another size than its header's.
    """
    planes = read_planes(slices)
    odd = [s for s, p in zip(slices, planes, strict=True) if p.shape != s.size]
    if odd or len({p.shape for p in planes}) > 1:
        raise GeometryError("the slices decode to different sizes", where=odd[0].path if odd else folder)
    return np.ascontiguousarray(np.stack(planes, axis=-1), dtype=np.float32)


def read_planes(slices: Sequence[Slice]) -> list[NDArray[np.float32]]:
    """``[X, Y]`` of every slice; a multi-frame file is decoded once."""
    planes: list[NDArray[np.float32]] = []
    last: tuple[Path, NDArray[np.float32]] | None = None
    for one in slices:
        try:
            if one.frame is None:
                planes.append(_plane(one.path))
                continue
            if last is None or last[0] != one.path:
                last = (one.path, _stored_frames(one.path))
            slope, intercept = one.rescale or (1.0, 0.0)
            planes.append(np.asarray(last[1][one.frame].T * slope + intercept, dtype=np.float32))
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"the slice cannot be decoded ({type(error).__name__})", where=one.path, hint=_AGAIN
            ) from error
    return planes


def decodable(one: Slice) -> bool:
    """Whether a slice's pixels are complete."""
    try:
        return read_planes([one])[0].shape == one.size
    except DataError:
        return False


def _stored_frames(path: Path) -> NDArray[np.float32]:
    """``[frames, Y, X]`` stored values of a multi-frame file."""
    data = pydicom.dcmread(path, specific_tags=[*_PIXEL_TAGS, "NumberOfFrames"])
    syntax = data.file_meta.TransferSyntaxUID
    if syntax.is_compressed and syntax != RLELossless:
        raise DataError(
            "compressed multi-frame DICOM is not read",
            where=path,
            got=syntax.name,
            hint="store it uncompressed: gdcmconv --raw FILE NEW_FILE (or dcmdjpeg, dcmdjpls)",
        )
    frames = int(data.get("NumberOfFrames") or 1)
    _refuse_short(data, path, frames)
    stored = np.asarray(data.pixel_array, dtype=np.float32)
    return stored.reshape(frames, int(data.Rows), int(data.Columns))


def _refuse_short(data: pydicom.Dataset, path: Path, frames: int = 1) -> None:
    needed = frames * int(data.Rows) * int(data.Columns) * int(data.BitsAllocated) // 8
    got = len(data.get("PixelData") or b"")
    if got == 0 or (not data.file_meta.TransferSyntaxUID.is_compressed and got < needed):
        raise DataError(
            "the slice is truncated", where=path, got=f"{got} bytes of pixels", expected=f"{needed} bytes", hint=_AGAIN
        )


def _plane(path: Path) -> NDArray[np.float32]:
    """``[X, Y]`` of one slice; JPEG kinds are decoded by SimpleITK from a copy that holds the pixel elements only.

    A damaged header can make GDCM reserve gigabytes, so it never sees the file itself.
    """
    data = pydicom.dcmread(path, specific_tags=list(_PIXEL_TAGS))
    syntax = data.file_meta.TransferSyntaxUID
    _refuse_short(data, path)
    if not syntax.is_compressed or syntax == RLELossless:
        stored = data.pixel_array.astype(np.float32)
    else:
        stored = _decoded(data)
    slope, intercept = float(data.get("RescaleSlope") or 1.0), float(data.get("RescaleIntercept") or 0.0)
    return np.asarray(stored.T * slope + intercept, dtype=np.float32)


def _decoded(data: pydicom.Dataset) -> NDArray[np.float32]:
    _refuse_broken_fragments(data.PixelData)
    copy = pydicom.Dataset()
    for tag in _PIXEL_TAGS:
        if tag in data and not tag.startswith("Rescale"):
            copy[tag] = data[tag]
    copy.PhotometricInterpretation = "MONOCHROME2"  # else GDCM inverts what other transfer syntaxes leave as it is
    copy.file_meta = pydicom.dataset.FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    copy.file_meta.MediaStorageSOPClassUID = copy.SOPClassUID = SecondaryCaptureImageStorage
    copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID = UID("1.2.3")
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "slice.dcm"
        data_set = pydicom.dataset.FileDataset(str(clean), copy, file_meta=copy.file_meta, preamble=b"\0" * 128)
        data_set.is_little_endian, data_set.is_implicit_VR = True, False
        data_set.save_as(clean)
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(clean))
        reader.SetImageIO("GDCMImageIO")
        reader.SetOutputPixelType(SimpleITK.sitkFloat32)
        plane = SimpleITK.GetArrayFromImage(reader.Execute())
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
