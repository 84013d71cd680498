"""What a name says that an image is *not*: ``T1 non FS``, ``ohne KM``, ``contrast: none``, each with what it denies."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .name_words import is_contrast, told_of

__all__ = ["NEGATORS", "without_denied"]

_DENYING = "non no not without ohne sans sem senza sin kein keine keinem zonder uden utan bez nicht pas"
NEGATORS = set(_DENYING.split())
_SHORT = {"wo"}  # a negator before contrast, or at the end
_BEHIND = NEGATORS | {"none", "off", "free", "nein", "false", "absent", "nil", "frei"}
_WITH = {"with", "w", "mit", "avec", "con", "and", "und", "et"}
_SMALL = (
    "iv intravenous intravenose intravenoser intraveineux intravenosa intravenoso i v any use d l the of de del da do "
    "du des la le el en in for"
)
_BETWEEN = set(_SMALL.split()) | _WITH
_CALLED = (
    "contraste contrasto kontrast kontrastmiddel injection injektion iniezione inyeccion injecao mdc pdc cm civ agent "
    "agents medium media enhancement injected produit mezzo produto medio"
)
_CALLED_ALONE = {"contrast", "kontrast", "contraste", "contrasto"}
_GIVEN = set(_CALLED.split())
_GLUED = re.compile(r"(non|no|ohne|sans|without|wo)([a-z]+)")


def without_denied(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a name after each negation was taken together with what it denies.

    Contrast that is denied is ``without``; suppression of fat that is denied is what images are without a word; of
    anything else ``non`` and the word become one word that nobody knows, as denying it says little.

    Args:
        words: of a name, in order.

    Returns:
        The words that remain.
    """
    left = [part for word in words for part in _parts(word)]
    found: list[str] = []
    while left:
        word = left.pop(0)
        if word == "0" and found and found[-1] in _CALLED_ALONE:
            word = "zero"  # "contrast 0": denied, or one of several
        if word == "minusc" and found and told_of(found[-1]) == "fatsat":
            found.pop()  # "FS-"
            continue
        behind = word in _BEHIND and (word not in NEGATORS or not left)
        if behind and found and _is_deniable(found[-1]):
            denied = found.pop()
        elif word in NEGATORS or (word in _SHORT and (not left or _is_given(left[0]))):
            denied = _taken(left)
        else:
            found.append(word)
            continue
        if not denied or _is_given(denied):
            found.append("without")
        elif told_of(denied) != "fatsat":
            found.append(f"non{denied}")
    return tuple(found)


def _taken(left: list[str]) -> str:
    """What is denied by the words that follow, which are taken off; empty where nothing follows that says anything."""
    small = 0
    while small < len(left) and left[small] in _BETWEEN and not _is_given(left[small]):
        small += 1
    if small == len(left):
        return ""
    denied = left[small]
    del left[: small + 1]
    while _is_given(denied):  # "contrast agent", "injection de produit de contraste"
        more = next((i for i, w in enumerate(left) if w not in _BETWEEN or _is_given(w)), len(left))
        if more == len(left) or not _is_given(left[more]) or any(w in _WITH for w in left[:more]):
            break
        del left[: more + 1]
    return denied


def _parts(word: str) -> list[str]:
    glued = _GLUED.fullmatch(word)
    return [glued[1], glued[2]] if glued and _is_deniable(glued[2]) and told_of(word) == word else [word]


def _is_deniable(word: str) -> bool:
    return _is_given(word) or told_of(word) == "fatsat"


def _is_given(word: str) -> bool:
    return is_contrast(word) or word in _GIVEN
