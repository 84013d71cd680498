"""In which order a model's channels lie among the data's, by their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from .modalities import details, is_cone_beam, kind_of, meanings, same
from .name_words import TIMES, meant_together, plain

__all__ = ["closest", "contradict", "order_of", "other_phase"]

_VIEWS = (
    {"axial", "coronal", "sagittal"},
    {"ap", "pa", "lateral"},
    {"cc", "mlo"},
    {"left", "right"},
    {"sax", "lax", "2ch", "3ch", "4ch"},
)
_FAT = {"fatsat"}
_ENHANCED = TIMES - {"pre"}


def order_of(own: Sequence[str], given: Sequence[str]) -> tuple[int, ...] | None:
    """For each of the model's channels its place among the data's; None when they are others, or may be.

    Equal names come first and synonyms next; where several are of one kind, the words that remain (phase, b-value, with
    or without contrast) decide. A name that tells nothing is taken where it stands.

    Args:
        own: the model's names.
        given: the data's, as many.
    """
    own, given = meant_together(own), meant_together(given)
    numbers = range(len(own))
    chosen = _settled({i: [j for j in numbers if _equal(own[i], given[j])] for i in numbers}, {})
    rest = [i for i in numbers if i not in chosen]
    free = [j for j in numbers if j not in chosen.values()]
    alike = {i: [j for j in free if same(own[i], given[j])] for i in rest}
    rivals = {i for i in rest if len(alike[i]) > 1 or any(same(own[i], own[j]) for j in numbers if j != i)}
    places = {i: _closest(own[i], given, p) if i in rivals else p for i, p in alike.items()}
    if any(alike[i] and not places[i] for i in rest):
        return None
    chosen = _settled(places, chosen, [j for j in free if not _tells(given[j])])
    for i in rest:
        if i in chosen:
            continue
        if i in chosen.values() or alike[i] or same(own[i], given[i]) is False:
            return None  # another's place, or one of several that nothing tells apart
        chosen[i] = i
    return tuple(chosen[i] for i in numbers)


def _settled(
    places: dict[int, list[int]], chosen: dict[int, int], silent: Collection[int] | None = None
) -> dict[int, int]:
    """What is chosen when each takes its only free place; of several that are alike each takes where it stands.

    Args:
        places: where each can be.
        chosen: what is chosen already.
        silent: the places whose names tell no more than their kind; all are taken for such when None.
    """
    chosen = dict(chosen)
    while True:
        open_ = {i: [j for j in p if j not in chosen.values()] for i, p in places.items() if i not in chosen}
        single = next((i for i, p in open_.items() if len(p) == 1), None)
        if single is not None:
            chosen[single] = open_[single][0]
            continue
        straight = next((i for i, p in open_.items() if i in p and (silent is None or set(p) <= set(silent))), None)
        first = next((i for i, p in open_.items() if p), None) if silent is None else None
        if straight is not None:
            chosen[straight] = straight
        elif first is not None:
            chosen[first] = open_[first][0]
        else:
            return chosen


def _closest(name: str, given: Sequence[str], places: list[int]) -> list[int]:
    """Of some places those whose names say the same as a name beside the kind, or else nothing to the contrary."""
    words = details(name)
    equal = [j for j in places if words and details(given[j]) == words]
    return equal or [j for j in places if not _contrary(words, details(given[j]))]


def closest(name: str, names: Sequence[str]) -> list[str]:
    """Of names that mean the same as a name those whose remaining words are nearest to its own.

    Equal words come first, then those with most words in common that say nothing to the contrary; all where nothing
    tells them apart.

    Args:
        name: the data's.
        names: the model's, each surely of the same kind and sequence.
    """
    said = details(name)
    equal = [n for n in names if details(n) == said]
    if equal:
        return equal
    alike = [n for n in names if not _contrary(_timed(details(n)), _timed(said))] or list(names)
    most = max((len(details(n) & said) for n in alike), default=0)
    return [n for n in alike if len(details(n) & said) == most]


def _contrary(one: frozenset[str], other: frozenset[str]) -> bool:
    times = (one & TIMES, other & TIMES)
    if all(times):
        return times[0] != times[1] and not (times[0] | times[1] <= _ENHANCED and {"post"} in times)
    told = ({w for w in one if not w.isdigit()}, {w for w in other if not w.isdigit()})
    return all(told) and not told[0] & told[1]


def other_phase(one: str, other: str) -> bool:
    """Whether two names surely tell another phase, use of contrast, b-value or view, or one suppresses fat.

    Args:
        one: a name; of several in one, joined by `` | ``, none may fit.
        other: another.
    """
    return all(_other(name, other) for name in one.split(" | "))


def contradict(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two lists of names cannot both be those of the same channels; a single name may be that of all.

    Args:
        one: names, in order.
        other: the same channels' by another description, in order.
    """
    if min(len(one), len(other)) == 1 < max(len(one), len(other)):  # "MR" of T1 and FLAIR
        kinds = [set[str]().union(*({m.kind for m in meanings(n)} for n in names)) for names in (one, other)]
        return all(kinds) and not kinds[0] & kinds[1]
    pairs = zip(meant_together(one), meant_together(other), strict=False)
    return len(one) != len(other) or any(
        plain(a) != plain(b) and (same(a, b) is False or other_phase(a, b)) for a, b in pairs
    )


def _other(one: str, other: str) -> bool:
    own, given = details(one), details(other)
    views = any(own & v and given & v and not own & given & v for v in _VIEWS)
    mr = all(any(m.kind == "MR" and m.sequence for m in meanings(n)) for n in (one, other))
    fat = mr and bool(own & _FAT) != bool(given & _FAT)
    beams = kind_of(one) == kind_of(other) == "CT" and is_cone_beam(one) != is_cone_beam(other)
    return _contrary(_timed(own), _timed(given)) or views or fat or beams


def _timed(words: frozenset[str]) -> frozenset[str]:
    return frozenset(w for w in words if w in TIMES or re.fullmatch(r"b\d+", w))


def _tells(name: str) -> bool:
    return any(not w.isdigit() for w in details(name))


def _equal(one: str, other: str) -> bool:
    return plain(other) in {plain(o) for o in one.split(" | ")}
