"""What a page says of models that are compared: finding, tiles, tables, cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from .cells import NOTHING, Cell, Head, Line, Table, sense
from .figures import bar, dumbbells, intervals, scale, scatter
from .numbers import LOWER_IS_BETTER, Model, Row, Stat, best, difference, difference_title, of_row, statistic

__all__ = [
    "Card",
    "Finding",
    "Gap",
    "Hero",
    "Tile",
    "cases",
    "distance_of",
    "finding",
    "hero",
    "measure_name",
    "tables",
]

MEASURE_NAMES = {"dice": "Dice", "hd95": "HD95", "surface_dice": "Surface Dice", "iou": "IoU"}
Values = Mapping[tuple[str, str, str], float]


class Gap(NamedTuple):
    """The difference that matters: whose, its name in short, signed numbers, and :func:`~.cells.sense` of it."""

    first: str
    second: str
    short: str
    mean: str
    low: str
    high: str
    sense: str


class Finding(NamedTuple):
    """What was measured: on how much, each model's title and mean Dice, and the difference."""

    cases: int
    structures: int
    tasks: int
    means: list[tuple[str, float]]
    gap: Gap | None


class Tile(NamedTuple):
    """A big number: of which model, with its interval and the range of its seeds' means, if there are several."""

    key: str
    title: str
    stat: Stat
    seeds: list[float]


class Hero(NamedTuple):
    """Intervals of all models, and the numbers beside them."""

    picture: Element | None
    tiles: list[Tile]
    gap: Gap | None


class Card(NamedTuple):
    """A drawing with its title."""

    title: str
    picture: Element | None


def common(models: Sequence[Model], measure: str) -> dict[str, Values]:
    """Each model's values on the cases and structures that all models have."""
    every = {m.key: m.values(measure) for m in models}
    shared = set.intersection(*(set(v) for v in every.values())) if every else set()
    return {k: {c: x for c, x in v.items() if c in shared} for k, v in every.items()}


def pair(models: Sequence[Model]) -> tuple[Model, Model] | None:
    """The two models whose difference matters: amalgamated against alone, else the first two."""
    by_key = {m.key: m for m in models}
    if "amalgamated" in by_key and "alone" in by_key:
        return by_key["amalgamated"], by_key["alone"]
    if "amalgamated" in by_key and "expert" in by_key:
        return by_key["amalgamated"], by_key["expert"]
    return (models[0], models[1]) if len(models) > 1 else None


def lower(title: str) -> str:
    """A title inside a sentence; names that are not plain words keep their capitals."""
    return title[0].lower() + title[1:] if title[1:].islower() else title


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def finding(models: Sequence[Model]) -> Finding | None:
    """What was measured, not what was hoped for; None when nothing was."""
    values = common(models, "dice")
    stats = {k: statistic(v) for k, v in values.items()}
    if not any(s.n for s in stats.values()):
        return None
    rows = {(t, s) for v in values.values() for t, _, s in v}
    means = [(lower(m.title), stats[m.key].mean) for m in models if stats[m.key].n]
    return Finding(max(s.n for s in stats.values()), len(rows), len({t for t, _ in rows}), means, _gap_of(models))


def _gap_of(models: Sequence[Model]) -> Gap | None:
    two = pair(models)
    if two is None:
        return None
    values = common(models, "dice")
    stat = difference(values[two[0].key], values[two[1].key])
    if not stat.n:
        return None
    numbers = (signed(stat.mean), signed(stat.low), signed(stat.high))
    return Gap(two[0].title, lower(two[1].title), difference_title(*two), *numbers, sense(stat))


def hero(models: Sequence[Model]) -> Hero:
    """Big numbers and the intervals beside them."""
    stats = {k: statistic(v) for k, v in common(models, "dice").items()}
    tiles = [Tile(m.key, m.title, stats[m.key], _seeds(m)) for m in reversed(models) if stats[m.key].n]
    return Hero(intervals(models, stats, "dice", "mean Dice with 95 % interval"), tiles, _gap_of(models))


def _seeds(model: Model) -> list[float]:
    means = [v for v in model.seed_means("dice") if math.isfinite(v)] if model.key != "expert" else []
    return [min(means), max(means)] if len(means) > 1 else []


def measure_name(measure: str, distance: str) -> str:
    """A measure's name, with the unit of distances."""
    return MEASURE_NAMES[measure] + (f" ({distance})" if measure in LOWER_IS_BETTER else "")


def distance_of(tasks: Mapping[str, Mapping[str, object]] | None) -> str:
    """Unit of distances on these tasks: pictures have no millimetres."""
    return "pixels" if {task.get("dim", 3) for task in (tasks or {}).values()} == {2} else "mm"


