"""The page's tables once more as Markdown, for a bundle's document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.tables import markdown_code, markdown_table, markdown_text

from .numbers import LOWER_IS_BETTER, Model, Stat, best, difference, difference_title, models_of, of_row, statistic
from .results import Study
from .sections import Values, common, distance_of, measure_name, pair, signed

__all__ = ["markdown_facts", "tables"]


def tables(study: Study, facts: Sequence[tuple[str, str]] = (), measures: Sequence[str] = ("dice", "hd95")) -> str:
    """One table per measure, ``mean [95 % interval]`` per structure, below what they were made with.

    Args:
        study: what was measured.
        facts: names and values that go above the tables.
        measures: columns of ``cases.csv``.
    """
    models = models_of(study)
    parts = [p for p in (markdown_facts(facts),) if p]
    for measure in measures if models else ():
        parts.append(
            f"**{measure_name(measure, distance_of((study.chain or {}).get('tasks')))}**\n\n{_table(models, measure)}"
        )
    return "\n\n".join(parts) + "\n"


def _table(models: Sequence[Model], measure: str) -> str:
    values = {m.key: m.values(measure) for m in models}
    rows = list(dict.fromkeys((t, s) for v in values.values() for t, _, s in v))
    lines = []
    for row in rows:
        own = {k: {c: x for c, x in v.items() if (c[0], c[2]) == row} for k, v in values.items()}
        lines.append(
            [*map(markdown_text, row), *_cells(models, {k: of_row(v, row) for k, v in values.items()}, own, measure)]
        )
    shared = common(models, measure)
    lines.append(
        ["all", "mean over structures", *_cells(models, {k: statistic(v) for k, v in shared.items()}, shared, measure)]
    )
    head = ["task", "structure", "n", *(markdown_text(m.title) for m in models)]
    two = pair(models)
    if two is not None:
        head.append(markdown_text(difference_title(*two)))
    return markdown_table(head, lines, left=2)


def _cells(models: Sequence[Model], stats: Mapping[str, Stat], values: Mapping[str, Values], measure: str) -> list[str]:
    digits = 1 if measure in LOWER_IS_BETTER else 3
    top = best(stats, measure)
    cells = [str(max((s.n for s in stats.values()), default=0))]
    for model in models:
        text = _shown(stats[model.key], digits)
        cells.append(f"**{text}**" if model.key == top else text)
    two = pair(models)
    if two is not None:
        gap = difference(values[two[0].key], values[two[1].key])
        span = f"{signed(gap.mean, digits)} [{signed(gap.low, digits)}, {signed(gap.high, digits)}]"
        cells.append(span if gap.n else "–")
    return cells


def _shown(stat: Stat, digits: int) -> str:
    if not stat.n:
        return "–"
    return f"{stat.mean:.{digits}f} [{stat.low:.{digits}f}, {stat.high:.{digits}f}]"


def markdown_facts(facts: Sequence[tuple[str, str]]) -> str:
    """Names and values as a list; one without a name belongs to the one above it."""
    marked = {"Command": markdown_code}
    shown = [(markdown_text(name), marked.get(name, markdown_text)(value)) for name, value in facts if value]
    return "\n".join(f"- {name}: {value}" if name else f"  - {value}" for name, value in shown)
