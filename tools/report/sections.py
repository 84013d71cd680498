"""The parts of the page that compare models: finding, tiles, tables, cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from .figures import bar, dumbbells, intervals, scale, scatter
from .numbers import LOWER_IS_BETTER, Model, Row, Stat, best, difference, difference_title, of_row, statistic

__all__ = ["cases", "distance_of", "finding", "hero", "legend", "measure_name", "tables"]

MEASURE_NAMES = {"dice": "Dice", "hd95": "HD95", "surface_dice": "Surface Dice", "iou": "IoU"}
Values = Mapping[tuple[str, str, str], float]


def key(model_key: str) -> str:
    """The colour dot of a model."""
    return f'<i class="key {model_key}"></i>'


def legend(models: Sequence[Model]) -> str:
    """Names and colours."""
    return '<p class="legend">' + "".join(f"<span>{key(m.key)}{escape(m.title)}</span>" for m in models) + "</p>"


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


def finding(models: Sequence[Model]) -> str:
    """One sentence that says what was measured, not what was hoped for."""
    values = common(models, "dice")
    stats = {k: statistic(v) for k, v in values.items()}
    if not any(s.n for s in stats.values()):
        return "Nothing has been evaluated yet."
    rows = {(t, s) for v in values.values() for t, _, s in v}
    tasks = {t for t, _ in rows}
    count = max(s.n for s in stats.values())
    scope = f"{count} cases, {len(rows)} structures in {len(tasks)} task{'s' if len(tasks) > 1 else ''}"
    parts = [f"{escape(lower(m.title))} <b>{stats[m.key].mean:.3f}</b>" for m in models if stats[m.key].n]
    said = f"Mean Dice over {scope}: {', '.join(parts)}. "
    two = pair(models)
    if two is None:
        return said
    gap = difference(values[two[0].key], values[two[1].key])
    if not gap.n:
        return said
    span = f"{signed(gap.mean)} [{signed(gap.low)}, {signed(gap.high)}]"
    clear = gap.low > 0 or gap.high < 0
    verdict = "the interval excludes zero" if clear else "the interval includes zero, so the data do not decide"
    names = f"{escape(two[0].title)} minus {escape(lower(two[1].title))}"
    return f"{said}{names}, paired by case: <b>{span}</b>; {verdict}."


def hero(models: Sequence[Model]) -> str:
    """Big numbers and the intervals beside them."""
    values = common(models, "dice")
    stats = {k: statistic(v) for k, v in values.items()}
    tiles = "".join(_tile(m, stats[m.key]) for m in reversed(models) if stats[m.key].n)
    two = pair(models)
    if two is not None:
        gap = difference(values[two[0].key], values[two[1].key])
        if gap.n:
            cls = "up" if gap.low > 0 else "down" if gap.high < 0 else ""
            short = difference_title(*two)
            tiles += (
                f'<div class="card tile"><div class="name">{escape(short)}, paired</div>'
                f'<div class="big {cls}">{signed(gap.mean)}</div>'
                f'<div class="range">{signed(gap.low)} to {signed(gap.high)}</div></div>'
            )
    picture = intervals(models, stats, "dice", "mean Dice with 95 % interval")
    return f'<div class="hero"><div class="card">{picture}</div><div class="tiles">{tiles}</div></div>'


def _tile(model: Model, stat: Stat) -> str:
    seeds = [v for v in model.seed_means("dice") if math.isfinite(v)] if model.key != "expert" else []
    spread = f"<br>seeds {min(seeds):.3f} to {max(seeds):.3f}" if len(seeds) > 1 else ""
    main = " main" if model.key in ("amalgamated", "run0") else ""
    return (
        f'<div class="card tile{main}"><div class="name">{key(model.key)}{escape(model.title)}</div>'
        f'<div class="big">{stat.mean:.3f}</div>'
        f'<div class="range">{stat.low:.3f} to {stat.high:.3f}{spread}</div></div>'
    )


def measure_name(measure: str, distance: str) -> str:
    """A measure's name, with the unit of distances."""
    return MEASURE_NAMES[measure] + (f" ({distance})" if measure in LOWER_IS_BETTER else "")


def distance_of(tasks: Mapping[str, Mapping[str, object]] | None) -> str:
    """Unit of distances on these tasks: pictures have no millimetres."""
    return "pixels" if {task.get("dim", 3) for task in (tasks or {}).values()} == {2} else "mm"


def tables(models: Sequence[Model], distance: str = "mm") -> str:
    """One sortable table per measure; buttons choose."""
    buttons, parts = "", ""
    for i, measure in enumerate(MEASURE_NAMES):
        name = measure_name(measure, distance)
        pressed = "true" if i == 0 else "false"
        buttons += f'<button value="{measure}" aria-pressed="{pressed}">{name}</button>'
        hidden = "" if i == 0 else " hidden"
        parts += f'<div class="scroll" data-measure="{measure}"{hidden}>{_table(models, measure)}</div>'
    return f'<div class="tabs" data-group="measure">{buttons}</div><div class="card">{parts}</div>'


