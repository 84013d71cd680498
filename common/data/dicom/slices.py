"""What DICOM files hold: slices with their place in the patient, or a refusal that names the file; and their pixels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from pydicom.filereader import read_file_meta_info

from ...command_words import shown_place
from ...errors import DataError, GeometryError
from ...paths import special
from .objects import no_scan, picture, told_tag

__all__ = [
    "CONVERT",
    "Refused",
    "Slice",
    "dicom_files",
    "headers",
    "holds_dicom",
    "is_dicom",
    "predict_takes",
    "read_slices",
    "scan_files",
]

CONVERT = "convert the series to NIfTI with dcm2niix and check the result"

_DEFLATED = "1.2.840.10008.1.2.1.99"
_ENHANCED = {
    "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2",  # Enhanced CT, legacy converted
    "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4",  # Enhanced MR, legacy converted
    "1.2.840.10008.5.1.4.1.1.130", "1.2.840.10008.5.1.4.1.1.128.1",  # Enhanced PET, legacy converted
}  # fmt: skip
# What tells the passes over one region apart, the most telling first.
_MARKS = (
    "EchoNumbers", "TemporalPositionIdentifier", "DiffusionBValue", "AcquisitionNumber", "TriggerTime", "ImageType",
    "AcquisitionTime",
)  # fmt: skip
_FRAME_MARKS = (
    ("FrameContentSequence", "StackID"), ("FrameContentSequence", "TemporalPositionIndex"),
    ("MREchoSequence", "EffectiveEchoTime"), ("MRDiffusionSequence", "DiffusionBValue"),
    ("FrameContentSequence", "FrameAcquisitionNumber"), ("MRImageFrameTypeSequence", "FrameType"),
    ("CTImageFrameTypeSequence", "FrameType"),
)  # fmt: skip
_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "SliceThickness", "BitsAllocated", "SpecificCharacterSet", "Units", "SUVType", "RescaleType",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", *_MARKS,
)  # fmt: skip
_MOST_PIXELS = 2**26
_MOST_VOXELS = 2**29


@dataclass(frozen=True)
class Slice:
    """One slice: a file, or a frame of a multi-frame file; positions in mm in DICOM's LPS world.

    Args:
        path: the file.
        series: SeriesInstanceUID.
        description: SeriesDescription.
        size: columns and rows.
        position: of the first pixel's centre.
        orientation: direction along a row, then along a column.
        spacing: mm between rows, then between columns.
        thickness: mm.
        number: SeriesNumber, 0 when there is none.
        instance: SOPInstanceUID.
        frame: number of the frame (from 0) in a multi-frame file.
        rescale: slope and intercept of a frame; None when the file has one pair for all.
        marks: header values that tell phases, echoes and the like apart.
        modality: DICOM's tag, such as ``CT`` or ``PT BQML`` (:func:`.objects.told_tag`); empty when there is none.
    """

    path: Path
    series: str
    description: str
    size: tuple[int, int]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float
    number: int = 0
    instance: str = ""
    frame: int | None = None
    rescale: tuple[float, float] | None = None
    marks: tuple[tuple[str, str], ...] = ()
    modality: str = ""

    @property
    def height(self) -> float:
        """Position along the slice normal in mm."""
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return float(np.dot(normal, self.position))

    @property
    def name(self) -> str:
        """The file's name, with the frame when it has several."""
        return self.path.name if self.frame is None else f"{self.path.name} frame {self.frame + 1}"


class Refused(NamedTuple):
    """A file that cannot be used: its series where that is known, and the error."""

    path: Path
    series: str | None
    error: DataError


def is_dicom(path: Path) -> bool:
    """True for a folder, a ``.dcm`` file or a file with DICOM's ``DICM`` mark."""
    if path.is_dir() or path.suffix.lower() == ".dcm":
        return True
    if path.suffix.lower() in (".gz", ".nii", ".png", ".nrrd", ".mha"):
        return False
    if special(path):
        return False
    with path.open("rb") as handle:
        return handle.read(132)[128:] == b"DICM"


