"""What a name says beside its words: their order, where that tells something, and signs that are no separators."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

from .modalities import Modality, meanings
from .name_words import FILLERS, PLACES, TIMES, is_contrast, told_of
from .name_words import words as spelt
from .vocabulary import CT_WORD, KIND_OF, is_sequence

__all__ = ["contrary_signs", "is_ordered", "joins", "listed", "marks", "several"]

_RELATING = (
    "to from on onto in into of for over under above below before after during then minus plus less not than vs versus "
    "per by between within against via using zu nach vor auf aus sur avant apres dans sans sobre antes despues prior"
)
_RELATIONS = set(_RELATING.split())
_BARE = {"ct", "mr", "pet", "spect", "us"}  # "PET-CT" is "CT-PET"
_PHASES = TIMES | {"venous", "delayedvenous", "latearterial", "earlyarterial", "portalvenous", "nephrographic", "early",
                   "corticomedullary", "hepatobiliary", "without", "contrast", "preop", "postop", "intraop",
                   "inphase", "outphase", "late", "baseline", "followup", "native", "lowdose", "fulldose"}  # fmt: skip
_DASHES = re.compile(r"[\u2010-\u2015\u2212\ufe63\uff0d]")
_UNITS = re.compile(r"s\s*/\s*mm\s*\^?2(?!\d)|(?<=m)\^(?=[23])")
_MINUS = re.compile(r"(?:^|[\s(\[=<>:,;])-\s*(?=\.?\d)(?!\d+d\b)")
_B_VALUE = re.compile(r"(?<![^\W_])b(?:[\s_-]*val(?:ue)?s?)?[\s=_:(\[-]*(?=\d)")
_SIGNS = re.compile(r"[^\w\s\-+/\\()\[\]{}.,;:|&'\"=#*\u00b7]")
_NUMBER = re.compile(r"(?<![^\W_])(?<!\d\.)\d+(?:\.\d+)?(?!d\b)")
_JOINS = re.compile(r"(?<=\s)-(?=\s)|[:/]")
_SIGNED = re.compile(r"([+-])[\s(]*([^\W_]+)")


def marks(name: str) -> tuple[str, ...]:
    """The signs of a name that separate nothing, in order: ``<``, ``>``, ``?``, and a minus before a number.

    Args:
        name: of a channel or a modality, or one image of it.
    """
    text = _B_VALUE.sub("b", _UNITS.sub(" ", _text(name)))
    return (*_SIGNS.findall(text), *("-" for _ in _MINUS.findall(text)))


def joins(name: str) -> tuple[str, ...]:
    """The signs between a name's words that may tell a relation, in order: a dash by itself, ``:``, ``/``.

    Args:
        name: of one image.
    """
    return tuple(_JOINS.findall(_UNITS.sub(" ", _text(name)).strip(" -:/")))


def contrary_signs(one: str, other: str) -> bool:
    """Whether a word has a plus before it in one name, and a minus in the other: ``T1+C`` and ``T1-C``.

    Args:
        one: a name.
        other: another.
    """
    if all(set(re.findall(r"[^\W_]+", _text(n))) <= _BARE for n in (one, other)):
        return False
    found = [{sign: {w for s, w in _SIGNED.findall(_text(n)) if s == sign} for sign in "+-"} for n in (one, other)]
    return bool(found[0]["+"] & found[1]["-"] or found[0]["-"] & found[1]["+"])


@cache
def is_ordered(name: str, words: tuple[str, ...]) -> bool:
    """Whether the order of a name's words tells something: it relates two things, or has two words of one class.

    Args:
        name: of one image.
        words: its words, each in the spelling in which names are compared.
    """
    if set(words) <= _BARE and not marks(name):
        return False
    related = _RELATIONS.intersection(words) or "in" in spelt(name)[:-1]  # at the end it is a phase
    return bool(related or several(name, words))


def several(name: str, words: Sequence[str]) -> frozenset[str]:
    """The classes of which a name has two words: ``kinds``, ``sequences``, ``phases``, ``b-values``, ....

    Args:
        name: of one image.
        words: its words.
    """
    known = set(words)
    b_values = {w for w in known if re.fullmatch(r"b\d+", w)}
    found = {
        "kinds": {m.kind for m in meanings(name)},
        "sequences": {w for w in known - b_values if is_sequence(w)},
        "phases": {w for w in known if w in _PHASES or told_of(w) in TIMES},
        "b-values": b_values,
        "sides": known & {"left", "right"},
        "numbers": set(_NUMBER.findall(_B_VALUE.sub("b", _UNITS.sub(" ", _text(name))))),
        "unknown": {w for w in known if not _is_known(w)},
    }
    return frozenset(name for name, group in found.items() if len(group) > 1)


def listed(parts: Sequence[str]) -> bool:
    """Whether parts that commas separate are images of their own, each of which says what it is.

    Args:
        parts: of a name.
    """
    return sum(meanings(p) != frozenset[Modality]() for p in parts) > 1


def _is_known(word: str) -> bool:
    known = word in FILLERS | PLACES | _PHASES or told_of(word) != word or word in KIND_OF or is_contrast(word)
    return known or is_sequence(word) or bool(CT_WORD.match(word) or re.search(r"\d", word) or meanings(word))


def _text(name: str) -> str:
    return _DASHES.sub("-", unicodedata.normalize("NFKC", name)).casefold()