def tables(models: Sequence[Model], distance: str = "mm") -> list[Table]:
    """A table per measure."""
    return [_table(models, measure, measure_name(measure, distance)) for measure in MEASURE_NAMES]


def _table(models: Sequence[Model], measure: str, name: str) -> Table:
    values = {m.key: m.values(measure) for m in models}
    rows: list[Row] = list(dict.fromkeys((t, s) for v in values.values() for t, _, s in v))
    own = {row: {k: {c: x for c, x in v.items() if (c[0], c[2]) == row} for k, v in values.items()} for row in rows}
    stats = {row: {k: of_row(v, row) for k, v in values.items()} for row in rows}
    axis = scale([s for per in stats.values() for s in per.values()], measure)
    two = pair(models)
    heads = [Head("Task"), Head("Structure"), Head("n", hint="cases that show it")]
    heads += [Head(m.title, m.key) for m in models] + ([Head(difference_title(*two))] if two else [])
    lines = [Line([Cell(row[0]), Cell(row[1]), *_cells(models, stats[row], own[row], measure, axis)]) for row in rows]
    shared = common(models, measure)
    means = {k: statistic(v) for k, v in shared.items()}
    lines.append(Line([Cell("Mean over structures", wide=2), *_cells(models, means, shared, measure, axis)], "mean"))
    return Table(heads, lines, name, measure)


def _cells(
    models: Sequence[Model],
    stats: Mapping[str, Stat],
    values: Mapping[str, Values],
    measure: str,
    axis: tuple[float, float],
) -> list[Cell]:
    """Of one row: how many cases, each model's mean, and the difference."""
    top, two = best(stats, measure), pair(models)
    cells = [Cell(str(max((s.n for s in stats.values()), default=0)))]
    cells += [_cell(m.key, stats[m.key], top == m.key, axis) for m in models]
    return [*cells, *([_gap(difference(*(values[m.key] for m in two)), measure)] if two else [])]


def _digits(value: float) -> str:
    return f"{value:.3f}" if value < 2 else f"{value:.1f}"


def _cell(key: str, stat: Stat, top: bool, axis: tuple[float, float]) -> Cell:
    if not stat.n:
        return NOTHING
    span, cls = f"{_digits(stat.low)} – {_digits(stat.high)}", f"{key} best" if top else key
    picture = bar(stat, key, *axis)
    return Cell(_digits(stat.mean), f"{stat.mean:.6g}", cls, span, mean=True, bar=picture, hint=f"n = {stat.n}")


def _gap(gap: Stat, measure: str) -> Cell:
    if not gap.n:
        return NOTHING
    digits, sign = (1, -1) if measure in LOWER_IS_BETTER else (3, 1)
    span = f"{signed(gap.low, digits)} to {signed(gap.high, digits)}"
    return Cell(signed(gap.mean, digits), f"{gap.mean:.6g}", sense(gap, sign) or "none", span)


def cases(models: Sequence[Model]) -> list[Card]:
    """Per task one row of dots per case; beside them every structure as a point."""
    values = {m.key: m.values("dice") for m in models}
    tasks = list(dict.fromkeys(t for v in values.values() for t, _, _ in v))
    two = pair(models)
    cards = []
    for task in tasks:
        names = dict.fromkeys(c for v in values.values() for t, c, _ in v if t == task)
        rows = [(c, {k: _case_mean(v, task, c) for k, v in values.items()}) for c in names]
        rows = [(c, {k: x for k, x in per.items() if math.isfinite(x)}) for c, per in rows]
        rows.sort(key=ByModel(two[0].key if two else models[0].key))
        cards.append(Card(task or "All cases", dumbbells(rows, models, "mean Dice of the case")))
    if two is not None:
        first, second = (values[m.key] for m in two)
        points = [(f"{c} {s}", second[t, c, s], x) for (t, c, s), x in first.items() if (t, c, s) in second]
        picture = scatter(points, (f"Dice, {two[1].title}", f"Dice, {two[0].title}"), two[0].key)
        cards += [] if picture is None else [Card("Every case and structure", picture)]
    return cards


def _case_mean(values: Values, task: str, case: str) -> float:
    known = [v for (t, c, _), v in values.items() if (t, c) == (task, case) and math.isfinite(v)]
    return sum(known) / len(known) if known else math.nan


class ByModel:
    """Sort key: the case's value of one model, unknown last."""

    def __init__(self, model_key: str) -> None:
        self.model_key = model_key

    def __call__(self, row: tuple[str, Mapping[str, float]]) -> float:
        return -row[1].get(self.model_key, -1.0)
