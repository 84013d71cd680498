"""The report's drawings as trees of SVG elements, coloured by the page's CSS variables: one serves both themes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from common.pages import shape

from .numbers import Model, Stat

__all__ = ["Series", "bar", "curves", "dumbbells", "intervals", "scatter"]


class Series(NamedTuple):
    """A line: name, colour key and its points."""

    name: str
    key: str
    points: list[tuple[float, float]]


def text(x: float, y: float, words: str, cls: str = "", anchor: str = "start") -> Element:
    """An SVG text."""
    return shape("text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "class": cls, "text-anchor": anchor}, words)


def line(x1: float, y1: float, x2: float, y2: float, cls: str = "grid", hint: str = "") -> Element:
    """An SVG line; the hint shows under the pointer."""
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    return shape("line", {**ends, "class": cls}, parts=_hint(hint))


def dot(x: float, y: float, r: float, cls: str, hint: str = "") -> Element:
    """An SVG circle; the hint shows under the pointer."""
    return shape(
        "circle", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": f"{r:g}", "class": f"dot {cls}"}, parts=_hint(hint)
    )


def _hint(words: str) -> list[Element]:
    return [shape("title", {}, words)] if words else []


def svg(width: float, height: float, body: Sequence[Element], label: str, cls: str = "figure") -> Element:
    """The frame around a drawing."""
    frame = {"class": cls, "viewBox": f"0 0 {width:.0f} {height:.0f}", "role": "img", "aria-label": label}
    return shape("svg", {**frame, "style": f"max-width:{width:.0f}px"}, parts=body)


def axis(values: Sequence[float], at: Callable[[float], float], top: float, base: float, below: float) -> list[Element]:
    """Upright rules at these values, with their numbers below."""
    return [e for t in values for e in (line(at(t), top, at(t), base),
                                        text(at(t), base + below, number(t), "tick", "middle"))]  # fmt: skip


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers inside a range."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / max(count, 1)
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A tick label."""
    return f"{value:.6g}".replace("-", "−")


def scale(stats: Sequence[Stat], measure: str) -> tuple[float, float]:
    """The axis for a set of statistics: overlap measures end at 1, distances start at 0."""
    lows = [s.low for s in stats if s.n]
    highs = [s.high for s in stats if s.n]
    if not lows:
        return 0.0, 1.0
    if measure in ("hd95", "hd"):
        return 0.0, max(*highs, 1e-6) * 1.03
    return max(0.0, math.floor((min(lows) - 0.02) * 20) / 20), 1.0


def bar(stat: Stat, key: str, low: float, high: float, width: float = 92) -> Element | None:
    """A small interval for a table cell."""
    if not stat.n:
        return None

    def at(v: float) -> float:
        return 3 + (width - 6) * min(max((v - low) / (high - low or 1), 0), 1)

    body = [line(3, 5, width - 3, 5, "rail"), line(at(stat.low), 5, at(stat.high), 5, f"span {key}")]
    frame = {"class": "bar", "viewBox": f"0 0 {width:.0f} 10", "aria-hidden": "true"}
    return shape("svg", frame, parts=[*body, dot(at(stat.mean), 5, 3.2, key)])


def intervals(models: Sequence[Model], stats: Mapping[str, Stat], measure: str, label: str) -> Element | None:
    """Means with 95 % intervals, one row per model: the picture at the top of the page."""
    known = [m for m in models if stats[m.key].n]
    if not known:
        return None
    low, high = scale([stats[m.key] for m in known], measure)
    if measure not in ("hd95", "hd"):
        high = min(1.0, math.ceil((max(stats[m.key].high for m in known) + 0.02) * 20) / 20)
    width, left, top, step = 560.0, 16.0, 8.0, 54.0
    base = top + step * len(known)

    def at(v: float) -> float:
        return left + (width - 2 * left) * (v - low) / (high - low)

    body = axis(ticks(low, high), at, top, base, 16)
    for i, model in enumerate(known):
        s, y = stats[model.key], top + step * i + 36
        body.append(text(left, y - 17, model.title, "name"))
        body.append(text(width - left, y - 17, f"{s.mean:.3f}  [{s.low:.3f}, {s.high:.3f}]", "value", "end"))
        body.append(line(at(s.low), y, at(s.high), y, f"span thick {model.key}"))
        body.append(dot(at(s.mean), y, 6.5, model.key))
    body.append(text(width / 2, base + 31, label, "axis", "middle"))
    return svg(width, base + 34, body, label, "figure wide")


