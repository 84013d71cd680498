"""What DICOM's tag Modality says: a closed list, of which each entry is a modality of its own."""

from __future__ import annotations

from collections.abc import Iterable

from .modalities import is_cone_beam, same

__all__ = ["DICOM_KINDS", "leaves_open", "of_dicom"]

DICOM_KINDS = {
    "CT": "CT", "MR": "MR", "PT": "PT", "US": "US", "IVUS": "US", "NM": "NM", "MG": "XR", "CR": "XR", "DX": "XR",
    "RF": "XR", "XA": "XR", "IO": "XR", "PX": "XR", "XC": "photo", "GM": "photo", "SM": "photo", "ES": "photo",
    "OP": "photo", "DMS": "photo", "OPT": "OCT", "OCT": "OCT", "IVOCT": "OCT", "ST": "NM", "MA": "MR", "MS": "MR",
    "BMD": "XR", "BDUS": "US", "RTIMAGE": "XR", "RG": "XR", "DF": "XR", "DG": "photo", "TG": "photo", "OPM": "photo",
    "CF": "XR",
}  # fmt: skip
# The kind of each tag of images; other values tell nothing about intensities. See :func:`of_dicom`.

# What an image with the tag can be, where a kind says too little; the first is the usual one.
_NAMES = {
    "IVUS": ("IVUS",), "BDUS": ("BDUS",), "MG": ("MG", "tomosynthesis"),
    "RF": ("fluoroscopy", "XA"), "XA": ("XA", "fluoroscopy"), "DF": ("fluoroscopy", "XA"), "CF": ("fluoroscopy", "XA"),
    "IO": ("intraoral X-ray",), "PX": ("panoramic X-ray",), "BMD": ("DXA",), "RTIMAGE": ("radiotherapy X-ray",),
    "GM": ("microscopy",), "SM": ("histology",), "ES": ("endoscopy", "NBI"), "DMS": ("dermoscopy",),
    "OP": ("fundus", "fluorescein angiography", "autofluorescence", "infrared photo"),
    "TG": ("thermography",), "DG": ("diaphanography",), "OPM": ("ophthalmic map photo",),
    "IVOCT": ("intravascular OCT",), "OPT": ("OCT", "OCTA"), "MA": ("MRA",), "MS": ("MR spectroscopy",),
    "DS": ("DSA",), "VF": ("fluoroscopy",), "EC": ("echocardiography",), "DD": ("doppler",), "CD": ("doppler",),
    "FS": ("fundus",), "FA": ("fluorescein angiography",), "LP": ("endoscopy",), "CS": ("endoscopy",),
    "CP": ("endoscopy",), "DM": ("microscopy",), "OPTENF": ("OCT en face",), "OPTBSV": ("OCT",),
}  # fmt: skip


def of_dicom(tag: str, known: Iterable[str] = ()) -> str:
    """What DICOM's tag Modality says, as the name of a modality; empty when it tells nothing about intensities.

    Where a tag may be several things it is the one that a name means: a C-arm's cone-beam CT comes as ``XA``, as
    projections do, and every photograph of an eye as ``OP``.

    Args:
        tag: its value.
        known: names that it is compared with.
    """
    names = list(known)
    if tag == "XA" and any(map(is_cone_beam, names)):
        return "CBCT"
    can_be = _NAMES.get(tag) or ((DICOM_KINDS[tag],) if tag in DICOM_KINDS else ("",))
    return next((c for c in can_be if any(same(c, n) for n in names)), can_be[0])


def leaves_open(tag: str) -> str:
    """What to say of a tag that several things come with; empty of one that is a thing of its own.

    Args:
        tag: its value.
    """
    can_be = [*_NAMES.get(tag, ()), *(["cone-beam CT", "DSA"] if tag == "XA" else [])]
    return f"DICOM says {tag}, which may be {' or '.join(can_be)}: nobody says which" if len(can_be) > 1 else ""
