"""What a channel or modality is by its name: canonical kinds, synonyms, and whether two names can be one thing."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

__all__ = ["DICOM_KINDS", "Modality", "details", "is_ct", "kind_of", "meanings", "plain", "same"]

DICOM_KINDS = {
    "CT": "CT", "MR": "MR", "PT": "PT", "US": "US", "IVUS": "US", "NM": "NM", "MG": "XR", "CR": "XR", "DX": "XR",
    "RF": "XR", "XA": "XR", "XC": "photo", "GM": "photo", "SM": "photo", "ES": "photo", "OP": "photo", "OPT": "OCT",
}  # fmt: skip
# What DICOM's tag Modality means; other values tell nothing about intensities.

_CT = re.compile(
    r"(?:c|nc|nonc|ce|hr|ld|uld|cb|cc|4d|mv|kv|s|de|ds|pc|qc|q|p|ab|plain|native|contrast)?ct(?:a|p|v|pa|ca|ac|scan|abd)?\d*$"
)
_KINDS = {
    "CT": "tomodensitometry hounsfield hu",
    "MR": "mr mri mra mrv mrcp nmr fmri cmr cmri mrt irm rm magnetic",
    "US": "us usg ultrasound ultrasonography sonography sonogram tte tee ivus echocardiography doppler bmode trus",
    "PT": "pt pet fdg suv psma dotatate",
    "NM": "nm spect scintigraphy",
    "XR": "xr xray cr dx cxr mg radiograph radiography rx mammo mammogram mammography fluoroscopy xa angiogram dsa",
    "photo": "photo photos photograph photographs rgb bgr colour color picture camera",
    "OCT": "oct",
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words.split()}
_PHOTOS = {
    "dermoscopy": "dermoscopy dermoscopic dermatoscopy skin",
    "endoscopy": "endoscopy endoscopic colonoscopy gastroscopy",
    "fundus": "fundus retina retinal", "histology": "histology histopathology pathology wsi microscopy",
}  # fmt: skip
_COLOURS = {"red": "red", "green": "green", "blue": "blue", "r": "red", "g": "green", "b": "blue"}
# the first that is found names a sequence of MR; "T2 FLAIR" is a FLAIR
_SEQUENCES = (
    ("FLAIR", r"flair|t2f|fl"), ("ADC", r"adc"), ("DWI", r"dwi|dw|hbv|diffusion|trace|dti|b\d{2,4}"),
    ("LGE", r"lge|de|delayed|psir"), ("cine", r"cine|b?ssfp|fiesta|truefisp|trufi"),
    ("SWI", r"swi|swan|t2star\w*|gre"), ("DCE", r"dce"), ("perfusion", r"dsc|asl|pwi"), ("STIR", r"stir|tirm"),
    ("MRA", r"mra|tof|mrv"), ("MRCP", r"mrcp"), ("T1c", r"t1w?i?(?:c|ce|gd|km|post|plusc)\w*|c?et1w?|t1k"),
    ("T1", r"t1w?i?\d?|t1n\w*|t1pre|mprage|vibe|lava|spgr|bravo"), ("T2", r"t2w?i?\d?|t2n|haste|ssfse"),
    ("PD", r"pdw?i?|proton"),
)  # fmt: skip
_CERTAIN = ("DE", "DELAYED", "GRE", "FL", "DW")  # short words that mean a sequence only beside others that say MR
_CONTRAST = {"c", "ce", "gd", "post", "contrast", "enhanced", "km", "gadolinium", "postcontrast", "plusc"}
_PLAIN = {"non", "no", "pre", "without", "native", "unenhanced", "precontrast", "nc"}

_SPELT_OUT = {
    r"computed[\s_-]tomography": "ct", r"positron[\s_-]emission[\s_-]tomography": "pet",
    r"optical[\s_-]coherence[\s_-]tomography": "oct",
}  # fmt: skip
_SIGN = re.compile(r"\s*\(([+-])\)|(?<=[^\W_])([+-])(?=$|[\s,;|/)])|\s+([+-])\s*$")
_FILLERS = {
    "image",
    "images",
    "scan",
    "scans",
    "phase",
    "series",
    "sequence",
    "channel",
    "weighted",
    "w",
    "of",
    "map",
    "maps",
}
_DETAILS = {
    **dict.fromkeys(_PLAIN | {"noncontrast", "plain", "nonenhanced"}, "pre"),
    **dict.fromkeys(_CONTRAST, "post"), **dict.fromkeys(("art", "early"), "arterial"),
    **dict.fromkeys(("venous", "portalvenous", "pv", "pvp", "vein"), "portal"),
    **dict.fromkeys(("late", "delay", "excretory", "equilibrium"), "delayed"),
}  # fmt: skip


class Modality(NamedTuple):
    """What a name means.

    Args:
        kind: ``CT``, ``MR``, ``PT``, ``NM``, ``US``, ``XR``, ``OCT`` or ``photo``; empty when the name does not tell.
        sequence: of MR, such as ``T1``, ``T1c``, ``FLAIR``; of photographs what they show, or the colour.
    """

    kind: str
    sequence: str = ""


@cache
def meanings(name: str) -> frozenset[Modality]:
    """All that a name can mean; ``CT or MR`` and ``CT | T2 MR`` mean two things, an unknown name none.

    Args:
        name: of a channel or a modality, in any spelling: ``CTA``, ``T2w``, ``ce-T1``.
    """
    name = re.sub(r"\+\s*c\b", "plusc", name, flags=re.IGNORECASE)
    parts = re.split(r"\s+or\s+|\||,|;", name, flags=re.IGNORECASE)
    found: set[Modality] = set()
    for part in parts:
        joined = [_meanings_of(p) for p in re.split(r"\s\+\s", part)]
        if len(joined) > 1:  # several channels in one name
            kinds = {m.kind for one in joined for m in one}
            joined = [{Modality(k) for k in kinds}] if all(joined) and len(kinds) == 1 else [set()]
        if not joined[0]:
            return frozenset()
        found |= joined[0]
    return frozenset(found)


def kind_of(name: str) -> str:
    """The one kind that a name means, empty when it tells none or several."""
    kinds = {m.kind for m in meanings(name)}
    return next(iter(kinds)) if len(kinds) == 1 else ""


def is_ct(name: str) -> bool:
    """Whether a name means CT, with intensities in HU, and nothing else."""
    return kind_of(name) == "CT"


def plain(name: str) -> str:
    """A name without case, spaces and signs: what ``T2 MR`` and ``t2-mr`` have in common."""
    return "".join(_words(name))


@cache
def details(name: str) -> frozenset[str]:
    """What a name says beside its kind and sequence: phase, with or without contrast, b-value, anything else.

    Args:
        name: of a channel: ``CT arterial`` and ``ct-art`` say ``arterial``, ``NCCT`` says ``pre``.
    """
    text = re.sub(r"(?<![a-z])b[\s=_-]*0*(\d+)", r"b\1", name.casefold())
    found: set[str] = set()
    for word in _words(text):
        if re.fullmatch(r"b\d+", word):
            found.add(word)
        elif word in _DETAILS:
            found.add(_DETAILS[word])
        elif _CT.match(word):
            if re.match(r"n|plain", word):
                found.add("pre")
            elif re.match(r"c[ec]|contrast|.*cta", word):
                found.add("post")
        elif word == "delayed" or not (word in _FILLERS or word in _KIND_OF or _is_sequence(word)):
            found.add(word)
    if "pre" in found or found & {"arterial", "portal", "delayed"}:  # "no contrast"; a phase says more
        found.discard("post")
    return frozenset(found)


def same(one: str, other: str) -> bool | None:
    """Whether two names can be one modality; None when a name does not tell.

    Kinds are compared, and of MR the sequences where both tell one: T1 is not T2, and ``MR`` may be either.

    Args:
        one: a name.
        other: another.
    """
    if plain(one) == plain(other):
        return True
    answers = {_same(a, b) for a in meanings(one) for b in meanings(other)}
    if not answers:
        return None
    return True if True in answers else None if None in answers else False


def _same(one: Modality, other: Modality) -> bool | None:
    if one.kind != other.kind:
        return False
    if one.sequence == other.sequence:
        return True if one.sequence or one.kind != "MR" else None
    colours = {m.sequence in _COLOURS.values() for m in (one, other)}
    if not one.sequence or not other.sequence or len(colours) > 1:
        return None
    return False


def _words(name: str) -> list[str]:
    text = re.sub(r"t2\s*\*", "t2star", name.casefold())
    for long, short in _SPELT_OUT.items():
        text = re.sub(long, short, text)
    text = re.sub(r"(?<![a-z])x[\s_-]?ray", "xray", text)
    text = _SIGN.sub(lambda m: " plusc" if "+" in m[0] else " nc", text)
    return re.findall(r"[^\W_]+", text)


def _is_sequence(word: str) -> bool:
    return any(re.fullmatch(pattern, word) for _, pattern in _SEQUENCES)


def _meanings_of(name: str) -> set[Modality]:
    words = _words(name)
    if len(words) == 1 and words[0] in _COLOURS:
        return {Modality("photo", _COLOURS[words[0]])}
    kinds = {_KIND_OF[w] for w in words if w in _KIND_OF} | ({"CT"} if any(map(_CT.match, words)) else set())
    kinds |= {k for w in words if (m := re.fullmatch(r"(pet|spect|pt)(ct|mr)", w)) for k in (
        {"pet": "PT", "pt": "PT", "spect": "NM"}[m[1]], m[2].upper())}  # fmt: skip
    photo = next((kind for kind, known in _PHOTOS.items() if set(words) & set(known.split())), "")
    if photo and not kinds - {"photo"}:
        return {Modality("photo", photo)}
    sequence = _sequence(words, certain="MR" in kinds)
    if sequence and kinds <= {"MR", "US"}:  # an echo's number, a doppler of MR: the sequence decides
        return {Modality("MR", sequence)}
    return {Modality(k, sequence if k == "MR" else "") for k in kinds}


def _sequence(words: list[str], *, certain: bool) -> str:
    for name, pattern in _SEQUENCES:
        hits = [w for w in words if re.fullmatch(pattern, w)]
        if not hits or (not certain and len(words) == 1 and hits[0].upper() in _CERTAIN):
            continue
        if not certain and all(h.upper() in _CERTAIN for h in hits):
            continue
        if name == "T1" and set(words) & _CONTRAST and not set(words) & _PLAIN:
            name = "T1c"
        phase = next((p for p in ("in", "out", "opp", "opposed") if p in words and name == "T1"), "")
        mapped = " map" if {"map", "mapping", "maps"} & set(words) and name in ("T1", "T2") else ""
        return f"{name}{' in' if phase == 'in' else ' out' if phase else ''}{mapped}"
    return ""
