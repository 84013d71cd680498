"""What a channel or modality is by its name: canonical kinds, synonyms, and whether two names can be one thing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

__all__ = ["DICOM_KINDS", "Modality", "details", "is_cone_beam", "is_ct", "kind_of", "meanings", "of_dicom", "plain",
           "same", "tracers"]  # fmt: skip

DICOM_KINDS = {
    "CT": "CT", "MR": "MR", "PT": "PT", "US": "US", "IVUS": "US", "NM": "NM", "MG": "XR", "CR": "XR", "DX": "XR",
    "RF": "XR", "XA": "XR", "IO": "XR", "PX": "XR", "XC": "photo", "GM": "photo", "SM": "photo", "ES": "photo",
    "OP": "photo", "DMS": "photo", "OPT": "OCT", "OCT": "OCT", "IVOCT": "OCT",
}  # fmt: skip
# What DICOM's tag Modality means; other values tell nothing about intensities. See :func:`of_dicom`.

_CONE_BEAM = {"cbct", "dvt", "dynact", "xperct", "conebeam"}  # DVT: the German name
_CT = re.compile(
    r"(?:c|nc|nonc|ce|hr|ld|uld|cb|cc|4d|mv|kv|s|de|ds|pc|qc|q|p|ab|plain|native|contrast)?ct(?:a|p|v|pa|ca|ac|scan|abd)?\d*$"
)
_KINDS = {
    "CT": "tomodensitometry tomodensitometrie tdm tac computertomographie computertomografie computertomogramm "
    "hounsfield hu dvt dynact xperct conebeam",
    "MR": "mr mri mra mrv mrcp nmr fmri cmr cmri mrt irm rm magnetic kernspin kernspintomographie magnetresonanz "
    "magnetresonanztomographie magnetique magnetica",
    "US": "us usg ultrasound ultrasonography sonography sonogram tte tee ivus echocardiography doppler bmode trus ceus "
    "sonographie ultraschall echographie ecografia",
    "PT": "pt pet tep fdg suv psma dotatate dotatoc dotanoc fapi florbetapir florbetaben flutemetamol fluciclovine",
    "NM": "nm spect scintigraphy szintigraphie szintigrafie scintigraphie",
    "XR": "xr xray cr dx cxr mg radiograph radiography rx mammo mammogram mammography fluoroscopy xa angiogram dsa "
    "rontgen roentgen radiographie radiografia mammographie",
    "photo": "photo photos photograph photographs rgb rgba bgr bgra hsv ycbcr cmyk colour color picture camera foto "
    "fotos",
    "OCT": "oct octa",
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words.split()}
_PHOTOS = {
    "autofluorescence": "autofluorescence faf", "infrared": "infrared nir", "narrow band": "nbi",
    "dermoscopy": "dermoscopy dermoscopic dermatoscopy skin",
    "endoscopy": "endoscopy endoscopic colonoscopy gastroscopy wli endoskopie",
    "fundus": "fundus retina retinal cfp", "histology": "histology histopathology pathology wsi microscopy",
}  # fmt: skip
# beside the kind; without any, a PET is of any tracer, and a CT, an OCT or an ultrasound is the usual one
_VARIANTS = {
    "PT": {
        "FDG": r"(?:18f|f18|f)?fdg", "PSMA": r"(?:rh)?psma\d*|dcfpyl", "SSTR": r"dota(?:tate|toc|noc)|sstr",
        "amyloid": r"amyloid|florbeta\w+|flutemetamol|pib", "tau": r"tau|flortaucipir",
        "FET": r"fet", "FAPI": r"fapi\d*",
        "DOPA": r"f?dopa", "NaF": r"naf", "FLT": r"flt", "choline": r"(?:fluoro)?choline?",
        "fluciclovine": r"fluciclovine",
        "methionine": r"met|methionine",
    },
    "CT": {"iodine": r"iodine|iod|iode", "perfusion map": r"r?cb[fv]|mtt|tmax|ttp"},
    "OCT": {"angiography": r"octa|angiography"},
    "XR": {"mammography": r"mammo\w*|mg", "chest": r"cxr|chest|thorax", "angiography": r"dsa|angiogra\w+|xa"},
    "US": {"doppler": r"doppler", "elastography": r"elastography|swe"},
}  # fmt: skip
_LOW_B = 200
_ORDERS = {"rgb", "bgr", "hsv", "lab", "ycbcr", "cmyk"}
_COLOURS = {"red": "red", "green": "green", "blue": "blue", "r": "red", "g": "green", "b": "blue"}
# the first that is found names a sequence of MR; "T2 FLAIR" is a FLAIR
_SEQUENCES = (
    ("FLAIR", r"flair|t2f|fl"), ("ADC", r"adc"), ("DWI", r"dwi|dw|hbv|diffusion|trace|dti|b\d{2,4}"),
    ("LGE", r"lge|de|delayed|psir"), ("cine", r"cine|b?ssfp|fiesta|truefisp|trufi"),
    ("SWI", r"swi|swan|t2star\w*|gre"), ("DCE", r"dce"), ("perfusion", r"dsc|asl|pwi"), ("STIR", r"stir|tirm"),
    ("MRA", r"mra|tof|mrv"), ("MRCP", r"mrcp"), ("T1rho", r"t1r(?:ho)?"),
    ("T1c", r"t1w?i?(?:c|ce|gd|km|post|plusc)\w*|c?et1w?|t1k"),
    ("T1", r"t1w?i?\d?|t1n\w*|t1pre|mprage|vibe|lava|spgr|bravo"), ("T2", r"t2w?i?\d?|t2n|haste|ssfse"),
    ("PD", r"pdw?i?|proton"),
)  # fmt: skip
_CERTAIN = ("DE", "DELAYED", "GRE", "FL", "DW")  # short words that mean a sequence only beside others that say MR
_CONTRAST = {"c", "ce", "gd", "post", "contrast", "enhanced", "km", "gadolinium", "postcontrast", "plusc",
             "injecte", "injectee", "kontrastmittel"}  # fmt: skip
_PLAIN = {"non", "no", "pre", "without", "native", "unenhanced", "precontrast", "nc", "ohne",
          "sans", "nativ", "natif", "natives", "nativer"}  # fmt: skip

_SPELT_OUT = {
    r"computed[\s_-]tomography": "ct", r"positron[\s_-]emission[\s_-]tomography": "pet",
    r"optical[\s_-]coherence[\s_-]tomography": "oct", r"(?<![a-z])b[\s_-]mode": "bmode",
    r"tomografia[\s_-](?:computari[sz]ada|computerizzata)": "ct", r"computer[\s_-]tomogra(?:ph|f)ie": "ct",
    r"tomographie[\s_-]par[\s_-]emission[\s_-]de[\s_-]positons": "pet", r"(t[12])w?flair": r"\1 flair",
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
    *("gewichtet", "wichtung", "pondere", "ponderee", "aufnahme", "bild", "mit", "avec"),
}
_DETAILS = {
    **dict.fromkeys(_PLAIN | {"noncontrast", "plain", "nonenhanced"}, "pre"),
    **dict.fromkeys(_CONTRAST, "post"), **dict.fromkeys(("art", "early", "arteriell", "arterielle"), "arterial"),
    **dict.fromkeys((
        "venous", "portalvenous", "pv", "pvp", "vein", "portalvenos", "venos", "portale", "veineux"), "portal"),
    **dict.fromkeys(("late", "delay", "excretory", "equilibrium", "spat", "tardif", "tardive"), "delayed"),
}  # fmt: skip


class Modality(NamedTuple):
    """What a name means.

    Args:
        kind: ``CT``, ``MR``, ``PT``, ``NM``, ``US``, ``XR``, ``OCT`` or ``photo``; empty when the name does not tell.
        sequence: of MR, such as ``T1``, ``T1c``, ``FLAIR``; of photographs what they show, or the colour; of PET the
            tracer; of CT, OCT and ultrasound what is not the usual one.
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
    """Whether a name means CT, with intensities in HU, and nothing else: no map of iodine or perfusion."""
    return meanings(name) == {Modality("CT")}


