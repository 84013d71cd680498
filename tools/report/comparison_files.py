"""A comparison's tables as CSV and Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from common.tables import csv_text, markdown_table, markdown_text

from .comparison import Comparison, Costs
from .comparison_rows import MeasureRow, MethodRow, method_rows, ordered, structure_rows
from .markdown import markdown_facts
from .numbers import LOWER_IS_BETTER, Stat
from .sections import measure_name, signed

__all__ = ["NOT_MEASURED", "csv_of_methods", "csv_of_structures", "markdown", "quantity"]

NOT_MEASURED = "not measured"
COSTS = {
    "parameters": "parameters",
    "trained": "trained_parameters",
    "multiply_adds_g": "multiply_adds_1e9_per_case",
    "steps": "steps",
    "used": "budget_used",
    "training_s": "training_seconds",
    "experts_s": "experts_training_seconds",
    "case_s": "inference_seconds_per_case",
    "training_mb": "training_peak_mb",
    "case_mb": "inference_peak_mb",
}


def csv_of_methods(comparison: Comparison) -> str:
    """A line per member; what was not measured is an empty field."""
    lines = []
    for row in method_rows(comparison):
        m = row.member
        line: dict[str, object] = {"method": m.name, "title": m.title, "bundle": m.bundle, "preset": m.preset}
        line |= {"prompted": m.prompted, "reference": m is comparison.reference}
        for measure, figures in row.measures.items():
            line |= _fields(measure, figures)
            line |= {f"{measure}_seeds": figures.seeds, f"{measure}_seeds_sd": _cell(figures.spread)}
        line |= {"missed_structures": _cell(row.missed), "annotated_structures": row.shown}
        line |= {"invented_structures": _cell(row.invented), "absent_structures": row.absent}
        line |= {name: _cell(getattr(m.costs, key)) for key, name in COSTS.items()}
        lines.append({**line, "ended_by_clock": m.costs.clock, "failure": m.failure.split("\n")[0]})
    return csv_text(lines)


def csv_of_structures(comparison: Comparison) -> str:
    """A line per structure of a task and member."""
    lines = []
    for (task, structure), per in structure_rows(comparison).items():
        for m in comparison.members:
            line: dict[str, object] = {"task": task, "structure": structure, "method": m.name, "prompted": m.prompted}
            for measure, figures in per.items():
                line |= _fields(measure, figures[m.model.key])
            lines.append(line)
    return csv_text(lines)


def _fields(measure: str, row: MeasureRow) -> dict[str, object]:
    names: dict[str, float] = {"mean": row.mean.mean, "low": row.mean.low, "high": row.mean.high}
    names |= {"minus_reference": row.gap.mean, "minus_low": row.gap.low, "minus_high": row.gap.high}
    names |= {"wilcoxon_p": row.test.p, "holm_p": row.p_holm}
    counts = {"cases": row.mean.n, "pairs": row.test.n, "values_without_partner": row.test.left_out}
    return {
        **{f"{measure}_{k}": _cell(v) for k, v in names.items()},
        **{f"{measure}_{k}": v for k, v in counts.items()},
    }


def _cell(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def quantity(value: float, unit: str) -> str:
    """A cost for people: ``M`` and ``GB`` are divided, shares become per cent, seconds minutes and hours."""
    if not math.isfinite(value):
        return NOT_MEASURED
    if unit == "time":
        return _time(value)
    shown = {"M": value / 1e6, "GB": value / 1e3, "%": value * 100}.get(unit, value)
    text = f"{shown:,.0f}" if shown >= 100 or unit == "" else f"{shown:.3g}"
    return f"{text} {unit}".strip()


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 60 else f"{minutes / 60:.1f} h"


def markdown(comparison: Comparison, facts: Sequence[tuple[str, str]] = ()) -> str:
    """What it was made with, the methods' table, their costs, and a table of Dice and HD95 per structure."""
    parts = [markdown_facts(facts)]
    rows = ordered(method_rows(comparison))
    parts.append(
        f"**Agreement**, tests against {markdown_text(comparison.reference.title)}\n\n{_agreement(comparison, rows)}"
    )
    parts.append(f"**Costs**\n\n{_costs(rows)}")
    for measure in ("dice", "hd95"):
        parts.append(
            f"**{measure_name(measure, comparison.distance)} by structure**\n\n{_structures(comparison, measure)}"
        )
    return "\n\n".join(p for p in parts if p) + "\n"


