"""Label maps as DICOM segmentations (SEG) on the slices of their series."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from ...atomic import atomic_write
from ...errors import ConfigError, DataError, LabelError
from ...geometry import Grid
from ...labels import LabelSpace
from .codes import meaning
from .grid import on_slices
from .slices import Slice

__all__ = ["Algorithm", "SegFile", "check_sources", "load_highdicom", "write_seg"]

logger = logging.getLogger(__name__)

MANUFACTURER = "amalgam-bundles"
_OLDEST = (0, 28)
_LONGEST_LABEL = 64
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


@dataclass(frozen=True)
class Algorithm:
    """Who made a segmentation.

    Args:
        name: the bundle.
        version: its version.
        parameters: what else identifies it, for example the weights' hash.
    """

    name: str
    version: str
    parameters: Mapping[str, str] = field(default_factory=dict)


class SegFile(NamedTuple):
    """A written file, the structures in it and those that were found nowhere."""

    path: Path
    written: tuple[str, ...]
    empty: tuple[str, ...]


def load_highdicom() -> Any:
    """The package highdicom, which only DICOM SEG needs.

    Raises:
        ConfigError: when it is not installed.
    """
    try:
        import highdicom
        import highdicom.seg
    except ImportError as error:
        raise _no_highdicom(str(error)) from error
    if tuple(int(n) for n in highdicom.__version__.split(".")[:2]) < _OLDEST:
        raise _no_highdicom(f"version {highdicom.__version__}")
    logging.getLogger("highdicom").setLevel(logging.WARNING)  # it reports every module that it copies
    return highdicom


def _no_highdicom(got: str) -> ConfigError:
    return ConfigError(
        "DICOM segmentations need the package highdicom",
        got=got,
        expected=f"highdicom {'.'.join(map(str, _OLDEST))} or newer",
        hint="pip install 'highdicom>=0.28', or keep to NIfTI: --result nifti",
    )


def check_sources(slices: Sequence[Slice]) -> list[pydicom.Dataset]:
    """The headers of the slices' files, one per file in this order, when a SEG can refer to them.

    Elements that a SEG copies and that may be empty are added where an anonymiser removed them.

    Raises:
        DataError: when a file has no UID for itself, its series or its study.
        ConfigError: when highdicom is missing.
    """
    load_highdicom()
    headers: list[pydicom.Dataset] = []
    for path in dict.fromkeys(s.path for s in slices):
        data = pydicom.dcmread(path, stop_before_pixels=True)
        for tag in ("SOPClassUID", "SOPInstanceUID"):
            stored = str(data.file_meta.get(f"MediaStorage{tag}") or "")
            if not data.get(tag) and stored:
                setattr(data, tag, stored)
        needed = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
        absent = [tag for tag in needed if not data.get(tag)]
        if absent:
            raise DataError(
                f"a DICOM SEG cannot refer to this slice: it has no {' and no '.join(absent)}",
                where=path,
                hint="restore what the anonymiser removed, or ask for --result nifti",
            )
        for tag in _MAY_BE_EMPTY:
            if tag not in data:
                setattr(data, tag, "")
        headers.append(data)
    return headers


def write_seg(
    label: NDArray[Any],
    labels: LabelSpace,
    grid: Grid,
    slices: Sequence[Slice],
    path: str | Path,
    *,
    algorithm: Algorithm,
    colors: Sequence[str],
    description: str = "",
) -> SegFile:
    """Write a label map as a BINARY segmentation whose frames are slices of the series.

    A structure that was found nowhere is left out (viewers do not expect segments without frames) and logged; when
    nothing at all was found, every structure is written with one empty frame.

    Args:
        label: ``[X, Y, Z]`` indices of ``labels``, or ``[K, X, Y, Z]`` masks that may overlap.
        labels: names of the structures.
        grid: where the label map lies, as :func:`.series.read_dicom` returned it.
        slices: the slices of the series.
        path: the file; it appears under its name only when it is complete.
        algorithm: who made it.
        colors: ``#rrggbb``, one for each structure.
        description: SeriesDescription; the algorithm's name when empty.

    Raises:
        DataError: when the series cannot be referred to, or the file cannot be written.
        LabelError: for a value that the label space does not have.
        GeometryError: when the label map does not lie on the slices.
        ConfigError: when highdicom is missing.
    """
    hd, path = load_highdicom(), Path(path)
    sources = check_sources(slices)
    present = _present(label, labels, path)
    shown = present or list(range(1, len(labels) + 1))
    empty = tuple(labels.names[i - 1] for i in range(1, len(labels) + 1) if i not in present)
    if empty and present:
        logger.warning("%s: not found, so not in the file: %s", path.name, ", ".join(empty))
    elif empty:
        logger.warning("%s: nothing was found; every structure has one empty frame", path.name)
    planes = _numbered(on_slices(label, grid, slices), shown)
    chosen = planes if present else planes[:1]
    positions = [hd.PlanePositionSequence("PATIENT", s.position) for s in slices[: len(chosen)]]
    first = slices[0]
    told = _segment_labels(labels.names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's about other people's headers
        seg = hd.seg.Segmentation(
            source_images=sources,
            pixel_array=chosen,
            segmentation_type="BINARY",
            segment_descriptions=[
                _description(hd, n, labels.names[i - 1], told[i - 1], algorithm, colors[i - 1])
                for n, i in enumerate(shown, start=1)
            ],
            series_instance_uid=hd.UID(),
            series_number=1000 + max(0, first.number),
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=_line(algorithm.name),
            software_versions=_line(algorithm.version) or "unknown",
            device_serial_number="none",
            plane_positions=positions,
            plane_orientation=hd.PlaneOrientationSequence("PATIENT", first.orientation),
            pixel_measures=hd.PixelMeasuresSequence(first.spacing, first.thickness, _between(slices)),
            omit_empty_frames=bool(present),
            series_description=_line(description or f"Segmentation by {algorithm.name}"),
            specific_character_set="ISO_IR 192",
            content_description=_line(f"{algorithm.name} {algorithm.version}"),
        )
        seg.ContentCreatorName = ""  # nobody, but the element has to be there
        try:
            with atomic_write(path) as temporary:
                seg.save_as(temporary)
        except OSError as error:
            raise DataError(f"cannot write the file: {error.strerror or error}", where=path) from error
    return SegFile(path, tuple(labels.names[i - 1] for i in present), empty)


def _present(label: NDArray[Any], labels: LabelSpace, path: Path) -> list[int]:
    if label.ndim == 4:
        if len(label) != len(labels):
            raise LabelError("one mask for each structure", where=path, got=len(label), expected=len(labels))
        return [i for i, mask in enumerate(label, start=1) if mask.any()]
    values = [int(v) for v in np.unique(label) if v != 0]
    unknown = [v for v in values if not 1 <= v <= len(labels)]
    if unknown:
        raise LabelError("the label map has values without a name", where=path, got=unknown, expected=labels.names)
    return values


def _numbered(planes: NDArray[Any], shown: Sequence[int]) -> NDArray[Any]:
    """Segment numbers 1, 2, ... of the structures shown: ``[N, rows, columns]``, or one-hot with a last axis."""
    if planes.ndim == 4:
        return np.ascontiguousarray(np.moveaxis(planes[[i - 1 for i in shown]], 0, -1).astype(np.uint8))
    table = np.zeros(max(int(planes.max()), *shown) + 1, dtype=np.min_scalar_type(len(shown)))
    table[list(shown)] = np.arange(1, len(shown) + 1)
    return np.asarray(table[planes.astype(np.int64)])


def _between(slices: Sequence[Slice]) -> float | None:
    """Distance of even slices in mm; None when they are not."""
    steps = np.diff([s.height for s in slices])
    if not len(steps) or steps.max() - steps.min() > 0.01 * steps.min():
        return None
    return float(np.mean(steps))


def _line(text: str) -> str:
    """One value of at most 64 characters: DICOM takes a backslash for the end of one."""
    plain = "".join(c if c.isprintable() and c != "\\" else "_" for c in text)
    return plain[:_LONGEST_LABEL].strip()


def _segment_labels(names: Sequence[str]) -> list[str]:
    """Names of at most 64 characters, which DICOM allows, all different."""
    found: list[str] = []
    for name in names:
        cut, told = name[:_LONGEST_LABEL].strip(), name  # DICOM gives no space back
        while cut in found or (cut != name and cut in names):
            cut = f"{name[: _LONGEST_LABEL - 9].strip()} {hashlib.sha256(told.encode()).hexdigest()[:8]}"
            told += "+"  # somebody may really be called so
        found.append(cut)
    return found


def _description(hd: Any, number: int, name: str, told: str, algorithm: Algorithm, color: str) -> Any:
    known = meaning(name)
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=told,
        segmented_property_category=known.category,
        segmented_property_type=known.type,
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=_line(algorithm.name),
            family=codes.cid7162.ArtificialIntelligence,
            version=_line(algorithm.version) or "unknown",
            source=MANUFACTURER,
            parameters=dict(algorithm.parameters) or None,
        ),
        anatomic_regions=[known.region] if known.region else None,
        display_color=hd.color.CIELabColor.from_rgb(*(int(color.lstrip("#")[i : i + 2], 16) for i in (0, 2, 4))),
    )
    if known.side is not None:
        side = hd.sr.CodedConcept.from_code(known.side)
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    return described
