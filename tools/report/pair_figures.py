"""Drawings of many members over the same cases: strips of all, and pairs against the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from .figures import axis, dot, line, number, svg, text, ticks
from .numbers import Model

__all__ = ["pairs", "strips"]

Cases = Mapping[tuple[str, str], float]
"""Task and case, and the case's mean."""


def strips(members: Sequence[tuple[Model, Cases]], label: str) -> Element | None:
    """One row per member with a dot per case and a mark at the mean.

    Args:
        members: in drawing order.
        label: of the axis.
    """
    values = [v for _, cases in members for v in cases.values()]
    if not values:
        return None
    low, high = min(values), max(values)
    margin = max((high - low) * 0.04, 0.01)
    low, high = low - margin, high + margin
    step, width, left, top = 30.0, 1000.0, 190.0, 6.0
    base = top + step * len(members)

    def at(v: float) -> float:
        return left + (width - left - 14) * (v - low) / (high - low)

    body = axis(ticks(low, high, 8), at, top, base, 16)
    for i, (model, cases) in enumerate(members):
        y = top + step * (i + 0.5)
        body.append(text(left - 12, y + 4, _short(model.title, 26), "name small", "end"))
        for j, ((_, case), v) in enumerate(sorted(cases.items())):
            up = (j * 7 % 5 - 2) * 2.6  # neighbours do not hide each other
            body.append(dot(at(v), y + up, 4, f"soft {model.key}", f"{case}: {model.title} {v:.3f}"))
        if cases:
            mean = at(sum(cases.values()) / len(cases))
            body.append(line(mean, y - 11, mean, y + 11, f"mark {model.key}"))
    body.append(text((left + width) / 2, base + 32, label, "axis", "middle"))
    return svg(width, base + 34, body, label, "figure wide")


def pairs(reference: tuple[Model, Cases], other: tuple[Model, Cases]) -> Element | None:
    """Each case as a line from the reference (left) to another member (right), coloured by who is better."""
    shared = [c for c in sorted(reference[1]) if c in other[1]]
    ends = [(c, reference[1][c], other[1][c]) for c in shared]
    ends = [e for e in ends if math.isfinite(e[1]) and math.isfinite(e[2])]
    if not ends:
        return None
    values = [v for _, a, b in ends for v in (a, b)]
    low, high = min(values) - 0.02, max(values) + 0.02
    width, height, left, right, top = 300.0, 230.0, 52.0, 240.0, 22.0

    def y(v: float) -> float:
        return top + (height - top - 34) * (1 - (v - low) / (high - low))

    body: list[Element] = []
    for t in ticks(low, high, 4):
        body += [line(left, y(t), right, y(t)), text(left - 8, y(t) + 4, number(t), "tick", "end")]
    for (_, case), a, b in ends:
        kind = "rise" if b > a else "fall" if b < a else "same"
        body.append(line(left, y(a), right, y(b), f"pair {kind}", f"{case}: {a:.3f} → {b:.3f}"))
        body += [dot(left, y(a), 3.4, reference[0].key), dot(right, y(b), 3.4, other[0].key)]
    better, worse = sum(b > a for _, a, b in ends), sum(b < a for _, a, b in ends)
    body.append(text(left, height - 8, _short(reference[0].title, 20), "axis", "middle"))
    body.append(text(right, height - 8, _short(other[0].title, 20), "axis", "middle"))
    body.append(text((left + right) / 2, 12, f"{better} better, {worse} worse", "note", "middle"))
    return svg(width, height, body, f"{other[0].title} against {reference[0].title}")


def _short(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