def _table(models: Sequence[Model], measure: str) -> str:
    values = {m.key: m.values(measure) for m in models}
    rows: list[Row] = list(dict.fromkeys((t, s) for v in values.values() for t, _, s in v))
    stats = {row: {k: of_row(v, row) for k, v in values.items()} for row in rows}
    axis = scale([s for per in stats.values() for s in per.values()], measure)
    two = pair(models)
    head = '<th data-sort>Task</th><th data-sort>Structure</th><th data-sort title="cases that show it">n</th>'
    head += "".join(f"<th data-sort>{key(m.key)} {escape(m.title)}</th>" for m in models)
    head += f"<th data-sort>{escape(difference_title(*two))}</th>" if two else ""
    body = "".join(_row(row, stats[row], values, models, measure, axis) for row in rows)
    shared = common(models, measure)
    means = {k: statistic(v) for k, v in shared.items()}
    cells = "".join(_cell(m.key, means[m.key], best(means, measure) == m.key, axis) for m in models)
    gap = _gap(difference(shared[two[0].key], shared[two[1].key]), measure) if two else ""
    n = max((s.n for s in means.values()), default=0)
    body += f'<tr class="mean"><td colspan="2">Mean over structures</td><td>{n}</td>{cells}{gap}</tr>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(
    row: Row,
    stats: Mapping[str, Stat],
    values: Mapping[str, Values],
    models: Sequence[Model],
    measure: str,
    axis: tuple[float, float],
) -> str:
    top = best(stats, measure)
    cells = "".join(_cell(m.key, stats[m.key], top == m.key, axis) for m in models)
    two = pair(models)
    if two is not None:
        first, second = ({k: v for k, v in values[m.key].items() if (k[0], k[2]) == row} for m in two)
        cells += _gap(difference(first, second), measure)
    n = max(s.n for s in stats.values())
    return f"<tr><td>{escape(row[0])}</td><td>{escape(row[1])}</td><td>{n}</td>{cells}</tr>"


def _digits(value: float) -> str:
    return f"{value:.3f}" if value < 2 else f"{value:.1f}"


def _cell(model_key: str, stat: Stat, top: bool, axis: tuple[float, float]) -> str:
    if not stat.n:
        return '<td class="none" data-v="">–</td>'
    chosen = " best" if top else ""
    return (
        f'<td class="{model_key}{chosen}" data-v="{stat.mean:.6g}" title="n = {stat.n}">'
        f'<span class="v"><b>{_digits(stat.mean)}</b>{bar(stat, model_key, *axis)}</span>'
        f'<span class="ci">{_digits(stat.low)} – {_digits(stat.high)}</span></td>'
    )


def _gap(gap: Stat, measure: str) -> str:
    if not gap.n:
        return '<td class="none" data-v="">–</td>'
    sign = -1 if measure in LOWER_IS_BETTER else 1
    clear = gap.low > 0 or gap.high < 0
    cls = "none" if not clear else "up" if sign * gap.mean > 0 else "down"
    digits = 1 if measure in LOWER_IS_BETTER else 3
    return (
        f'<td class="{cls}" data-v="{gap.mean:.6g}">{signed(gap.mean, digits)}'
        f'<span class="ci">{signed(gap.low, digits)} to {signed(gap.high, digits)}</span></td>'
    )


def cases(models: Sequence[Model]) -> str:
    """Per task one row of dots per case; beside them every structure as a point."""
    values = {m.key: m.values("dice") for m in models}
    tasks = list(dict.fromkeys(t for v in values.values() for t, _, _ in v))
    two = pair(models)
    blocks = ""
    for task in tasks:
        names = dict.fromkeys(c for v in values.values() for t, c, _ in v if t == task)
        rows = [(c, {k: _case_mean(v, task, c) for k, v in values.items()}) for c in names]
        rows = [(c, {k: x for k, x in per.items() if math.isfinite(x)}) for c, per in rows]
        rows.sort(key=ByModel(two[0].key if two else models[0].key))
        picture = dumbbells(rows, models, "mean Dice of the case")
        blocks += f'<div class="card"><h3>{escape(task or "All cases")}</h3>{picture}</div>'
    if two is not None:
        points = [
            (f"{c} {s}", values[two[1].key][t, c, s], x)
            for (t, c, s), x in values[two[0].key].items()
            if (t, c, s) in values[two[1].key]
        ]
        picture = scatter(points, (f"Dice, {two[1].title}", f"Dice, {two[0].title}"), two[0].key)
        blocks += f'<div class="card"><h3>Every case and structure</h3>{picture}</div>' if picture else ""
    return f'{legend(models)}<div class="grid two">{blocks}</div>'


def _case_mean(values: Values, task: str, case: str) -> float:
    known = [v for (t, c, _), v in values.items() if (t, c) == (task, case) and math.isfinite(v)]
    return sum(known) / len(known) if known else math.nan


class ByModel:
    """Sort key: the case's value of one model, unknown last."""

    def __init__(self, model_key: str) -> None:
        self.model_key = model_key

    def __call__(self, row: tuple[str, Mapping[str, float]]) -> float:
        return -row[1].get(self.model_key, -1.0)
