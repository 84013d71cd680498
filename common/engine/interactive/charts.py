"""The charts of a session's page as inline SVG: Dice over prompts, and the gate's scores as stacked columns."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..monitor.case_pictures import COLOURS
from ..monitor.overlays import class_colors
from .pictures import Frame

__all__ = ["SIGNS", "colour_of", "dice_card", "expert_colour", "gate_card"]

SIGNS = {"inside": "+", "outside": "−", "box": "□"}
_EXPERTS = class_colors(15)
_WIDTH, _HEIGHT, _LEFT, _TOP, _BASE = 520.0, 230.0, 34.0, 8.0, 196.0


def colour_of(number: int) -> str:
    """Of an object or expert, from 1."""
    return COLOURS[(number - 1) % len(COLOURS)]


def dice_card(frames: Sequence[Frame]) -> str:
    """A line per object; empty when no target is known."""
    lines: dict[str, list[tuple[int, Frame, float]]] = {}
    for i, f in enumerate(frames):
        if f.dice is not None and f.dice == f.dice:
            lines.setdefault(f.name, []).append((i, f, f.dice))
    if not lines:
        return ""
    most = max(f.prompt for line in lines.values() for _, f, _ in line)
    step = (_WIDTH - _LEFT - 16) / max(most - 1, 1)
    body = _rules((0.0, 0.25, 0.5, 0.75, 1.0))
    for prompt in range(1, most + 1, max(1, most // 12)):
        body += _text(_LEFT + 6 + (prompt - 1) * step, _BASE + 17, str(prompt))
    for line in lines.values():
        points = [(i, _LEFT + 6 + (f.prompt - 1) * step, _level(d), f, d) for i, f, d in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for _, x, y, _, _ in points)
        dots = "".join(
            f'<circle class="dot" data-go="{i}" cx="{x:.1f}" cy="{y:.1f}" r="5">'
            f"<title>{escape(f.name)}, prompt {f.prompt}: {d:.3f}</title></circle>"
            for i, x, y, f, d in points
        )
        colour = colour_of(line[0][1].number)
        body += f'<g style="--c:{colour}"><polyline class="curve" points="{path}"/>{dots}</g>'
    names = [(colour_of(line[0][1].number), name) for name, line in lines.items()]
    return _card("Dice over prompts", body, names)


def gate_card(frames: Sequence[Frame], experts: Sequence[str]) -> str:
    """A column of shares per prompt; empty without a gate."""
    scored = [(i, f.scores) for i, f in enumerate(frames) if f.scores]
    if not scored:
        return ""
    step = (_WIDTH - _LEFT) / len(scored)
    wide = min(step - 4, 40.0)
    body = _rules((0.0, 0.5, 1.0))
    for column, (index, scores) in enumerate(scored):
        middle, top, bars = _LEFT + (column + 0.5) * step, 1.0 * _BASE, ""
        for expert, score in enumerate(scores):
            tall = (_BASE - _TOP) * score
            top -= tall
            bars += (
                f'<rect x="{middle - wide / 2:.1f}" y="{top:.2f}" width="{max(wide, 1):.1f}" height="{tall:.2f}" '
                f'fill="{expert_colour(expert)}"><title>{escape(experts[expert])} {score:.3f}</title></rect>'
            )
        body += f'<g class="column" data-go="{index}">{bars}</g>' + _text(middle, _BASE + 17, SIGNS[frames[index].kind])
    used = [e for e, name in enumerate(experts) if any(s[e] >= 0.05 for _, s in scored)]
    return _card("What the gate weighs", body, [(expert_colour(e), experts[e]) for e in used])


def expert_colour(number: int) -> str:
    """Of a gate's output, 0 the general decoder."""
    return _EXPERTS[(number - 1) % len(_EXPERTS)] if number else "#8b95a3"


def _level(share: float) -> float:
    return _TOP + (_BASE - _TOP) * (1 - share)


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _rules(at: Sequence[float]) -> str:
    return "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{_level(t):.1f}" y2="{_level(t):.1f}"/>'
        + _text(_LEFT - 7, _level(t) + 4, f"{t:g}", "end")
        for t in at
    )


def _card(title: str, body: str, names: Sequence[tuple[str, str]]) -> str:
    body += _text((_LEFT + _WIDTH) / 2, _HEIGHT, "prompts")
    legend = "".join(f'<span style="--c:{c}"><i class="key"></i>{escape(n)}</span>' for c, n in names)
    return (
        f'<div class="card"><h3>{title}</h3><svg class="chart" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT + 4:.0f}" role="img" '
        f'aria-label="{title}">{body}</svg><p class="legend">{legend}</p></div>'
    )
