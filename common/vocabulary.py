"""What the words of names mean: kinds, sequences, tracers and variants, and what the numbers of an image are."""

from __future__ import annotations

import re
from functools import cache

from .name_words import FILLERS, PLACES, PLAIN, is_contrast, words
from .negations import without_denied

__all__ = ["APART", "AXES", "CERTAIN", "COLOURS", "CT_WORD", "GRADIENT", "IN_PHASE", "KIND_OF", "LOW_B", "MR_WORDS",
           "ORDERS", "OUT_OF_PHASE", "PART_OF", "PERFUSION", "PHOTOS", "SEQUENCES", "TENSOR", "USUAL_CT", "VARIANTS",
           "WEIGHTINGS",
           "is_sequence", "split_words"]  # fmt: skip

CT_WORD = re.compile(
    r"(?:c|nc|nonc|ne|ue|ce|hr|ld|uld|cb|cc|4d|mv|kv|s|de|ds|pc|qc|q|p|ab|plain|native|contrast|md|ms|x|hrpq|kvcb|angio|uro|"
    r"entero|colono|cardio)?ct(?:a|p|v|pa|ca|ac|scan|abd)?\d*$"
)
USUAL_CT = {"ct", "ctscan", "ctabd", "hrct", "ldct", "uldct", "msct", "mdct", "kvct"}
# words for CT that say no more; any other, such as pCT or CTV, may be another kind of CT, or none
_KINDS = {
    "CT": "tomodensitometry tomodensitometrie tdm tac computertomographie computertomografie computertomogramm "
    "hounsfield hu dvt dynact xperct conebeam angiotc urotc tcmd",
    "MR": "mr mri mra mrv mrcp nmr fmri cmr cmri mrt irm rm magnetic kernspin kernspintomographie magnetresonanz "
    "magnetresonanztomographie magnetique magnetica rnm rmn mrs mrsi",
    "US": "us usg ultrasound ultrasonography sonography sonogram tte tee ivus echocardiography doppler bmode trus ceus "
    "bdus sonographie ultraschall echographie ecografia",
    "PT": "pt suvbw sul suvlbm suvr pet tep fdg suv psma dotatate dotatoc dotanoc fapi florbetapir florbetaben "
    "flutemetamol fluciclovine",
    "NM": "nm spect scintigraphy szintigraphie szintigrafie scintigraphie",
    "XR": "xr xray cr dx cxr mg radiograph radiography rx mammo mammogram mammography fluoroscopy xa angiogram dsa "
    "bmd dexa dxa rontgen roentgen radiographie radiografia mammographie tomosynthesis dbt",
    "photo": "photo photos photograph photographs rgb rgba bgr bgra hsv ycbcr cmyk colour color picture camera foto "
    "fotos",
    "OCT": "oct octa ivoct",
}
KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words.split()}
_WORDS_OF_MR = "dixon mdixon tse fse epi bold mtr mtc mton mtoff ciss ute zte qsm dess hbp eob fgre pdff fatfraction"
MR_WORDS = set(_WORDS_OF_MR.split())
PHOTOS = {
    "fluorescein": "fluorescein ffa icga indocyanine",
    "autofluorescence": "autofluorescence faf", "infrared": "infrared nir", "narrow band": "nbi",
    "dermoscopy": "dermoscopy dermoscopic dermatoscopy skin",
    "endoscopy": "endoscopy endoscopic colonoscopy gastroscopy wli endoskopie",
    "fundus": "fundus retina retinal cfp",
    "thermography": "thermography thermogram thermal", "diaphanography": "diaphanography",
    "histology": "histology histopathology pathology wsi microscopy",
}  # fmt: skip
# beside the kind; without any, a PET is of any tracer, and a CT, an OCT or an ultrasound is the usual one
VARIANTS = {
    "PT": {
        "FDG": r"(?:18f|f18|f)?fdg", "PSMA": r"(?:rh)?psma\d*|dcfpyl", "SSTR": r"dota(?:tate|toc|noc)|sstr",
        "amyloid": r"amyloid|florbeta\w+|flutemetamol|pib", "tau": r"tau|flortaucipir",
        "FET": r"fet", "FAPI": r"fapi\d*",
        "DOPA": r"f?dopa", "NaF": r"naf", "FLT": r"flt", "choline": r"(?:fluoro)?choline?",
        "fluciclovine": r"fluciclovine",
        "methionine": r"met|methionine",
    },
    "CT": {"iodine": r"iodine|iod|iode", "CBF": r"r?cbf", "CBV": r"r?cbv", "MTT": r"r?mtt", "Tmax": r"tmax",
           "TTP": r"r?ttp", "scout": r"scout|topogram|scanogram|locali[sz]er|surview", "sinogram": r"sinogram",
           "dose": r"(?:rt)?dose", "mask": r"mask|labelmap", "Zeff": r"zeff", "electron density": r"electrondensity"},
    "OCT": {"intravascular": r"ivoct|intravascular|intracoronary", "angiography": r"octa|angiography"},
    "XR": {"tomosynthesis": r"tomosynthesis|dbt",
           "mammography": r"mammo\w*|mg", "fluoroscopy": r"fluoroscop\w+",
           "dental": r"dental|intraoral|panoramic|orthopanto\w+|opg|bitewing", "bone density": r"bmd|dexa|dxa",
           "chest": r"cxr|chest|thorax", "angiography": r"dsa|angiogra\w+|xa"},
    "US": {"intravascular": r"ivus|intravascular|intracoronary", "bone density": r"bdus",
           "doppler": r"doppler", "elastography": r"elastography|swe"},
}  # fmt: skip
APART = {"intravascular", "bone density"}  # beside these no usual one of the kind is meant
LOW_B = 200
ORDERS = {"rgb", "bgr", "hsv", "lab", "ycbcr", "cmyk"}
COLOURS = {"red", "green", "blue"}
# a name of several is each of them, except for what is part of another: "T2 FLAIR" is a FLAIR
SEQUENCES = (
    *((m, rf"r?{m.casefold()}") for m in ("CBF", "CBV", "MTT", "Tmax", "TTP", "Ktrans", "kep")),
    ("FLAIR", r"flair|t2f|fl"), ("eADC", r"eadc"), ("ADC", r"d?adc"), ("FA", r"(?:col)?fa"), ("MD", r"md"),
    ("AD", r"ad"), ("RD", r"rd"), ("b0", r"b0"), ("DWI", r"dwi|dw|hbv|lowb|highb|diffusion|tracew?|dti|b\d{2,5}"),
    ("flow", r"pcmri|(?:4d)?flow"), ("LGE", r"lge|delayed|psir"), ("cine", r"cine|b?ssfp|fiesta|truefisp|trufi"),
    ("SWI", r"swi|swan|t2star\w*"), ("DCE", r"dce"), ("perfusion", r"dsc|asl|pwi"), ("STIR", r"stirw?|tirm"),
    ("MRA", r"mra|tof|mrv"), ("MRCP", r"mrcp"), ("T1rho", r"t1r(?:ho)?"),
    ("T1c", r"t1w?i?(?:cw?|cew?|gd\w*|gad\w*|km|post\w*|plusc|contrast\w*)\d*d?|c?et1w?|ct1w|t1k"),
    ("T1", r"t1w?i?\d?|t1n\w*|t1pre|mprage|vibe|lava|spgr|bravo"), ("T2", r"t2w?i?\d?|t2n|haste|ssfse"),
    ("PD", r"pdw?i?|proton"),
)  # fmt: skip
_OF_PERFUSION = ("perfusion", "DCE", "T1", "T2", "SWI")
_OF_DIFFUSION = ("DWI", "b0", "T2", "FA", "MD")
PART_OF: dict[str, tuple[str, ...]] = {
    "FLAIR": ("T2",), "STIR": ("T2", "PD"), "SWI": ("T2",), "LGE": ("T1", "T1c", "cine", "T2"), "cine": ("T1", "T2"),
    "DWI": ("T2",), "b0": ("T2",), "MRCP": ("T2",), "MRA": ("T1", "T1c"), "DCE": ("T1", "T1c"),
    "perfusion": ("T2", "SWI"), "T1rho": ("T1",), "flow": ("cine",), "PD": ("T1",),
    **dict.fromkeys(("ADC", "eADC", "AD", "RD"), _OF_DIFFUSION), **dict.fromkeys(("FA", "MD"), _OF_DIFFUSION[:3]),
    **dict.fromkeys(("CBF", "CBV", "MTT", "Tmax", "TTP", "Ktrans", "kep"), _OF_PERFUSION),
}  # fmt: skip
WEIGHTINGS = {"T1", "T1c", "T2", "FLAIR", "PD", "ADC"}
GRADIENT = {"gre", "ffe", "fgre", "medic", "merge"}
CERTAIN = (
    "DELAYED",
    "FL",
    "DW",
    "FA",
    "MD",
    "AD",
    "RD",
)  # short words that mean a sequence only beside others that say MR
PERFUSION = {"CBF", "CBV", "MTT", "Tmax", "TTP"}
TENSOR = {"dti", "dwi", "diffusion", "tensor", "dki", "map"}
IN_PHASE, OUT_OF_PHASE = {"in", "inphase", "ip", "inp"}, {"out", "outphase", "op", "oop", "opp", "opposed"}
AXES: tuple[dict[str, str], ...] = (
    {"water": "water", "fat": "fat", "pdff": "fat fraction", "fatfraction": "fat fraction",
     "inphase": "in phase", "outphase": "out of phase"},
    {"magnitude": "magnitude", "real": "real", "imaginary": "imaginary"},
    {"suv": "SUV", "suvbw": "SUV", "sul": "SUL", "suvlbm": "SUL", "suvr": "SUVR", "bqml": "Bq/ml", "kbqml": "kBq/ml",
     "mbqml": "MBq/ml", "gbqml": "GBq/ml", "gml": "SUV", "density": "density", "counts": "counts",
     "cps": "counts", "ki": "Ki", "sinogram": "sinogram", "mumap": "mu-map"},
    {"subtraction": "subtraction", "subtracted": "subtraction", "sub": "subtraction", "mip": "MIP", "minip": "MinIP",
     "projection": "projection", "vnc": "VNC", "reformat": "reformat", "sinogram": "sinogram"},
)  # fmt: skip
# Words for what the numbers of an image are; of one row two words are surely two things.
_GLUED = re.compile(r"(t[12])w?(?!eight|icht)(?=[a-z])(.{2,})|(hrct|msct|mdct|ct|mri|mr|flair|dwi|suv)([a-z]{2}.*)|"
                    r"(pd)(fs|spair|spir|fatsat|tse|fse|dixon)|"
                    r"(gado?|gd|ce|ax|axial|sag|cor|tra|pre|fs|native|postgado?)(t[12])w?")  # fmt: skip


@cache
def split_words(name: str) -> tuple[str, ...]:
    """The words of a name, what it denies taken together; of an unknown one, such as ``T2SPIR``, head and rest."""
    found: list[str] = []
    for word in without_denied(words(name)):
        glued = None if _is_known(word) else _GLUED.fullmatch(word)
        found += [word] if glued is None else [p for p in glued.groups() if p]
    return tuple(found)


def _is_known(word: str) -> bool:
    known = word in KIND_OF or word in MR_WORDS or word in FILLERS | PLACES | PLAIN or bool(CT_WORD.match(word))
    return known or is_sequence(word) or _is_agent(word) or any(word in axis for axis in AXES)


def _is_agent(word: str) -> bool:
    return is_contrast(word) and not re.search(r"t[12]w?$", word)  # "gadT1"


def is_sequence(word: str) -> bool:
    """Whether a word names a sequence of MR."""
    return any(re.fullmatch(pattern, word) for _, pattern in SEQUENCES)