def dumbbells(cases: Sequence[tuple[str, Mapping[str, float]]], models: Sequence[Model], label: str) -> Element | None:
    """One row per case with a dot per model, joined: who is better, case by case.

    Args:
        cases: names and ``{model key: value}``, in drawing order.
        models: the models, in drawing order.
        label: of the axis.
    """
    values = [v for _, per in cases for v in per.values() if math.isfinite(v)]
    if not values:
        return None
    low, high = min(values), max(values)
    margin = max((high - low) * 0.06, 0.01)
    low, high = low - margin, high + margin
    step = 20.0 if len(cases) <= 24 else 9.0
    named = len(cases) <= 24
    width, left, top = 460.0, 120.0 if named else 18.0, 6.0
    base = top + step * len(cases) + 4

    def at(v: float) -> float:
        return left + (width - left - 14) * (v - low) / (high - low)

    body = axis(ticks(low, high, 4), at, top, base, 15)
    for i, (name, per) in enumerate(cases):
        y = top + step * (i + 0.5)
        known = {k: v for k, v in per.items() if math.isfinite(v)}
        if named:
            body.append(text(left - 8, y + 4, name if len(name) < 17 else "…" + name[-15:], "tick", "end"))
        if len(known) > 1:
            body.append(line(at(min(known.values())), y, at(max(known.values())), y, "join"))
        for m in (m for m in models if m.key in known):
            body.append(dot(at(known[m.key]), y, 4.6, m.key, f"{name}: {m.title} {known[m.key]:.3f}"))
    body.append(text((left + width) / 2, base + 30, label, "axis", "middle"))
    return svg(width, base + 32, body, label)


def scatter(points: Sequence[tuple[str, float, float]], names: tuple[str, str], key: str) -> Element | None:
    """Every case and structure: one model across, the other upwards; above the diagonal the second is better."""
    known = [(n, a, b) for n, a, b in points if math.isfinite(a) and math.isfinite(b)]
    if not known:
        return None
    low = max(0.0, min(min(a, b) for _, a, b in known) - 0.03)
    high, size, left, top = 1.0, 460.0, 46.0, 8.0
    inner = size - left - 16

    def x(v: float) -> float:
        return left + inner * (v - low) / (high - low)

    def y(v: float) -> float:
        return top + inner - inner * (v - low) / (high - low)

    body: list[Element] = []
    for t in ticks(low, high, 4):
        body += axis([t], x, top, top + inner, 16)
        body += [line(left, y(t), left + inner, y(t)), text(left - 7, y(t) + 4, number(t), "tick", "end")]
    body.append(line(x(low), y(low), x(high), y(high), "diagonal"))
    body += [dot(x(a), y(b), 4, f"soft {key}", f"{name}: {a:.3f} → {b:.3f}") for name, a, b in known]
    body.append(text(left + inner / 2, top + inner + 34, names[0], "axis", "middle"))
    upright = text(12, top + inner / 2, names[1], "axis", "middle")
    upright.set("transform", f"rotate(-90 12 {top + inner / 2:.0f})")
    above = sum(b > a for _, a, b in known)
    below = sum(b < a for _, a, b in known)
    body += [upright, text(left + 10, top + 18, f"{above} better", "note")]
    body.append(text(left + inner - 8, top + inner - 10, f"{below} worse", "note", "end"))
    return svg(size, top + inner + 42, body, f"{names[1]} against {names[0]}")


def curves(series: Sequence[Series], label: str, *, unit: bool = False) -> Element | None:
    """Lines over epochs.

    Args:
        series: the lines; points must be finite.
        label: what is drawn.
        unit: whether values lie in 0..1, so that the axis starts at 0 and ends at 1 at most.
    """
    drawn = [s for s in series if s.points]
    if not drawn:
        return None
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    low, high = (0.0, min(1.0, math.ceil(max(ys) * 10 + 0.2) / 10)) if unit else (min(ys), max(ys))
    margin = 0 if unit else max((high - low) * 0.06, 1e-9)
    low, high, first, last = low - margin, high + margin, min(xs), max(xs)
    width, height, left, top = 460.0, 250.0, 46.0, 10.0
    w, h = width - left - 14, height - top - 40

    def at(x: float, y: float) -> tuple[float, float]:
        return left + w * (x - first) / (last - first or 1), top + h - h * (y - low) / (high - low or 1)

    body: list[Element] = []
    for t in ticks(low, high, 4):
        y = at(first, t)[1]
        body += [line(left, y, left + w, y), text(left - 7, y + 4, number(t), "tick", "end")]
    for t in (t for t in ticks(first, last, 5) if t == int(t)):
        body.append(text(at(t, low)[0], top + h + 17, number(t), "tick", "middle"))
    for s in drawn:
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in (at(x, y) for x, y in s.points))
        body.append(shape("polyline", {"points": path, "class": f"curve {s.key}"}, parts=_hint(s.name)))
        body.append(dot(*at(*s.points[-1]), 3, s.key, s.name))
    body.append(text(left + w / 2, height - 6, "epoch", "axis", "middle"))
    return svg(width, height, body, label)
