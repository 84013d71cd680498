"""Two descriptions of training data as one, of a model that learned from both: nothing that one says is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..name_words import plain
from ..synonyms import says_same

__all__ = ["merged"]


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Two descriptions as one: what both say of a modality is united, see :func:`_united`.

    A modality that has another number of channels, or dimensions, in the two cannot be united: the first's is kept
    under its name with its channels.

    Args:
        one: what :func:`.survey.survey` found.
        other: likewise, of what was learned from later.
    """
    first, second = dict(one.get("modalities", {})), dict(other.get("modalities", {}))
    before, taught = dict(one.get("taught", {})), {}
    renamed = {n: _apart(n, first[n]) for n in first.keys() & second.keys() if not _alike(first[n], second[n])}
    first = {renamed.get(n, n): entry for n, entry in first.items()}
    before = {renamed.get(n, n): names for n, names in before.items()}
    for name in [*before, *other.get("taught", {})]:
        taught[name] = list(dict.fromkeys([*before.get(name, ()), *other.get("taught", {}).get(name, ())]))
    modalities = {**first, **second}
    again = _same_cases(one, other)
    for name in first.keys() & second.keys():
        modalities[name] = _united(first[name], second[name], again=again)
        parts = _taught_apart(first[name], second[name], before.get(name), other.get("taught", {}).get(name))
        modalities[name] |= {"taught": parts} if parts else {}
    later = list(other.get("data", ()))
    data = [*(d for d in one.get("data", ()) if not any(_holds(o, d) for o in later)), *later]
    ignored = list(dict.fromkeys([*one.get("ignored", ()), *other.get("ignored", ())]))
    return {"format": other.get("format", one.get("format", 1)), "modalities": modalities, "taught": taught,
            "data": data, **({"ignored": ignored} if "ignored" in {*one, *other} else {})}  # fmt: skip


def _apart(name: str, entry: Mapping[str, Any]) -> str:
    return f"{name} ({', '.join(map(str, entry.get('channels', ())))})"


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    widths = [len(e.get("channels", ())) for e in (one, other)]
    return widths[0] == widths[1] and one.get("dim") == other.get("dim")


def _united(one: Mapping[str, Any], other: Mapping[str, Any], *, again: bool) -> dict[str, Any]:
    """What both say of one modality: all names of each channel, the wider of two ranges, numbers added.

    Args:
        one: the first's entry.
        other: the second's.
        again: whether both are of the same cases, which are counted once.
    """
    pairs = zip(one.get("channels", ()), other.get("channels", ()), strict=True)
    channels = [_joined(*pair) for pair in pairs]
    weights = [float(e.get("scans") or 0) for e in (one, other)]
    found: dict[str, Any] = {**one, **other, "channels": channels}
    found |= {k: _count(one[k], other[k], again) for k in ("cases", "scans") if k in one and k in other}
    stored = [e.get("intensities") for e in (one, other)]
    if all(stored):
        found["intensities"] = [_range(a, b, weights) for a, b in zip(*stored, strict=True)]
    if "spacing" in one and "spacing" in other:
        found["spacing"] = _spacing(one["spacing"], other["spacing"], weights)
    if "orientation" in one and "orientation" in other:
        codes = sorted({*one["orientation"], *other["orientation"]})
        found["orientation"] = {
            c: _count(one["orientation"].get(c, 0), other["orientation"].get(c, 0), again) for c in codes
        }
    return found


def _count(one: int, other: int, again: bool) -> int:
    return max(one, other) if again else one + other


def _joined(one: str, other: str) -> str:
    found: list[str] = []
    for name in [*one.split(" | "), *other.split(" | ")]:
        if not any(plain(name) == plain(n) and says_same(name, n) for n in found):
            found.append(name)
    return " | ".join(found)


def _range(one: Any, other: Any, weights: Sequence[float]) -> Any:
    """Of one channel; of the percentiles of all voxels the outer ones are the wider, as the voxels are gone."""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return one or other
    found: dict[str, Any] = {**one, **other}
    both = one.keys() & other.keys()
    found |= {k: min(one[k], other[k]) for k in both & {"min", "percentile_00_5"}}
    found |= {k: max(one[k], other[k]) for k in both & {"max", "percentile_99_5"}}
    found |= {k: [min(one[k][0], other[k][0]), max(one[k][1], other[k][1])] for k in both & {"lows", "highs"}}
    share = weights[0] / sum(weights) if sum(weights) else 0.5
    mean = {k: share * one[k] + (1 - share) * other[k] for k in both & {"mean", "percentile_50"}}
    if {"mean", "std"} <= both:
        square = share * (one["std"] ** 2 + one["mean"] ** 2) + (1 - share) * (other["std"] ** 2 + other["mean"] ** 2)
        mean["std"] = math.sqrt(max(square - mean["mean"] ** 2, 0.0))
    return found | {k: float(f"{v:.6g}") for k, v in mean.items()}


def _spacing(one: Mapping[str, Any], other: Mapping[str, Any], weights: Sequence[float]) -> dict[str, Any]:
    nearer = one if weights[0] > weights[1] else other
    found = {**one, **other, "median": nearer.get("median")}
    for key, outer in (("lowest", min), ("highest", max)):
        if key in one and key in other:
            found[key] = [outer(a, b) for a, b in zip(one[key], other[key], strict=True)]
    return found


def _taught_apart(
    one: Mapping[str, Any], other: Mapping[str, Any], first: Sequence[str] | None, second: Sequence[str] | None
) -> list[dict[str, Any]]:
    """Which structures were taught on which channels, where these are not the same everywhere."""
    if first is None and second is None:
        return []
    parts: list[dict[str, Any]] = []
    for entry, names in ((one, first), (other, second)):
        own = entry.get("taught") or [{"channels": list(entry.get("channels", ())), "structures": list(names or ())}]
        parts += [p for p in own if p not in parts]
    return parts if len({tuple(p["channels"]) for p in parts}) > 1 else []


def _same_cases(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return any(_holds(o, d) for d in one.get("data", ()) for o in other.get("data", ()))


def _holds(data: Mapping[str, Any], part: Mapping[str, Any]) -> bool:
    """Whether a data set's entry has all that another of its name says of its cases."""
    if data.get("name") != part.get("name"):
        return False
    known = {h for split in data.get("cases", {}).values() for h in split.get("hashes", ())}
    told = {h for split in part.get("cases", {}).values() for h in split.get("hashes", ())}
    return told <= known and (bool(told) or data == part)
