"""The charts of a session's page: Dice over prompts, and the gate's scores as stacked columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from ...pages import shape
from ..monitor.case_pictures import COLOURS
from ..monitor.overlays import class_colors
from .pictures import Frame

__all__ = ["SIGNS", "Card", "colour_of", "dice_card", "expert_colour", "gate_card"]

SIGNS = {"inside": "+", "outside": "−", "box": "□"}
_EXPERTS = class_colors(15)
_WIDTH, _HEIGHT, _LEFT, _TOP, _BASE = 520.0, 230.0, 34.0, 8.0, 196.0


class Card(NamedTuple):
    """A chart with its title, and colours with their names."""

    title: str
    chart: Element
    legend: list[tuple[str, str]]


def colour_of(number: int) -> str:
    """Of an object or expert, from 1."""
    return COLOURS[(number - 1) % len(COLOURS)]


def dice_card(frames: Sequence[Frame]) -> Card | None:
    """A line per object; None when no target is known."""
    lines: dict[str, list[tuple[int, Frame]]] = {}
    for i, f in enumerate(frames):
        if f.scored:
            lines.setdefault(f.name, []).append((i, f))
    if not lines:
        return None
    most = max(f.prompt for line in lines.values() for _, f in line)
    step = (_WIDTH - _LEFT - 16) / max(most - 1, 1)
    body = [*_rules((0.0, 0.25, 0.5, 0.75, 1.0))]
    body += [_text(_LEFT + 6 + (n - 1) * step, _BASE + 17, str(n)) for n in range(1, most + 1, max(1, most // 12))]
    for line in lines.values():
        points = [(_LEFT + 6 + (f.prompt - 1) * step, _level(f.dice or 0.0)) for _, f in line]
        path = shape("polyline", {"class": "curve", "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points)})
        dots = [_dot(i, f, *at) for (i, f), at in zip(line, points, strict=True)]
        body.append(shape("g", {"style": f"--c:{colour_of(line[0][1].number)}"}, parts=[path, *dots]))
    return _card("Dice over prompts", body, [(colour_of(line[0][1].number), name) for name, line in lines.items()])


def _dot(index: int, frame: Frame, x: float, y: float) -> Element:
    hint = shape("title", {}, f"{frame.name}, prompt {frame.prompt}: {frame.dice:.3f}")
    return shape("circle", {"class": "dot", "data-go": index, "cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": 5}, parts=[hint])


def gate_card(frames: Sequence[Frame], experts: Sequence[str]) -> Card | None:
    """A column of shares per prompt; None without a gate."""
    scored = [(i, f.scores) for i, f in enumerate(frames) if f.scores]
    if not scored:
        return None
    step = (_WIDTH - _LEFT) / len(scored)
    body = [*_rules((0.0, 0.5, 1.0))]
    for column, (index, scores) in enumerate(scored):
        middle = _LEFT + (column + 0.5) * step
        bars = _bars(scores, experts, middle, min(step - 4, 40.0))
        body.append(shape("g", {"class": "column", "data-go": index}, parts=bars))
        body.append(_text(middle, _BASE + 17, SIGNS[frames[index].kind]))
    used = [e for e, name in enumerate(experts) if any(s[e] >= 0.05 for _, s in scored)]
    return _card("What the gate weighs", body, [(expert_colour(e), experts[e]) for e in used])


def _bars(scores: Sequence[float], experts: Sequence[str], middle: float, wide: float) -> Iterator[Element]:
    top = _BASE
    for expert, score in enumerate(scores):
        tall = (_BASE - _TOP) * score
        top -= tall
        place = {"x": f"{middle - wide / 2:.1f}", "y": f"{top:.2f}"}
        size = {"width": f"{max(wide, 1):.1f}", "height": f"{tall:.2f}", "fill": expert_colour(expert)}
        yield shape("rect", {**place, **size}, parts=[shape("title", {}, f"{experts[expert]} {score:.3f}")])


def expert_colour(number: int) -> str:
    """Of a gate's output, 0 the general decoder."""
    return _EXPERTS[(number - 1) % len(_EXPERTS)] if number else "#8b95a3"


def _level(share: float) -> float:
    return _TOP + (_BASE - _TOP) * (1 - share)


def _text(x: float, y: float, words: str, anchor: str = "middle") -> Element:
    return shape("text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}, words)


def _rules(at: Sequence[float]) -> Iterator[Element]:
    for t in at:
        y = f"{_level(t):.1f}"
        yield shape("line", {"class": "grid", "x1": _LEFT, "x2": _WIDTH, "y1": y, "y2": y})
        yield _text(_LEFT - 7, _level(t) + 4, f"{t:g}", "end")


def _card(title: str, body: Sequence[Element], legend: list[tuple[str, str]]) -> Card:
    frame = {"class": "chart", "viewBox": f"0 0 {_WIDTH:.0f} {_HEIGHT + 4:.0f}", "role": "img", "aria-label": title}
    prompts = _text((_LEFT + _WIDTH) / 2, _HEIGHT, "prompts")
    return Card(title, shape("svg", frame, parts=[*body, prompts]), legend)
