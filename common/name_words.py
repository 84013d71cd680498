"""The words of a channel's or modality's name: spellings made alike, and which words say nothing of intensities."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

__all__ = ["FILLERS", "NORMALISATIONS", "PLACES", "PLAIN", "TIMES", "is_contrast", "is_placeholder", "meant_together",
           "plain", "told_of", "words"]  # fmt: skip

_WITH_CONTRAST = (
    "c ce gd post contrast contraste contrasto kontrast enhanced km kontrastmittel postcontrast plusc injecte injectee "
    "ethrive eob"
)
_CONTRAST = set(_WITH_CONTRAST.split())
_AGENT = re.compile(
    r"(?:post)?gado?\w*|gd\w*|(?:prim|eo|magne|gado|resov|abla)\w*vist|dotarem|clariscan|prohance|omniscan|multihance|"
    r"vueway|elucirem|artirem|optimark|postkm|postce|postcontrast\w*|postgd\w*"
)
_WITHOUT = (
    "non no pre without native unenhanced precontrast nc ohne sans nativ natif natives nativer sem senza sin "
    "noncontrast plain nonenhanced minusc"
)
PLAIN = set(_WITHOUT.split())
# Words that say: without contrast.
_SILENT = (
    "image images scan scans phase series sequence channel weighted w of map maps mapping gewichtet wichtung "
    "pondere ponderee aufnahme bild mit avec with and the in for de del da do du des la le el en et und von "
    "con com volume volumes slice slices raw data dataset original full res resampled registered corrected "
    "routine standard diagnostic clinical medical exam examination study imaging acquisition modality thin iso "
    "isotropic lowdose ultralowdose normaldose fulldose highdose reduceddose quarterdose standarddose patient digital "
    "tse fse"
)
FILLERS = set(_SILENT.split())
# Words that order no channels; a name that has one more than another is no synonym of it, see :mod:`.synonyms`.
_ANY = (
    "anything any img imgs im pic data input inputs modality mod mode channel channels chan ch unknown unnamed "
    "untitled none null nil na n nan other others misc test train sample case cases file files nii nifti dicom "
    "dcm vol array tensor main default primary single first second multi source src target 2d 3d 4d signal "
    "intensity intensities gray grey grayscale greyscale imagen imagem bilde beeld immagine obraz"
)
_PLACEHOLDERS = set(_ANY.split())
NORMALISATIONS = {
    "zscore",
    "nonorm",
    "nonormalization",
    "rescaleto01",
    "rgbto01",
    "rescale0to1",
    "globalzscore",
    "znorm",
}
# nnU-Net's normalisations, which earlier versions of it want as names of channels.
# Words that are no name of an image; as parts of one they may say something.
_WHERE = (
    "axial coronal sagittal ax cor sag tra transversal transverse abdomen abdominal abdome abdominale pelvis pelvic "
    "thorax thoracic chest lung lungs pulmonary liver hepatic kidney renal heart cardiac brain head neck hn prostate "
    "pancreas spleen spine lumbar cervical breast knee hip shoulder bladder colon rectum rectal aorta body whole wb "
    "corazon coracao higado prostata craneo torax foie rein poumon leber niere lunge gehirn kopf hals herz becken "
    "fatsat sax lax 2ch 3ch 4ch ap pa lateral cc mlo left right "
    "18f f18 68ga ga68 64cu cu64 11c c11"
)
PLACES = set(_WHERE.split())
# Places, planes, views, isotopes: one more makes no other kind, two that differ are worth a word.
TIMES = {"pre", "post", "arterial", "portal", "delayed"}
_FAT = (
    "fs",
    "fatsat",
    "fatsuppressed",
    "spair",
    "spir",
    "sat",
    "suppressed",
    "suppression",
    "saturated",
    "fatsuppression",
)
_TOLD = {
    **dict.fromkeys(PLAIN, "pre"), **dict.fromkeys((
        "art", "early", "arteriell", "arterielle", "hap", "latearterial", "earlyarterial", "spatarterial"), "arterial"),
    **dict.fromkeys((
        "venous", "portalvenous", "pv", "pvp", "portalvenos", "venos", "portale", "veineux", "portovenous"), "portal"),
    **dict.fromkeys((
        "late", "delay", "delayedvenous", "excretory", "equilibrium", "spat", "tardif", "tardive"), "delayed"),
    **dict.fromkeys(_FAT, "fatsat"),
    **dict.fromkeys(("cxr", "thorax", "thoracic"), "chest"),
    **dict.fromkeys(("hbv", "highb"), "highb"),
    **dict.fromkeys(("a2c",), "2ch"), **dict.fromkeys(("a3c",), "3ch"), **dict.fromkeys(("a4c",), "4ch"),
    **dict.fromkeys(("sa", "shortaxis"), "sax"), **dict.fromkeys(("la", "longaxis"), "lax"),
    **dict.fromkeys(("abdominal", "abdome", "abdominale"), "abdomen"), "pelvic": "pelvis", "pulmonary": "lung",
    "lungs": "lung", "hepatic": "liver", "renal": "kidney", "cardiac": "heart", "rectal": "rectum", "ax": "axial",
    "cor": "coronal", "sag": "sagittal", "tra": "axial", "transversal": "axial", "transverse": "axial", "wb": "body",
    "mdixon": "dixon",
}  # fmt: skip
_SPELT_OUT = {
    r"(?<![a-z])(pre|post|intra)[\s_-]*op(?:erativ(?:e|ely)?)?(?![a-z])": r" \1op ",
    r"(?<![a-z])(in|ex)[\s_-]*(vivo|vitro|utero|situ)(?![a-z])": r" \1\2 ",
    r"(?<![a-z])(late|early|spat)[\s_-]*arteri(?:al|ell)e?(?![a-z])": r" \1arterial ",
    r"(?<![a-z])(?:delayed|late)[\s_-]*venous(?![a-z])": " delayedvenous ",
    r"(?<![a-z])port(?:al|o)[\s_-]*venous(?![a-z])": " portalvenous ",
    r"\b(?:w|with|mit|avec|con|com)\b[\s,/+-]*(?:or|oder|ou|o)\b[\s/&+-]*"
    r"(?:w/o(?:ut)?|wo|without|ohne|sans|sin|sem)\b|\+\s*/\s*-|\u00b1": " withorwithout ",
    r"\b(?:w|with|mit|avec|con|com)\b[\s,/&+-]*(?:(?:and|und|et|y|e)\b)?[\s/&+-]*"
    r"(?:w/o(?:ut)?|wo|without|ohne|sans|sin|sem)\b": " withandwithout ",
    r"(?<![a-z])pre[\s/+-]*(?:or|oder|ou)[\s/+-]*post(?![a-z])": " preorpost ",
    r"(?<![a-z])pre[\s/&+-]*(?:and|und|et)?[\s/&+-]*post(?![a-z])": " preandpost ",
    r"([a-z]+)-(?:free|frei|less)\b": r" without \1 ", r"\s-(?=(?:c|ce|km|gd|contrast)\b)": " without ",
    r"w/o(?:ut)?\b": "without ", r"\bw/(?=[\s)]|$)": "with ",
    r"(?<=\w)[\s_,(-]+(?:with|mit|avec|con|com)[\s)]*$": " contrast ",
    r"^(?=.*(?<![a-z])(?:ct|mri?|mrt)(?![a-z]))"
    r"(?!.*(?:t[12]|(?<![a-z])pd|flair|swi|dw|dixon))(.*[^\W_])[\s_-]+w$": r"\1 contrast",
    r"(?<![a-z])ct[\s_-]*angio(?:gra(?:phy|m|fie|phie|fia))?(?![a-z])|(?<![a-z])angio[\s_-]*ct(?![a-z])": "cta",
    r"(?<![\w.])(\d+(?:\.\d+)?)\s*(?:-|\.\.+|to|bis)\s*(\d+)(?!\w)": r" span\1to\2 ",
    r"(?<![a-z])ct[\s_-]*perfusion": "ctp",
    r"computed[\s_-]tomography": "ct", r"positron[\s_-]emission[\s_-]tomography": "pet",
    r"optical[\s_-]coherence[\s_-]tomography": "oct", r"(?<![a-z])b[\s_-]mode": "bmode",
    r"tomografia[\s_-](?:computari[sz]ada|computerizzata)": "ct", r"computer[\s_-]tomogra(?:ph|f)ie": "ct",
    r"tomographie[\s_-]par[\s_-]emission[\s_-]de[\s_-]positons": "pet", r"(t[12])w?flair": r"\1 flair",
    r"(?<![a-z])in[\s_-]*phase": "inphase", r"(?<![a-z])(?:out|opp|opposed)[\s_-]*(?:of[\s_-]*)?phase": "outphase",
    r"exponential[\s_-](?:adc|apparent[\s_-]diffusion[\s_-]coefficient)": "eadc",
    r"apparent[\s_-]diffusion[\s_-]coefficients?": "adc", r"fractional[\s_-]anisotropy": "dti fa",
    r"([mar])(?:ean|xial|adial)[\s_-]diffusivity": r"dti \1d", r"proton[\s_-]*density[\s_-]*fat[\s_-]*fraction": "pdff",
    r"fat[\s_-]*fraction": "fatfraction",
    r"virtual[\s_-](?:non|un)[\s_-]?(?:contrast|enhanced)": "vnc", r"electron[\s_-]*density": "electrondensity",
    r"effective[\s_-]atomic[\s_-]number": "zeff", r"z[\s_-]?eff(?![a-z])": "zeff",
    r"ultra[\s_-]?low[\s_-]*dose": "ultralowdose",
    r"(?<![a-z])(low|normal|full|high|reduced|quarter|standard)[\s_-]*dose": r"\1dose",
    r"(?<![a-z])short[\s_-]axis": "sax", r"(?<![a-z])long[\s_-]axis": "lax",
    r"apical[\s_-]*([234])[\s_-]*ch(?:amber)?s?(?![a-z])": r"a\1c",
    r"(?<!\d)([234])[\s_-]*ch(?:amber)?s?(?![a-z])": r"\1ch",
    r"(?<![a-z])low[\s_-]*b(?:[\s_-]*val(?:ue)?s?)?(?![a-z])": "lowb",
    r"(?<![a-z])high[\s_-]*b(?:[\s_-]*val(?:ue)?s?)?(?![a-z])": "highb",
    r"(?<![a-z])([kmg]?)bq\s*(?:/|\s*per\s*)?\s*(?:cc|ml|cm3|cm\^3)?(?![a-z])": r"\1bqml",
    r"(?<![a-z])g\s*/\s*(?:ml|cc|cm3|cm\^3)(?![a-z])": "gml", r"s\s*/\s*mm\s*\^?2(?!\d)": " ", r"%": " percent ",
    r"(?<![a-z])n/a(?![a-z])": "none", r"(?<![a-z])b[\s=_:-]*(\d+)\.(\d*[1-9])\d*": r" bfraction\1x\2 ",
    r"(?<![a-z])b(?:[\s_-]*val(?:ue)?s?)?[\s=_:(\[-]*0*(\d+)(?:\.0+)?(?!\.?\d|(?!s\b|maps?\b)[a-z])": r" b\1 ",
    r"(?<![a-z])(dwi|dw|diffusion|diff|tracew?)b?[\s=_-]*0*([1-9]\d{1,4})(?!\.?\d|\s*(?:mm|dir|t\b))": r"\1 b\2 ",
    r"[\u00d7\u00f7/]\s*(?=\d)": " times ", r"\+\s*(?=\d\d)": " plus ",
    r"4d[\s_-]*flow(?![a-z])": "4dflow", r"(?<![a-z])phase[\s_-]contrast(?!\s*microscop)(?![a-z])": "pcmri",
    r"maximum[\s_-]intensity[\s_-]projection": "mip", r"minimum[\s_-]intensity[\s_-]projection": "minip",
    r"(?<![a-z])non[\s_-]?con(?![a-z])": "noncontrast",
    r"fat[\s_-]*(?:sat|suppressed|suppression|saturated)(?![a-z])": "fatsat",
}  # fmt: skip
_SIGN = re.compile(
    r"\s*\(\s*([+-])\s*(?:(?:c|ce|km|kontrast|contrast|gd|gado?)\s*)?\)|(?<=[^\W_])([+-])(?=$|[\s,;|/)])|"
    r"\s+([+-])\s*$"
)
_WEIGHTED = re.compile(r"t[12]|flair|pd(?:w|$)|swi|dwi|adc")
_COLOURS = {"r": "red", "g": "green", "b": "blue"}


def words(name: str) -> list[str]:
    """The words of a name, in order, without case, accents and signs.

    Args:
        name: in any spelling.
    """
    return list(_words(name))


@lru_cache(maxsize=10_000)
def _words(name: str) -> tuple[str, ...]:
    bare = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    text = re.sub(r"(?<!t[12])\*(?=\d)", " times ", re.sub(r"t2\s*\*", "t2star", bare.casefold()))
    text = re.sub(r"(?<=[a-z0-9])\*", " star", text)
    text = re.sub(r"(?<=\d)['\u2032\u2019]", " prime", text)
    for long, short in _SPELT_OUT.items():
        text = re.sub(long, short, text)
    text = re.sub(r"(?<![a-z])x[\s_-]?ray", "xray", text)
    text = _SIGN.sub(lambda m: " plusc" if "+" in m[0] else " minusc", text)
    return tuple(re.findall(r"[^\W_]+", text))


def plain(name: str) -> str:
    """A name without case, spaces and signs: what ``T2 MR`` and ``t2-mr`` have in common."""
    return "".join(words(name))


def is_contrast(word: str) -> bool:
    """Whether a word says that contrast was given, by itself or by the name of an agent."""
    return word in _CONTRAST or bool(_AGENT.fullmatch(word))


def told_of(word: str) -> str:
    """A word of a phase, of contrast, a place or a view in one spelling; others as they are."""
    return "post" if is_contrast(word) else _TOLD.get(word, word)


def meant_together(names: Sequence[str]) -> tuple[str, ...]:
    """Channels as they are meant beside one another, where alone their names may mean anything, or something else.

    R, G and B are red, green and blue where all three are there; ``CT1``, HD-GLIO's T1 with contrast, is ``T1c`` beside
    a weighting of MR.

    Args:
        names: of the channels of one scan or picture.
    """
    letters = {n.strip().casefold() for n in names}
    known = _COLOURS if set(_COLOURS) <= letters else {}
    if any(_WEIGHTED.match(plain(n)) for n in names):
        known = {**known, "ct1": "T1c"}
    return tuple(known.get(n.strip().casefold(), n) for n in names)


def is_placeholder(name: str) -> bool:
    """Whether a name tells nothing of what an image is, however often it is met: ``image``, ``channel_1``, ``0000``.

    Args:
        name: of a channel or a modality.
    """
    found = words(name)
    if "".join(found) in NORMALISATIONS:
        return True
    known = FILLERS | PLACES | _PLACEHOLDERS | {""}
    return all({w, w.rstrip("0123456789")} & known or re.fullmatch(r"[a-z]\d+", w) for w in found)