def _agreement(comparison: Comparison, rows: Sequence[MethodRow]) -> str:
    head = [
        "method",
        "Dice [95 %]",
        "seeds",
        "difference",
        "p (Holm)",
        f"HD95 {comparison.distance} [95 %]",
        "p (Holm)",
        "missed",
        "invented",
    ]
    lines = []
    for row in rows:
        dice, far = row.measures["dice"], row.measures["hd95"]
        same = row.member is comparison.reference
        line = [
            markdown_text(row.member.model.title),
            shown(dice.mean, "dice"),
            seeds(dice),
            *(["–", "–"] if same else [gap(dice), p_value(dice)]),
        ]
        lines.append([*line, shown(far.mean, "hd95"), "–" if same else p_value(far), missed(row), invented(row)])
    return markdown_table(head, lines, left=1)


def _costs(rows: Sequence[MethodRow]) -> str:
    head = ["method", *(name for name, _, _ in COST_COLUMNS)]
    lines = [
        [markdown_text(r.member.model.title), *(quantity(getattr(r.member.costs, k), u) for _, k, u in COST_COLUMNS)]
        for r in rows
    ]
    return markdown_table(head, lines, left=1)


COST_COLUMNS = (
    ("parameters", "parameters", "M"),
    ("trained", "trained", "M"),
    ("10^9 multiply-adds/case", "multiply_adds_g", "G"),
    ("steps", "steps", ""),
    ("budget used", "used", "%"),
    ("training", "training_s", "time"),
    ("experts before", "experts_s", "time"),
    ("network/case", "case_s", "time"),
    ("peak training", "training_mb", "GB"),
    ("peak inference", "case_mb", "GB"),
)
"""Heading, name in :class:`Costs`, unit."""
assert all(hasattr(Costs, key) for _, key, _ in COST_COLUMNS)


def _structures(comparison: Comparison, measure: str) -> str:
    lines = []
    for (task, structure), per in structure_rows(comparison).items():
        cells = [shown(per[measure][m.model.key].mean, measure) for m in comparison.members]
        lines.append([markdown_text(task), markdown_text(structure), *cells])
    return markdown_table(
        ["task", "structure", *(markdown_text(m.model.title) for m in comparison.members)], lines, left=2
    )


def shown(stat: Stat, measure: str) -> str:
    """A mean with its interval."""
    if not stat.n:
        return NOT_MEASURED
    digits = 1 if measure in LOWER_IS_BETTER else 3
    return f"{stat.mean:.{digits}f} [{stat.low:.{digits}f}, {stat.high:.{digits}f}]"


def gap(row: MeasureRow) -> str:
    """The difference to the reference with its interval."""
    if not row.gap.n:
        return NOT_MEASURED
    return f"{signed(row.gap.mean)} [{signed(row.gap.low)}, {signed(row.gap.high)}]"


def p_value(row: MeasureRow) -> str:
    """The corrected p value."""
    if not math.isfinite(row.p_holm):
        return NOT_MEASURED
    return "< 0.001" if row.p_holm < 0.001 else f"{row.p_holm:.3f}"


def seeds(row: MeasureRow) -> str:
    """The spread over seeds."""
    return f"± {row.spread:.3f} ({row.seeds})" if math.isfinite(row.spread) else "one" if row.mean.n else NOT_MEASURED


def missed(row: MethodRow) -> str:
    """How many annotated structures were not found."""
    return f"{row.missed:.3g} of {row.shown}" if math.isfinite(row.missed) else NOT_MEASURED


def invented(row: MethodRow) -> str:
    """How many structures were predicted that the annotation does not have."""
    if row.member.prompted:
        return "not asked"
    if not math.isfinite(row.invented):
        return NOT_MEASURED
    return f"{row.invented:.3g} of {row.absent}" if row.absent else "none absent"