def holds_dicom(folder: Path) -> bool:
    """Whether a DICOM file lies in a folder (not below it); a ``DICOMDIR`` alone is none."""
    return any(p.is_file() and p.name.upper() != "DICOMDIR" and is_dicom(p) for p in folder.iterdir())


def predict_takes(option: str) -> str:
    """How a fault of a series is accepted: by an option that ``predict`` alone has.

    Args:
        option: as it is typed, for example ``--stack 1``.
    """
    return f"python -m tools predict takes {option}; for everything else {CONVERT} first"


def scan_files(folder: Path) -> tuple[list[Slice], list[Refused]]:
    """All slices of a folder (not below it) or of one file, in file order, and what was refused."""
    slices: list[Slice] = []
    refused: list[Refused] = []
    for path in dicom_files(folder):
        series = None
        try:
            data = _header(path)
            series = str(data.get("SeriesInstanceUID") or "none")
            slices += read_slices(path, data)
        except DataError as error:
            refused.append(Refused(path, series, error))
        except Exception as error:
            refused.append(Refused(path, series, _unreadable(path, error)))
    return slices, refused


def dicom_files(place: Path) -> list[Path]:
    """A file, or the DICOM files of a folder (not below it) in order, without its directory."""
    files = [place] if place.is_file() else sorted(p for p in place.iterdir() if p.is_file())
    return [p for p in files if p.name.upper() != "DICOMDIR" and is_dicom(p)]


def headers(place: Path) -> Iterator[pydicom.Dataset]:
    """Of each file that can be read; whoever reads the series says what is wrong with the others."""
    for path in dicom_files(place):
        with contextlib.suppress(DataError, OSError):
            yield _header(path)


def _header(path: Path) -> pydicom.Dataset:
    try:
        syntax = str(getattr(read_file_meta_info(path), "TransferSyntaxUID", ""))
        if syntax == _DEFLATED:
            raise DataError(
                "deflated DICOM files are not read: a few bytes of them can fill the memory",
                where=path,
                hint="store the file uncompressed: dcmconv +te FILE NEW_FILE",
            )
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    head = b""
    with contextlib.suppress(OSError), path.open("rb") as handle:  # what could not be read then is what is told
        head = handle.read(132)
    if head[:2] in (b"\x08\0", b"\x02\0") and head[128:] != b"DICM":  # a data set begins with group 0008 (or 0002)
        return DataError(
            "a DICOM data set without the preamble that files have",
            where=path,
            expected="128 bytes and DICM before it",
            hint=f"store it as a file: dcmconv {shown_place(path.absolute())} NEW_FILE",
        )
    return DataError(
        f"not a readable DICOM file ({type(error).__name__}: {str(error)[:120]})",
        where=path,
        hint="copy or export the file again, it may have been cut off; to leave it out, "
        + predict_takes("--skip_broken True"),
    )


def read_slices(path: Path, data: pydicom.Dataset) -> list[Slice]:
    """The slices that a file's header describes; none for objects that are no images, or pictures of a screen.

    Raises:
        DataError: for colour, an impossible size, or several frames of another kind than enhanced CT, MR and PET.
        GeometryError: when a slice's place is missing or unreadable.
    """
    if no_scan(data) is not None or picture(data) is not None or "Rows" not in data:
        return []
    frames = int(data.get("NumberOfFrames") or 1)
    enhanced = str(data.get("SOPClassUID") or "") in _ENHANCED
    if frames > 1 and not enhanced:
        raise DataError(
            "multi-frame DICOM of this kind is not read",
            where=path,
            got=f"{frames} frames, {data.get('Modality') or 'unknown modality'}",
            expected="one frame a file, or enhanced CT, MR or PET",
            hint=CONVERT,
        )
    if int(data.get("SamplesPerPixel") or 1) != 1:
        raise DataError(
            "colour DICOM is not read",
            where=path,
            got=f"{data.SamplesPerPixel} samples per pixel",
            hint=f"when the folder holds another series, {predict_takes('--series NUMBER')}",
        )
    pixels = int(data.Rows) * int(data.Columns)
    if not 0 < pixels <= _MOST_PIXELS or not 0 < frames * pixels <= _MOST_VOXELS:
        raise DataError(
            "the slice has an impossible size", where=path, got=f"{frames} x {data.Rows} x {data.Columns} pixels"
        )
    return _frames(path, data, frames) if enhanced else [_single(path, data)]


