"""What DICOM's ImageType says of an image beyond its modality: a projection, a localizer, a map that was computed."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["image_words"]

_ORIGIN = 2  # original or derived, primary or secondary: these tell nothing of what it shows
_ANY = (("minIP", r"MINIP|MIN IP|MNIP"), ("MIP", r"MIP|MAX IP|MAXIP|PROJECTION IMAGE"),
        ("localizer", r"LOCALIZER|SCOUT|TOPOGRAM|SURVEY"))  # fmt: skip
_COMPUTED = (("subtraction", r"SUB|SUBTRACT|SUBTRACTION"), ("CBF", r"R?CBF|RELCBF"), ("CBV", r"R?CBV|RELCBV|CBVCORR"),
             ("MTT", r"R?MTT|RELMTT"), ("TTP", r"TTP"), ("Tmax", r"TMAX"))  # fmt: skip
_CT = (("iodine", r"IODINE|IODINEMAP"), ("VNC", r"VNC|VUE|VIRTUAL NON CONTRAST|MAT REMOVED"),
       ("monoenergetic", r"VMI|MONOENERGETIC|MONOCHROMATIC|MONO|MONOPLUS"),
       ("material map", r"MAT SPECIFIC|MAT FRACTIONAL|MAT VALUE BASED"), ("Zeff", r"ZEFF|EFF ATOMIC NUM|Z EFFECTIVE"),
       ("electron density", r"ELECTRON DENSITY"))  # fmt: skip
# of MR whole values: T2 may have images in phase, too, and these are no maps of phases
_MR = (("eADC", r"EADC(?: .*)?"), ("ADC", r"ADC(?: .*)?"), ("FA", r"FA|FA MAP|FRACTIONAL ANISOTROPY"),
       ("trace", r"TRACEW?"), ("water", r"WATER"), ("fat", r"FAT"), ("fat fraction map", r"FAT ?FRAC(?:TION)?|PDFF"),
       ("T1 map", r"T1 MAP"), ("T2 map", r"T2 MAP"), ("T2star map", r"T2 ?STAR MAP|R2 ?STAR(?: MAP)?"),
       ("B0 map", r"B0 MAP|FIELD MAP"), ("phase", r"PHASE|PHASE MAP"), ("velocity", r"VELOCITY(?: MAP)?|FLOW ENCODED"),
       ("subtraction", r"(?:MODULUS|PHASE) SUBTRACT"), ("Ktrans", r"K ?TRANS"))  # fmt: skip
_DIFFUSION = "DIFFUSION"
_LETTERS = {"P": "phase", "R": "real", "I": "imaginary", "W": "water", "F": "fat"}


def image_words(values: Sequence[str], kind: str) -> str:
    """The words for what an image is, as a channel's name would say them; empty of an ordinary one.

    Values that are not known tell nothing.

    Args:
        values: of ImageType.
        kind: DICOM's Modality: what ``P`` means is told of MR alone.
    """
    said = [re.sub(r"[\W_]+", " ", v.upper().replace("*", "STAR")).strip() for v in values[_ORIGIN:]]
    table = [*_ANY, *_COMPUTED, *(_CT if kind == "CT" else ())]
    whole = _MR if kind == "MR" else ()
    found = [next((w for w, pattern in table if _is_there(pattern, value)), "") for value in said]
    found += [next((w for w, pattern in whole if re.fullmatch(pattern, value)), "") for value in said]
    found += [_LETTERS.get(value, "") for value in said[:1] if kind == "MR"]
    found = [*dict.fromkeys(filter(None, found))]
    return " ".join(found) or ("DWI" if kind == "MR" and _DIFFUSION in said else "")


def _is_there(pattern: str, value: str) -> bool:
    """Whether a value has the words: ``DET_IODINE`` is iodine, and ``MIPS`` is nothing."""
    return re.search(rf"(?:^| )(?:{pattern})(?: |$)", value) is not None
