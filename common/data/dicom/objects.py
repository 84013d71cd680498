"""What a DICOM file is by its tags: a scan with its modality and unit, or a report, a plan, a picture of a screen."""

from __future__ import annotations

import re

import pydicom

from ...dicom_tags import OF_THESE, is_scan
from .image_type import image_words

__all__ = ["SECONDARY", "no_scan", "picture", "text_of", "told_tag"]

SECONDARY = "SC"
# What a picture of a screen, or a scan that a program wrote, is called here: its Modality is that of what it shows.

_NO_SCAN = {
    "RTSTRUCT": "contours; draw them into a label map first: dcmrtstruct2nii convert -r FILE -d SERIES -o FOLDER",
    "SEG": "a segmentation; as a label of its series: python -m tools data convert IMAGES OUT --labels FOLDER",
    "SR": "a report", "PR": "a presentation state", "KO": "a selection of images", "REG": "a registration",
    "RTPLAN": "a treatment plan", "RTDOSE": "a dose", "DOC": "a document", "RTRECORD": "a record of a treatment",
    "PLAN": "a plan", "RWV": "a map of values", "FID": "fiducials", "AU": "sound", "ECG": "a waveform",
    "EPS": "a waveform", "HD": "a waveform", "EEG": "a waveform", "EMG": "a waveform", "EOG": "a waveform",
    "RESP": "a waveform", "POS": "positions", "SMR": "a relationship of stereometry", "ANN": "annotations",
    "ASMT": "an assessment", "CTPROTOCOL": "a protocol", "XAPROTOCOL": "a protocol", "RTINTENT": "a treatment's intent",
    "RTRAD": "a treatment's fields", "RTSEGANN": "annotations of a treatment", "M3D": "a model", "KER": "a measurement",
    "AR": "a measurement", "LEN": "a measurement", "SRF": "a measurement", "VA": "a measurement",
    "OAM": "a measurement", "IOL": "a measurement", "OPV": "a measurement", "OSS": "a surface",
    "STAIN": "a protocol", "HC": "a print", "TEXTUREMAP": "a texture", "CFM": "a measurement",
}  # fmt: skip
_CLASSES = (
    ("SR", r"88\..*"), ("PR", r"11\..*"), ("DOC", r"104\.[12]"), ("M3D", r"104\.[3-9]"), ("ECG", r"9\..*"),
    ("REG", r"66\.[13]"), ("FID", r"66\.2"), ("SEG", r"66\.[457]"), ("RWV", r"67"), ("RTDOSE", r"481\.2"),
    ("RTSTRUCT", r"481\.3"), ("RTPLAN", r"481\.[58]"), ("RTRECORD", r"481\.[4679]"),
)  # fmt: skip
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CAPTURE = re.compile(r"7(\.\d)?")
_UNIT = re.compile(r"[A-Z0-9_]{1,16}")


def no_scan(data: pydicom.Dataset) -> tuple[str, str] | None:
    """The modality of an object that is no image, and what that is; None of images.

    Its SOP class decides where the modality is that of the scan it belongs to.

    Args:
        data: a header.
    """
    tag, own = _modality(data), _class(data)
    tag = tag if tag in _NO_SCAN else next((t for t, pattern in _CLASSES if re.fullmatch(pattern, own)), "")
    return (tag, _NO_SCAN[tag]) if tag else None


def told_tag(data: pydicom.Dataset, value: pydicom.Dataset | None = None) -> str:
    """DICOM's ``Modality``, with the unit of the numbers and the type of the image where these matter.

    ``PT BQML``, ``PT GML LBM`` (``Units`` and ``SUVType``), ``CT US`` (``RescaleType``, where it is not ``HU``),
    ``CT; MIP`` and ``MR; ADC`` (``ImageType``, see :mod:`.image_type`). An object of the class Secondary Capture is
    ``SC``, whatever it says to be: it shows something, and is no scan of it.

    Args:
        data: a header.
        value: of an enhanced image the group with ``RescaleType``.
    """
    tag = _modality(data)
    if _CAPTURE.fullmatch(_class(data)):
        return SECONDARY
    if tag == "PT":
        words = [_word(text_of(data, "Units"))]
        words += [_word(text_of(data, "SUVType"))] if words == ["GML"] else []
    else:
        said = [text_of(d, "RescaleType") for d in (value, data) if d is not None] if tag == "CT" else []
        words = [_word(next(filter(None, said), ""))]
        words = [w for w in words if w != "HU"]
    shown = image_words(_values(data, "ImageType"), tag) if is_scan(tag) else ""
    return " ".join([tag, *filter(None, words)]) + (f"{OF_THESE}{shown}" if shown else "")


def picture(data: pydicom.Dataset) -> tuple[str, str] | None:
    """What is an image, and neither a scan by its tags nor by having a place in the patient: a picture of a screen.

    Args:
        data: a header.
    """
    tag = told_tag(data)
    placed = text_of(data, "ImagePositionPatient") or "PerFrameFunctionalGroupsSequence" in data
    return (tag, "a picture without a place in the patient") if tag and not is_scan(tag) and not placed else None


def text_of(data: pydicom.Dataset, name: str) -> str:
    """A header's value as text; empty where there is none, or none that can be read.

    Args:
        data: a header.
        name: DICOM's keyword.
    """
    try:
        return str(data.get(name) or "").strip()
    except Exception:  # values are decoded when they are asked for; whoever reads the slice says what is wrong with it
        return ""


def _values(data: pydicom.Dataset, name: str) -> list[str]:
    """The values of a header that has several; none where none can be read."""
    try:
        found = data.get(name)
        return [str(v) for v in ([found] if isinstance(found, str) else found or ())]
    except Exception:  # as of text_of
        return []


def _modality(data: pydicom.Dataset) -> str:
    found = text_of(data, "Modality").upper()
    return found if not found or _UNIT.fullmatch(found) else "OTHER"


def _class(data: pydicom.Dataset) -> str:
    """The part of the SOP class that tells the kind of object; empty of other classes."""
    found = text_of(data, "SOPClassUID")
    return found.removeprefix(_STORAGE) if found.startswith(_STORAGE) else ""


def _word(value: str) -> str:
    """A code as it is told; of text that is none nothing more than that there is some."""
    found = re.sub(r"[\s/]+", "", value).upper()
    return found if not found or _UNIT.fullmatch(found) else "OTHER"
