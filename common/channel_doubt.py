"""What a user should know where a name is taken for another: whatever is not surely the same is worth a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile

from .channel_order import other_phase
from .modalities import Modality, details, meanings, quantities, same, tracers
from .name_words import PLACES, TIMES, is_placeholder, meant_together, plain, words
from .vocabulary import AXES, IN_PHASE, OUT_OF_PHASE, PHOTOS

__all__ = ["remark", "remarks"]

_USUAL = {"SUV", "magnitude", "in phase", "out of phase"}
_STEM = 5
_GENERAL = ("XR", "US", "photo", "NM", "OCT")
_MODES = {"doppler", "ivus", "tee", "tte", "trus", "ceus"}


def remark(own: str, given: str, *, tag: bool = False) -> str:
    """What a user should know of a channel that is taken for one of a model's; empty when both names say the same.

    Names that differ in order, case and signs alone, and known synonyms, say the same. A name that tells nothing, one
    that tells less than the model's, and words of one that the other lacks and that are not known to be harmless are
    told: the vocabulary need not be complete.

    Args:
        own: the model's name; several that are one channel of it are joined by `` | ``.
        given: the data's name.
        tag: whether DICOM's tag is all that is known, which never tells phase or contrast.
    """
    parts = own.split(" | ")
    fitting = [part for part in parts if same(part, given) is not False] or parts
    told = [_remark(part, given, tag) for part in fitting]
    return "" if "" in told or _kinds(own) == _kinds(given) != _kinds(parts[0]) else told[0]


def remarks(
    name: str, own: Sequence[str], given: Sequence[str] | None, modality: str, *, tag: bool = False
) -> list[str]:
    """What a user should know of names that are taken for the model's.

    Args:
        name: the model's modality.
        own: its channels.
        given: the data's in the model's order; None when nobody knows them.
        modality: what the data call themselves; empty when nobody knows it.
        tag: whether that is all that DICOM says.
    """
    if len(own) == 1 and modality:
        channel = given[0] if given is not None else modality
        mine, other = own[0] if meanings(own[0]) else name, channel if meanings(channel) else modality
        both = bool(meanings(name) and meanings(modality))
        said = remark(mine, other, tag=tag) or (remark(name, modality, tag=tag) if both else "")
        return [said] if said else []
    tracer = tracers(name, modality) if modality else ""
    if tracer and given is not None and not any(tracers(*pair) for pair in zip(own, given, strict=True)):
        return [_other_tracer(name, modality, tracer)]
    pairs = [] if given is None else zip(meant_together(own), meant_together(given), strict=True)
    return [said for pair in pairs if (said := remark(*pair, tag=tag))]


def _remark(own: str, given: str, tag: bool) -> str:
    if plain(own) == plain(given) or sorted(words(own)) == sorted(words(given)):
        return "" if meanings(own) or not is_placeholder(own) else (
            f"both are called {given}, which tells nothing of what it is: compare them yourself")  # fmt: skip
    taken = f"{given} is taken for {own}"
    silent = [name for name in (given, own) if not meanings(name)]
    if silent:
        return (
            f"{taken}, though {' and '.join(silent)} {'tell' if len(silent) > 1 else 'tells'} nothing of what it is: "
            "compare them yourself"
        )
    if tracer := tracers(own, given):
        return _other_tracer(own, given, tracer)
    if meanings(own) != meanings(given) and max(len(meanings(own)), len(meanings(given))) > 1:
        return f"{taken}, but one of these names can be several things"
    if other_phase(own, given):
        return f"{taken}: another phase, contrast, b-value or view than the model learned from"
    if _tells_less(own, given):
        return f"{taken}, nobody says whether it is that: one of these names tells more than the other"
    if not tag and _timed(own, given):
        return f"{taken}: one of them tells a phase or contrast that the other may not have"
    left = [*_of_one(own, given), *_left(own, given)]
    if left:
        return f"{taken}, and only one of these names says {', '.join(dict.fromkeys(left))}"
    return ""


def _other_tracer(own: str, given: str, tracer: str) -> str:
    return f"{given} is taken for {own}, nobody says whether both are {tracer}: another tracer shows other organs"


def _kinds(name: str) -> set[str]:
    return {m.kind for m in meanings(name)}


def _only(name: str) -> Modality:
    return next(iter(sorted(meanings(name))))


def _tells_less(own: str, given: str) -> bool:
    """Whether the data's name lacks the sequence or variant of the model's; of some kinds also the other way round."""
    if same(own, given) is not None:
        return False
    mine, other = _only(own), _only(given)
    if not mine.sequence and not other.sequence:
        return False
    return bool(mine.sequence and not other.sequence) or mine.kind in _GENERAL


def _timed(own: str, given: str) -> bool:
    """Whether the model's name tells a phase and the data's none; where contrast changes much also vice versa."""
    mine, other = details(own) & TIMES, details(given) & TIMES
    if _only(own).sequence == "T1c":
        mine, other = mine or frozenset({"post"}), other or frozenset({"post"})
    if _only(own).sequence or _only(own).kind not in ("CT", "MR"):
        return bool(mine - {"pre"}) != bool(other - {"pre"})
    return bool(mine) and not other


def _of_one(own: str, given: str) -> list[str]:
    """Kinds of numbers, low b-values and modes of ultrasound that one of the names tells alone."""
    found = [str(word) for a, b in zip(quantities(own), quantities(given), strict=True) if bool(a) != bool(b)
             for word in sorted(a | b) if word not in _USUAL]  # fmt: skip
    low = [{w for w in details(n) if w == "lowb" or re.fullmatch(r"b1?\d?\d", w)} for n in (own, given)]
    b_values = [{w for w in details(n) if re.fullmatch(r"b\d+", w)} for n in (own, given)]
    found += sorted(b_values[0] ^ b_values[1]) if all(b_values) else []
    modes = [details(n) & _MODES for n in (own, given)]
    found += sorted(low[0] | low[1]) if bool(low[0]) != bool(low[1]) else []
    return found + (sorted(modes[0] ^ modes[1]))


def _left(own: str, given: str) -> list[str]:
    """Words that only one has, when they are not known to be harmless, or when the other has some of its own, too."""
    mine, other = (_words(n) for n in (own, given))
    alone = [w for w in mine if not _has(other, w)], [w for w in other if not _has(mine, w)]
    if all(alone):
        return [*alone[0], *alone[1]]
    return [w for w in (*alone[0], *alone[1]) if w not in PLACES]


def _words(name: str) -> list[str]:
    silent = TIMES | IN_PHASE | OUT_OF_PHASE | {w for axis in AXES for w in axis}
    if _kinds(name) == {"photo"}:
        silent |= {w for known in PHOTOS.values() for w in known.split()} - {"skin"}
    diffusion = any(m.sequence in ("DWI", "b0") for m in meanings(name))
    index = r"000\d" if diffusion else r"0*\d"  # the 0 of "DWI 0" may be a b-value
    told = (w for w in sorted(details(name)) if w not in silent and not re.fullmatch(index, w))
    return [w for w in told if not re.fullmatch(r"b\d+|lowb|highb", w)]


def _has(names: list[str], word: str) -> bool:
    """Whether some word is this one, or has its first letters: ``nephrogenic`` and ``nephrographic``."""
    return any(n == word or _common(n, word) >= _STEM for n in names)


def _common(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
