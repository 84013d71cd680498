"""A drawing of what is taught: a disc for each structure and teacher, as large as the share of scans that show it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from common.pages import shape

from .lessons import Lesson

__all__ = ["lesson_map"]

_STEP, _ROW, _RADIUS, _TEXT = 124.0, 24.0, 9.0, 7.0


def lesson_map(found: Sequence[Lesson], colours: Mapping[str, str]) -> Element | None:
    """The drawing; None where nobody reads anything.

    Args:
        found: lessons of those that were asked.
        colours: class of each teacher's colour.
    """
    columns = list(dict.fromkeys((one.expert, one.task) for one in found if not one.why))
    if not columns:
        return None
    names = list(dict.fromkeys(one.structure for one in found))
    left, top = 24 + _TEXT * max(map(len, names)), 52.0
    width, height = left + _STEP * len(columns) + 40, top + _ROW * len(names) + 8
    by_place = {(one.expert, one.task, one.structure): one for one in found}
    parts: list[Element] = []
    for number, (expert, task) in enumerate(columns):
        x = left + _STEP * (number + 0.5)
        parts.append(shape("text", {"x": x, "y": 18, "text-anchor": "middle", "class": "name small"}, _short(expert)))
        parts.append(shape("text", {"x": x, "y": 34, "text-anchor": "middle", "class": "note"}, f"on {_short(task)}"))
    for row, name in enumerate(names):
        y = top + _ROW * (row + 0.5)
        parts.append(shape("line", {"x1": left, "x2": width - 20, "y1": y, "y2": y, "class": "grid"}))
        parts.append(shape("text", {"x": left - 12, "y": y + 4, "text-anchor": "end"}, name))
        for number, (expert, task) in enumerate(columns):
            one = by_place.get((expert, task, name))
            if one is not None:
                parts.append(_disc(one, left + _STEP * (number + 0.5), y, colours.get(expert, "run1")))
    frame = {"class": "figure wide", "viewBox": f"0 0 {width:.0f} {height:.0f}", "role": "img",
             "style": f"max-width:{width:.0f}px!important;margin:0", "aria-label": "who teaches what"}  # fmt: skip
    return shape("svg", frame, parts=parts)


def _disc(one: Lesson, x: float, y: float, colour: str) -> Element:
    seen = one.seen or 0
    share = seen / one.scans if one.scans else 0.0
    told = shape("title", {}, f"{one.expert}, {one.structure}: seen in {seen} of {one.scans} scans of {one.task}")
    radius = max(2.5, _RADIUS * math.sqrt(share))
    if not seen:
        own = {"fill": "none", "stroke": "var(--bad)", "stroke-width": 1.4}
        return shape("circle", {"cx": x, "cy": y, "r": 3.5, **own}, parts=[told])
    return shape("circle", {"cx": x, "cy": y, "r": f"{radius:.1f}", "class": f"edge {colour}"}, parts=[told])


def _short(text: str, most: int = 14) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
