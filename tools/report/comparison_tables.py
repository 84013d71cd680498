"""The tables of a comparison's page; what was not measured says so and sorts last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .cells import NOTHING, Cell, Head, Line, Table, sense
from .comparison import Comparison, Member
from .comparison_files import COST_COLUMNS, NOT_MEASURED, gap, invented, missed, p_value, quantity, seeds, shown
from .comparison_rows import MeasureRow, MethodRow, structure_rows, top
from .numbers import Stat

__all__ = ["costs", "methods_table", "structures"]

NONE = Cell(NOT_MEASURED, "", "none")


def methods_table(comparison: Comparison, rows: Sequence[MethodRow]) -> Table:
    """Agreement of each member, and how sure its difference to the reference is."""
    distance = f"HD95 ({comparison.distance})"
    names = ["Method", "Dice", "Seeds", "Difference", "p", distance, "p", "Missed", "Invented"]
    tops = {m: top(comparison, {r.member.model.key: r.measures[m] for r in rows}, m) for m in ("dice", "hd95")}
    lines = []
    for row in rows:
        dice, far, key = row.measures["dice"], row.measures["hd95"], row.member.model.key
        same = row.member is comparison.reference
        cells = [
            _name(row.member, same),
            _mean(dice.mean, "dice", tops["dice"] == key),
            _cell(seeds(dice), dice.spread),
        ]
        cells += [NOTHING, NOTHING] if same else [_cell(gap(dice), dice.gap.mean, sense(dice.gap)), _p(dice)]
        cells += [_mean(far.mean, "hd95", tops["hd95"] == key), NOTHING if same else _p(far)]
        cells += [_cell(missed(row), row.missed), _cell(invented(row), row.invented)]
        lines.append(Line(cells))
    return Table([Head(n) for n in names], lines)


def _name(member: Member, reference: bool = False) -> Cell:
    pills = [word for word, so in (("prompted", member.prompted), ("reference", reference)) if so]
    return Cell(member.title, member.title, key=member.model.key, pills=pills)


def _mean(stat: Stat, measure: str, top: bool, mark: str = "") -> Cell:
    if not stat.n:
        return NONE
    value, _, span = shown(stat, measure).partition(" ")
    return Cell(value + mark, f"{stat.mean:.6g}", "best" if top else "", span, mean=True)


def _cell(text: str, value: float, cls: str = "") -> Cell:
    return NONE if text == NOT_MEASURED else Cell(text, f"{value:.6g}" if math.isfinite(value) else "", cls)


def _p(row: MeasureRow) -> Cell:
    return _cell(p_value(row), row.p_holm, "clear" if row.p_holm < 0.05 else "")


def costs(rows: Sequence[MethodRow]) -> Table:
    """What each member costs."""
    heads = [Head(n[0].upper() + n[1:]) for n in ("method", *(c[0] for c in COST_COLUMNS))]
    lines = []
    for row in rows:
        own = row.member.costs
        cells = [_cell(quantity(getattr(own, k), unit), getattr(own, k)) for _, k, unit in COST_COLUMNS]
        lines.append(Line([_name(row.member), *cells]))
    return Table(heads, lines)


def structures(comparison: Comparison) -> list[Table]:
    """A table of structures per measure; none without a structure."""
    rows = structure_rows(comparison)
    names = (("dice", "Dice"), ("hd95", f"HD95 ({comparison.distance})"))
    return [_structure_table(comparison, rows, *named) for named in names] if rows else []


def _structure_table(comparison: Comparison, rows: Mapping[Any, Any], measure: str, name: str) -> Table:
    heads = [Head("Task"), Head("Structure"), *(Head(m.model.title, m.model.key) for m in comparison.members)]
    lines = []
    for (task, structure), per in rows.items():
        own: Mapping[str, MeasureRow] = per[measure]
        leader = top(comparison, own, measure)
        known = [(k, own[k]) for k in (m.model.key for m in comparison.members)]
        cells = [_mean(r.mean, measure, leader == k, "*" if r.p_holm < 0.05 else "") for k, r in known]
        lines.append(Line([Cell(task), Cell(structure), *cells]))
    return Table(heads, lines, name, measure)
