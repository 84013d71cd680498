"""What a user should know where a name is taken for another: whatever is not surely the same is worth a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from .channel_order import order_of, other_phase
from .modalities import Modality, details, meanings, same, tracers
from .name_words import NORMALISATIONS, PLACES, TIMES, is_placeholder, meant_together, plain, words
from .synonyms import KINDS, said, says_same

__all__ = ["remark", "remarks", "taught_elsewhere"]

_GENERAL = ("XR", "US", "photo", "NM", "OCT")


def remark(own: str, given: str) -> str:
    """What a user should know of a channel that is taken for one of a model's; empty when both names say the same.

    Names that differ in order, case and signs alone, and true synonyms (:data:`.synonyms.SYNONYMS`), say the same.
    Everything else is told: that two words are of one class, or known to be harmless, makes them no one thing.

    Args:
        own: the model's name; several that are one channel of it are joined by `` | ``.
        given: the data's name.
    """
    parts = own.split(" | ")
    fitting = [part for part in parts if same(part, given) is not False] or parts
    told = [_remark(part, given) for part in fitting]
    return "" if "" in told or (says_same(own, given) and not _is_empty(own)) else told[0]


def remarks(name: str, own: Sequence[str], given: Sequence[str] | None, modality: str) -> list[str]:
    """What a user should know of names that are taken for the model's: each channel, then what else the names say.

    Args:
        name: the model's modality.
        own: its channels.
        given: the data's in the model's order; None when nobody knows them.
        modality: what the data call themselves; empty when nobody knows it.
    """
    if not modality and given is None:
        return []
    equal = given is None and says_same(name, modality)
    alone = equal or (given is None and len(own) > 1)  # one name of several channels may leave some open
    more = sorted(_together("", own) - _together(modality, ())) if alone else []
    if more:
        return [f"{modality} is all that is said of the data, and the model's {name} is {', '.join(own)}: nobody says "
                f"whether they are {', '.join(more)}"]  # fmt: skip
    parts = tuple(part.strip() for part in re.split("[,+]", modality))
    if alone and len(parts) == len(own) > 1 and order_of(tuple(own), parts) not in (tuple(range(len(own))), None):
        return [f"the data are called {modality}, and the model reads {', '.join(own)} in this order: nobody says in "
                "which they lie"]  # fmt: skip
    whole = equal and _is_told(name, own)
    if len(own) == 1 and (modality or given is not None):
        channel = given[0] if given is not None else modality
        mine, other = own[0] if meanings(own[0]) else name, channel if meanings(channel) or not modality else modality
        told = "" if whole else remark(mine, other)
        found = [told] if told else []
    else:
        pairs = [] if given is None else zip(meant_together(own), meant_together(given), strict=True)
        found = [told for pair in pairs if (told := remark(*pair))]
    if found or whole:
        return found
    tracer = tracers(name, modality) if modality else ""
    if tracer and given is not None:
        return [_other_tracer(name, modality, tracer)]
    return _beside(name, own, given, modality)


def taught_elsewhere(
    own: Sequence[str], parts: Sequence[Mapping[str, Any]], given: Sequence[str] | None, modality: str
) -> str:
    """What to say where a modality was learned from other channels in other tasks, and not all was taught on these.

    Args:
        own: the modality's channels, of several tasks joined by `` | ``.
        parts: of the card: ``channels`` and the ``structures`` that were taught on them; empty in earlier cards.
        given: the data's channels in the model's order; None when nobody knows them.
        modality: what the data call themselves.
    """
    read = meant_together(given if given is not None else (modality,))
    if not parts:
        apart = [c for c in own if any(same(a, b) is False for a, b in combinations(c.split(" | "), 2))]
        return f"the model learned from {', '.join(apart)}, and its card does not say what on which" if apart else ""
    there = [(meant_together(p["channels"]), frozenset(p["structures"])) for p in parts]
    known = [(c, s) for c, s in there if len(c) == len(read)]
    here = [(c, s) for c, s in known if all(map(says_same, c, read))]
    here = here or [(c, s) for c, s in known if all(same(a, b) for a, b in zip(c, read, strict=True))]
    found = frozenset.intersection(*(s for _, s in here or there))
    left = sorted(frozenset[str]().union(*(s for _, s in there)) - found)
    if not left:
        return ""
    owners = "; ".join(f"{', '.join(c)}: {', '.join(sorted(s)) or 'nothing'}" for c, s in there)
    return f"nobody taught {', '.join(left)} on {', '.join(read) or 'all that this can be'}; taught on {owners}"


def _beside(name: str, own: Sequence[str], given: Sequence[str] | None, modality: str) -> list[str]:
    """What the names of the modality say beside the channels', where only one side says it."""
    told = remark(name, modality) if modality else ""
    given = own if given is None else given
    fitting = [_fitting(*pair) for pair in zip(own, given, strict=True)]
    kinds = {Modality(m.kind) for c in meant_together([*own, *given]) for m in meanings(c)}
    known = {w for w in KINDS if meanings(w) <= kinds}  # the kind, which the channels tell, too
    left = sorted((_together(_fitting(name, modality), fitting) ^ _together(modality, given)) - known)
    if left and told and meanings(name) and meanings(modality):
        return [told]
    if not left and told and said(name) == said(modality) and not says_same(name, modality):
        return [told]
    taken = f"{modality or ', '.join(given)} is taken for {name}"
    return [f"{taken}, and only one of these says {', '.join(left)}"] if left else []


def _fitting(own: str, given: str) -> str:
    """Of several names that are joined by `` | `` the one that says the same, all where none does."""
    return next((part for part in own.split(" | ") if says_same(part, given)), own)


def _together(name: str, channels: Sequence[str]) -> frozenset[str]:
    """The words of a modality and its channels; a placeholder's are none."""
    known = [c for c in meant_together(channels) if not _is_empty(c)]
    return frozenset[str]().union(*(part for n in (name, *known) if n for part in said(n)))


def _remark(own: str, given: str) -> str:
    if says_same(own, given):
        return "" if not _is_empty(own) else (
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
    if _timed(own, given):
        return f"{taken}: one of them tells a phase or contrast that the other may not have"
    mine, other = (frozenset[str]().union(*said(n)) for n in (own, given))
    left = sorted(mine ^ other)
    left = [w for w in left if w not in KINDS] or left
    if not left:
        return f"{taken}, though the order of their words, or a sign, is another: these may be two things"
    return f"{taken}, and only one of these names says {', '.join(left)}"


def _is_told(name: str, channels: Sequence[str]) -> bool:
    """Whether a modality's name that is met again tells something, be it a place where the channels tell the rest."""
    return not _is_empty(name) or (bool(PLACES.intersection(words(name))) and all(map(meanings, channels)))


def _is_empty(name: str) -> bool:
    """Whether a name tells nothing of what it is, or a normalisation only."""
    return is_placeholder(name) and (not meanings(name) or plain(name) in NORMALISATIONS)


def _other_tracer(own: str, given: str, tracer: str) -> str:
    return f"{given} is taken for {own}, nobody says whether both are {tracer}: another tracer shows other organs"


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