def of_dicom(tag: str, known: Iterable[str] = ()) -> str:
    """What DICOM's tag Modality says, as the name of a modality; empty when it tells nothing about intensities.

    A C-arm's cone-beam CT comes as ``XA``, as projections do: it is CBCT where a name says that cone-beam CT is meant.

    Args:
        tag: its value.
        known: names that it is compared with.
    """
    return "CBCT" if tag == "XA" and any(map(is_cone_beam, known)) else DICOM_KINDS.get(tag, "")


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

    Kinds are compared, and of MR the sequences where both tell one: T1 is not T2, and ``MR`` may be either; FDG is not
    PSMA, and ``PET`` may be of either tracer; a low b-value is no high one.

    Args:
        one: a name.
        other: another.
    """
    if plain(one) == plain(other):
        return True
    if all(len(b) == 1 for b in (_b_classes(one), _b_classes(other))) and _b_classes(one) != _b_classes(other):
        return False
    answers = {_same(a, b) for a in meanings(one) for b in meanings(other)}
    if not answers:
        return None
    return True if True in answers else None if None in answers else False


def _same(one: Modality, other: Modality) -> bool | None:
    if one.kind != other.kind:
        return False
    told = {one.sequence, other.sequence}
    if one.kind in ("CT", "OCT") or (one.kind == "PT" and "" not in told):
        return len(told) == 1
    if one.kind == "PT":
        return True
    if told & _ORDERS:
        return False if len(told & _ORDERS) > 1 else len(told) == 1 or None
    if one.sequence == other.sequence:
        return True if one.sequence or one.kind != "MR" else None
    colours = {m.sequence in _COLOURS.values() for m in (one, other)}
    if not one.sequence or not other.sequence or len(colours) > 1:
        return None
    return False


def _b_classes(name: str) -> set[bool]:
    """Whether the b-values that a name tells are low; those of one diffusion-weighted image are of one class."""
    return {int(word[1:]) < _LOW_B for word in details(name) if re.fullmatch(r"b\d+", word)}


def tracers(one: str, other: str) -> str:
    """The tracer that only one of two names of a PET tells; empty when both or none do.

    Args:
        one: a name.
        other: another.
    """
    told = [{m.sequence for m in meanings(n) if m.kind == "PT"} for n in (one, other)]
    return next(iter((told[0] | told[1]) - {""}), "") if all(told) and sum(t == {""} for t in told) == 1 else ""


def is_cone_beam(name: str) -> bool:
    """Whether a name tells cone-beam CT, whose HU are not those of a fan-beam CT."""
    words = set(_words(name))
    return bool(_CONE_BEAM & words) or {"cone", "beam"} <= words


def _words(name: str) -> list[str]:
    bare = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    text = re.sub(r"t2\s*\*", "t2star", bare.casefold())
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
    if "US" in kinds:
        kinds.discard("photo")  # "colour doppler"
    orders = _ORDERS & {w.removesuffix("a") for w in words}
    if kinds == {"photo"} and orders:
        return {Modality("photo", o) for o in orders}
    photo = next((kind for kind, known in _PHOTOS.items() if set(words) & set(known.split())), "")
    if photo and not kinds - {"photo"}:
        return {Modality("photo", photo)}
    sequence = _sequence(words, certain="MR" in kinds)
    if sequence and kinds <= {"MR", "US"}:  # an echo's number, a doppler of MR: the sequence decides
        return {Modality("MR", sequence)}
    return {Modality(k, sequence if k == "MR" else _variant(words, k)) for k in kinds}


def _variant(words: list[str], kind: str) -> str:
    known = _VARIANTS.get(kind, {})
    return next((v for v, pattern in known.items() if any(re.fullmatch(pattern, w) for w in words)), "")


def _sequence(words: list[str], *, certain: bool) -> str:
    if {"flair", "t1"} <= {re.sub(r"^t1w?i?$", "t1", w) for w in words}:
        words = [w for w in words if w != "flair"]  # T1 FLAIR is weighted by T1
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
