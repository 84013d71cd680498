"""Whether two names of structures are one but for their spelling, or but for a slip of a finger."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from ...name_words import plain

__all__ = ["alike", "groups", "nearly", "word_key"]

_SIDES = {"l": "left", "lt": "left", "r": "right", "rt": "right"}
_SPELLINGS = (("tumour", "tumor"), ("oesophag", "esophag"), ("oedema", "edema"), ("haem", "hem"), ("centre", "center"),
              ("kidnies", "kidney"), ("metastases", "metastasis"), ("arteries", "artery"),
              ("abnormalities", "abnormality"), ("anomalies", "anomaly"), ("thrombi", "thrombus"),
              ("calcified", "calcification"), ("ischaem", "ischem"), ("vertebrae", "vertebra"))  # fmt: skip
_SHORTEST = 4
_SLIP = 5  # letters of a word in which one that differs is rather a slip than another word
_OTHERS = {frozenset(pair.split()) for pair in (
    "ilium ileum", "anterior interior", "medial median", "basal nasal", "peroneal perineal", "facial fascial",
    "optic otic", "costal coastal", "atrial atria", "carpal tarsal", "nasal naval", "lumen lumens", "inner inter",
)}  # fmt: skip


def word_key(name: str) -> str:
    """What spellings of one name have in common: case, signs, order of words, side, plural, British or American.

    Args:
        name: of a structure.
    """
    return " ".join(sorted(_words(name)))


def alike(one: str, other: str) -> bool:
    """Whether two names differ in spelling alone: ``gall bladder``, ``Gallbladder``; ``kidney_left``, ``left kidneys``.

    Args:
        one: a name.
        other: another.
    """
    return bool(_spelt(one) & _spelt(other))


def groups(names: Iterable[str]) -> list[list[str]]:
    """Names that differ in spelling alone, together; each name is in one group.

    Args:
        names: of structures, each once.
    """
    found: dict[str, set[str]] = {}
    order = list(names)
    for name in order:
        joined = {name}.union(*(found[key] for key in _spelt(name) if key in found))
        found |= dict.fromkeys([key for n in joined for key in _spelt(n)], joined)
    together = {frozenset(found[word_key(name)]): None for name in order}
    return [[name for name in order if name in group] for group in together]


def nearly(one: str, other: str) -> bool:
    """Whether two names that are not alike differ in one letter of one word, or two that changed places: ``arota``.

    Words with digits, and those that are known for two (``ilium``, ``ileum``), are no slips.

    Args:
        one: a name.
        other: another.
    """
    first, second = _words(one), _words(other)
    if alike(one, other) or re.search(r"\d", one + other):
        return False
    if len(first) != len(second):
        return _slip("".join(first), "".join(second))
    left, right = list(first), list(second)
    for word in first:
        if word in right:
            left.remove(word)
            right.remove(word)
    return len(left) == 1 and _slip(left[0], right[0])


@cache
def _spelt(name: str) -> frozenset[str]:
    return frozenset((word_key(name), "".join(_words(name)), plain(name)))


@cache
def _words(name: str) -> tuple[str, ...]:
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()
    for other, own in _SPELLINGS:
        text = text.replace(other, own)
    return tuple(_singular(_SIDES.get(w, w)) for w in re.findall(r"[^\W_]+", text))


def _singular(word: str) -> str:
    plural = len(word) > _SHORTEST and word.endswith("s") and not word.endswith(("ss", "us", "is", "creas"))
    return word[:-1] if plural else word


def _slip(one: str, other: str) -> bool:
    """Whether one letter was left out, added or changed, or two neighbours changed places."""
    short, long = sorted((one, other), key=len)
    if len(short) < _SLIP or len(long) - len(short) > 1 or frozenset((one, other)) in _OTHERS:
        return False
    start = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) < len(long):
        return short[start:] == long[start + 1 :]
    swapped = short[:start] + short[start : start + 2][::-1] + short[start + 2 :]
    return long == swapped or short[start + 1 :] == long[start + 1 :]