def _single(path: Path, data: pydicom.Dataset) -> Slice:
    marks = tuple((t, str(data.get(t))) for t in _MARKS if data.get(t) not in (None, ""))
    return _slice(path, data, data, data, data, marks=marks)


def _frames(path: Path, data: pydicom.Dataset, count: int) -> list[Slice]:
    """Slices of an enhanced image, from its shared and per-frame functional groups."""
    shared, each = data.get("SharedFunctionalGroupsSequence"), data.get("PerFrameFunctionalGroupsSequence")
    if not each or len(each) != count:
        raise GeometryError(
            "the file does not say where its frames lie",
            where=path,
            got=f"{len(each or ())} descriptions for {count} frames",
            hint=CONVERT,
        )
    common = shared[0] if shared else pydicom.Dataset()
    found = []
    for number, own in enumerate(each):
        marks = tuple((n, str(_group(own, common, s).get(n))) for s, n in _FRAME_MARKS if n in _group(own, common, s))
        value = _group(own, common, "PixelValueTransformationSequence")
        found.append(
            _slice(
                path,
                data,
                _group(own, common, "PlanePositionSequence"),
                _group(own, common, "PlaneOrientationSequence"),
                _group(own, common, "PixelMeasuresSequence"),
                marks=marks,
                frame=number,
                rescale=(_number(value.get("RescaleSlope"), 1.0), _number(value.get("RescaleIntercept"), 0.0)),
                value=value,
            )
        )
    return found


def _group(own: pydicom.Dataset, common: pydicom.Dataset, name: str) -> pydicom.Dataset:
    items = own.get(name) or common.get(name)
    return items[0] if items else pydicom.Dataset()


def _number(value: Any, default: float) -> float:
    return default if value is None or value == "" else float(value)


def _slice(
    path: Path, data: pydicom.Dataset, place: pydicom.Dataset, turn: pydicom.Dataset, measures: pydicom.Dataset,
    *, marks: tuple[tuple[str, str], ...], frame: int | None = None, rescale: tuple[float, float] | None = None,
    value: pydicom.Dataset | None = None,
) -> Slice:  # fmt: skip
    wanted = (("ImagePositionPatient", place), ("ImageOrientationPatient", turn), ("PixelSpacing", measures))
    absent = [tag for tag, group in wanted if not group.get(tag)]
    if absent:
        raise GeometryError(f"the slice has no {' and no '.join(absent)}", where=path, hint=CONVERT)
    return Slice(
        path=path,
        series=str(data.get("SeriesInstanceUID") or "none"),
        description=str(data.get("SeriesDescription") or ""),
        size=(int(data.Columns), int(data.Rows)),
        position=_floats(place.ImagePositionPatient, 3, path),
        orientation=_floats(turn.ImageOrientationPatient, 6, path),
        spacing=_floats(measures.PixelSpacing, 2, path),
        thickness=_number(measures.get("SliceThickness"), 1.0) or 1.0,
        number=int(data.get("SeriesNumber") or 0),
        instance=str(data.get("SOPInstanceUID") or ""),
        frame=frame,
        rescale=rescale,
        marks=marks,
        modality=told_tag(data, value),
    )


def _floats(values: Iterable[Any], count: int, path: Path) -> tuple[float, ...]:
    numbers = tuple(float(v) for v in values)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise GeometryError("the slice's position cannot be read", where=path, got=numbers, expected=f"{count} numbers")
    return numbers
