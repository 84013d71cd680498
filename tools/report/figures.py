"""The report's drawings as inline SVG, coloured by the page's CSS variables so that one drawing serves both themes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from .numbers import Model, Stat

__all__ = ["Series", "bar", "curves", "dumbbells", "intervals", "scatter"]


class Series(NamedTuple):
    """A line: name, colour key and its points."""

    name: str
    key: str
    points: list[tuple[float, float]]


def text(x: float, y: float, words: str, cls: str = "", anchor: str = "start") -> str:
    """An SVG text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{cls}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, cls: str = "grid") -> str:
    """An SVG line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{cls}"/>'


def svg(width: float, height: float, body: str, label: str, cls: str = "figure") -> str:
    """The frame around a drawing."""
    return (
        f'<svg class="{cls}" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}" '
        f'style="max-width:{width:.0f}px">{body}</svg>'
    )


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


def bar(stat: Stat, key: str, low: float, high: float, width: float = 92) -> str:
    """A small interval for a table cell."""
    if not stat.n:
        return ""

    def at(v: float) -> float:
        return 3 + (width - 6) * min(max((v - low) / (high - low or 1), 0), 1)

    return (
        f'<svg class="bar" viewBox="0 0 {width:.0f} 10" aria-hidden="true">{line(3, 5, width - 3, 5, "rail")}'
        f'<line x1="{at(stat.low):.1f}" x2="{at(stat.high):.1f}" y1="5" y2="5" class="span {key}"/>'
        f'<circle cx="{at(stat.mean):.1f}" cy="5" r="3.2" class="dot {key}"/></svg>'
    )


def intervals(models: Sequence[Model], stats: Mapping[str, Stat], measure: str, label: str) -> str:
    """Means with 95 % intervals, one row per model: the picture at the top of the page."""
    known = [m for m in models if stats[m.key].n]
    if not known:
        return ""
    low, high = scale([stats[m.key] for m in known], measure)
    if measure not in ("hd95", "hd"):
        high = min(1.0, math.ceil((max(stats[m.key].high for m in known) + 0.02) * 20) / 20)
    width, left, top, step = 560.0, 16.0, 8.0, 54.0
    base = top + step * len(known)

    def at(v: float) -> float:
        return left + (width - 2 * left) * (v - low) / (high - low or 1)

    body = "".join(
        line(at(t), top, at(t), base) + text(at(t), base + 16, number(t), "tick", "middle") for t in ticks(low, high)
    )
    for i, model in enumerate(known):
        s, y = stats[model.key], top + step * i + 36
        body += text(left, y - 17, model.title, "name")
        body += text(width - left, y - 17, f"{s.mean:.3f}  [{s.low:.3f}, {s.high:.3f}]", "value", "end")
        body += f'<line x1="{at(s.low):.1f}" x2="{at(s.high):.1f}" y1="{y}" y2="{y}" class="span thick {model.key}"/>'
        body += f'<circle cx="{at(s.mean):.1f}" cy="{y}" r="6.5" class="dot {model.key}"/>'
    return svg(width, base + 34, body + text(width / 2, base + 31, label, "axis", "middle"), label, "figure wide")


def dumbbells(cases: Sequence[tuple[str, Mapping[str, float]]], models: Sequence[Model], label: str) -> str:
    """One row per case with a dot per model, joined: who is better, case by case.

    Args:
        cases: names and ``{model key: value}``, in drawing order.
        models: the models, in drawing order.
        label: of the axis.
    """
    values = [v for _, per in cases for v in per.values() if math.isfinite(v)]
    if not values:
        return ""
    low, high = min(values), max(values)
    margin = max((high - low) * 0.06, 0.01)
    low, high = low - margin, high + margin
    step = 20.0 if len(cases) <= 24 else 9.0
    named = len(cases) <= 24
    width, left, top = 460.0, 120.0 if named else 18.0, 6.0
    base = top + step * len(cases) + 4

    def at(v: float) -> float:
        return left + (width - left - 14) * (v - low) / ((high - low) or 1)

    body = "".join(
        line(at(t), top, at(t), base) + text(at(t), base + 15, number(t), "tick", "middle") for t in ticks(low, high, 4)
    )
    for i, (name, per) in enumerate(cases):
        y = top + step * (i + 0.5)
        known = {k: v for k, v in per.items() if math.isfinite(v)}
        if named:
            body += text(left - 8, y + 4, name if len(name) < 17 else "…" + name[-15:], "tick", "end")
        if len(known) > 1:
            body += line(at(min(known.values())), y, at(max(known.values())), y, "join")
        for model in (m for m in models if m.key in known):
            v = known[model.key]
            hint = escape(f"{name}: {model.title} {v:.3f}")
            body += (
                f'<circle cx="{at(v):.1f}" cy="{y:.1f}" r="4.6" class="dot {model.key}"><title>{hint}</title></circle>'
            )
    return svg(width, base + 32, body + text((left + width) / 2, base + 30, label, "axis", "middle"), label)


def scatter(points: Sequence[tuple[str, float, float]], names: tuple[str, str], key: str) -> str:
    """Every case and structure: one model across, the other upwards; above the diagonal the second is better."""
    known = [(n, a, b) for n, a, b in points if math.isfinite(a) and math.isfinite(b)]
    if not known:
        return ""
    low = max(0.0, min(min(a, b) for _, a, b in known) - 0.03)
    high, size, left, top = 1.0, 460.0, 46.0, 8.0
    inner = size - left - 16

    def x(v: float) -> float:
        return left + inner * (v - low) / (high - low or 1)

    def y(v: float) -> float:
        return top + inner - inner * (v - low) / (high - low or 1)

    body = ""
    for t in ticks(low, high, 4):
        body += line(x(t), top, x(t), top + inner) + text(x(t), top + inner + 16, number(t), "tick", "middle")
        body += line(left, y(t), left + inner, y(t)) + text(left - 7, y(t) + 4, number(t), "tick", "end")
    body += line(x(low), y(low), x(high), y(high), "diagonal")
    for name, a, b in known:
        body += (
            f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="4" class="dot soft {key}">'
            f"<title>{escape(f'{name}: {a:.3f} → {b:.3f}')}</title></circle>"
        )
    body += text(left + inner / 2, top + inner + 34, names[0], "axis", "middle")
    turn = f"rotate(-90 12 {top + inner / 2:.0f})"
    body += f'<text x="12" y="{top + inner / 2:.0f}" class="axis" text-anchor="middle" transform="{turn}">'
    body += f"{escape(names[1])}</text>"
    above = sum(b > a for _, a, b in known)
    below = sum(b < a for _, a, b in known)
    body += text(left + 10, top + 18, f"{above} better", "note") + text(
        left + inner - 8, top + inner - 10, f"{below} worse", "note", "end"
    )
    return svg(size, top + inner + 42, body, f"{names[1]} against {names[0]}")


def curves(series: Sequence[Series], label: str, *, unit: bool = False) -> str:
    """Lines over epochs.

    Args:
        series: the lines; points must be finite.
        label: what is drawn.
        unit: whether values lie in 0..1, so that the axis starts at 0 and ends at 1 at most.
    """
    drawn = [s for s in series if s.points]
    if not drawn:
        return ""
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    low, high = (0.0, min(1.0, math.ceil(max(ys) * 10 + 0.2) / 10)) if unit else (min(ys), max(ys))
    margin = 0 if unit else max((high - low) * 0.06, 1e-9)
    low, high, first, last = low - margin, high + margin, min(xs), max(xs)
    width, height, left, top = 460.0, 250.0, 46.0, 10.0
    w, h = width - left - 14, height - top - 40

    def at(x: float, y: float) -> tuple[float, float]:
        return left + w * (x - first) / (last - first or 1), top + h - h * (y - low) / (high - low or 1)

    body = ""
    for t in ticks(low, high, 4):
        body += line(left, at(first, t)[1], left + w, at(first, t)[1])
        body += text(left - 7, at(first, t)[1] + 4, number(t), "tick", "end")
    for t in (t for t in ticks(first, last, 5) if t == int(t)):
        body += text(at(t, low)[0], top + h + 17, number(t), "tick", "middle")
    for s in drawn:
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in (at(x, y) for x, y in s.points))
        body += f'<polyline points="{path}" class="curve {s.key}"><title>{escape(s.name)}</title></polyline>'
        px, py = at(*s.points[-1])
        body += (
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" class="dot {s.key}"><title>{escape(s.name)}</title></circle>'
        )
    return svg(width, height, body + text(left + w / 2, height - 6, "epoch", "axis", "middle"), label)
