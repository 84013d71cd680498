"""What DICOM's tag Modality says: a closed list, of which each entry is a modality of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .modalities import is_cone_beam, meanings, quantities, same
from .name_words import words

__all__ = ["DICOM_KINDS", "OF_THESE", "doubts", "doubts_by_channel", "is_scan", "leaves_open", "of_dicom", "unnamed"]

OF_THESE = "; "
# Between a tag with its unit and what ImageType says of the image: ``CT; MIP``, ``PT BQML; MIP``.

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

# What PET's Units and CT's RescaleType are called in names of modalities; others as they are, and of CT not at all.
_UNITS = {"GML": "SUV", "GML BW": "SUV", "GML LBM": "SUL", "GML LBMJAMES128": "SUL", "GML LBMJANMA": "SUL",
          "CNTS": "counts", "PROPCNTS": "counts", "CPS": "counts"}  # fmt: skip
_MAPS = {"MGML": "density", "Z_EFF": "Zeff", "ED": "electron density", "EDW": "electron density"}


def is_scan(tag: str) -> bool:
    """Whether DICOM's tag Modality, with a unit behind it or none, says what kind of scan it is; ``OT`` does not.

    Args:
        tag: its value, as :func:`of_dicom` takes it.
    """
    kind = _parts(tag)[0]
    return kind in DICOM_KINDS or kind in _NAMES


def of_dicom(tag: str, known: Iterable[str] = ()) -> str:
    """What DICOM's tag Modality says, as the name of a modality; empty when it tells nothing about intensities.

    Where a tag may be several things it is the one that a name means: a C-arm's cone-beam CT comes as ``XA``, as
    projections do, and every photograph of an eye as ``OP``.

    Args:
        tag: its value; behind it the unit of the numbers, where the header says one, and what ImageType says:
            ``PT BQML``, ``CT; MIP``.
        known: names that it is compared with.
    """
    tag, unit, shown = _parts(tag)
    name = _of_dicom(tag, unit, list(known))
    return f"{name} {shown}" if name and shown else name


def _of_dicom(tag: str, unit: str, names: Sequence[str]) -> str:
    if unit and tag == "PT":
        return f"PT {_UNITS.get(unit, unit.partition(' ')[0])}"
    if unit in _MAPS and tag == "CT":
        return f"CT {_MAPS[unit]}"
    if tag == "XA" and any(map(is_cone_beam, names)):
        return "CBCT"
    can_be = _NAMES.get(tag) or ((DICOM_KINDS[tag],) if tag in DICOM_KINDS else ("",))
    return next((c for c in can_be if any(same(c, n) for n in names)), can_be[0])


def leaves_open(tag: str) -> str:
    """What to say of a tag that several things come with; empty of one that is a thing of its own.

    Args:
        tag: its value.
    """
    tag = _parts(tag)[0]
    can_be = [*_NAMES.get(tag, ()), *(["cone-beam CT", "DSA"] if tag == "XA" else [])]
    return f"DICOM says {tag}, which may be {' or '.join(can_be)}: nobody says which" if len(can_be) > 1 else ""


def doubts(tag: str, names: Iterable[str]) -> list[str]:
    """What DICOM says of a scan, or leaves open, and none of its names tells.

    Args:
        tag: as :func:`of_dicom` takes it; empty of what is no DICOM.
        names: what the scan is called; none where nobody said it.
    """
    kind, unit, type_ = _parts(tag)
    called = list(dict.fromkeys(filter(None, names)))
    shown = f" ({' or '.join(called)})" if called else ""
    if not tag:
        return []
    if not is_scan(tag):
        return [f"DICOM says {tag}, which is no modality: whether it is a scan, and of what{shown}, DICOM does not say"]
    found = []
    if type_ and not any(_says(name, kind, type_) for name in called):
        found.append(
            f"DICOM says that this {kind} is of the type {type_} (ImageType), which its name does not say{shown}"
        )
    units = quantities(of_dicom(f"{kind} {unit}")) if unit else ()
    if kind == "CT" and unit:
        found.append(f"DICOM says that the numbers of this CT are {unit} (RescaleType), and not HU")
    elif unit and not any(u & q for name in called for u, q in zip(units, quantities(name), strict=True)):
        found.append(f"DICOM says that the numbers of this PET are {unit} (Units), which its name does not say{shown}")
    return found


def doubts_by_channel(channels: Iterable[tuple[str, str]]) -> list[str]:
    """As :func:`doubts`, of scans with several channels, each with its name.

    Args:
        channels: tag and name of each.
    """
    return [f"channel {name}: {line}" for tag, name in channels for line in doubts(tag, (name,))]


def unnamed(tag: str, names: Iterable[str]) -> list[str]:
    """What DICOM's tag leaves open of a scan that is called so or nothing else: the contrast of MR, the kind of X-ray.

    Args:
        tag: as :func:`of_dicom` takes it; empty of what is no DICOM.
        names: what the scan is called; none where nobody said it.
    """
    called, (kind, _, type_) = [name for name in names if name], _parts(tag)
    if kind == "MR" and all(not m.sequence for name in [*called, f"MR {type_}"] for m in meanings(name)):
        return ["DICOM says MR, and which MR contrast it is nobody said"]
    return [leaves_open(tag)] if leaves_open(tag) and set(called) <= {kind} else []


def _parts(tag: str) -> tuple[str, str, str]:
    """A tag's modality, unit and type."""
    whole, _, type_ = tag.partition(OF_THESE)
    kind, _, unit = whole.partition(" ")
    return kind, unit, type_


def _says(name: str, kind: str, type_: str) -> bool:
    """Whether a name tells the type of an image: all of its words, or the sequence that they mean."""
    told = {m for m in meanings(f"{kind} {type_}") if m.sequence}
    return bool(told & meanings(name)) or set(words(type_)) <= set(words(name))
