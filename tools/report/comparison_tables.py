"""The tables of a comparison's page; what was not measured says so and sorts last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .comparison import Comparison, Member
from .comparison_files import COST_COLUMNS, NOT_MEASURED, gap, invented, missed, p_value, quantity, seeds, shown
from .comparison_rows import MeasureRow, MethodRow, structure_rows, top
from .numbers import Stat
from .sections import key

__all__ = ["costs", "methods_table", "structures"]

NONE = f'<td class="none" data-v="">{NOT_MEASURED}</td>'


def methods_table(comparison: Comparison, rows: Sequence[MethodRow]) -> str:
    """Agreement of each member, and how sure its difference to the reference is."""
    distance = f"HD95 ({comparison.distance})"
    names = ["Method", "Dice", "Seeds", "Difference", "p", distance, "p", "Missed", "Invented"]
    head = "".join(f"<th data-sort>{n}</th>" for n in names)
    tops = {m: top(comparison, {r.member.model.key: r.measures[m] for r in rows}, m) for m in ("dice", "hd95")}
    body = ""
    for row in rows:
        dice, far = row.measures["dice"], row.measures["hd95"]
        same = row.member is comparison.reference
        cells = _name(row.member, same) + _mean(dice.mean, "dice", tops["dice"] == row.member.model.key)
        cells += _cell(seeds(dice), dice.spread)
        cells += _reference() * 2 if same else _cell(gap(dice), dice.gap.mean, _sense(dice)) + _p(dice)
        cells += _mean(far.mean, "hd95", tops["hd95"] == row.member.model.key) + (_reference() if same else _p(far))
        cells += _cell(missed(row), row.missed) + _cell(invented(row), row.invented)
        body += f"<tr>{cells}</tr>"
    return f'<table id="methods"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _name(member: Member, reference: bool = False) -> str:
    marks = '<span class="pill">prompted</span>' if member.prompted else ""
    marks += '<span class="pill">reference</span>' if reference else ""
    return f'<td data-v="{escape(member.title)}">{key(member.model.key)} {escape(member.title)} {marks}</td>'


def _mean(stat: Stat, measure: str, top: bool) -> str:
    if not stat.n:
        return NONE
    value, _, span = shown(stat, measure).partition(" ")
    cls = ' class="best"' if top else ""
    return f'<td{cls} data-v="{stat.mean:.6g}"><span class="v"><b>{value}</b></span><span class="ci">{span}</span></td>'


def _cell(text: str, value: float, cls: str = "") -> str:
    if text == NOT_MEASURED:
        return NONE
    raw = f"{value:.6g}" if math.isfinite(value) else ""
    return f'<td class="{cls}" data-v="{raw}">{escape(text)}</td>'


def _p(row: MeasureRow) -> str:
    return _cell(p_value(row), row.p_holm, "clear" if row.p_holm < 0.05 else "")


def _reference() -> str:
    return '<td class="none" data-v="">–</td>'


def _sense(row: MeasureRow) -> str:
    return "up" if row.gap.low > 0 else "down" if row.gap.high < 0 else ""


def costs(rows: Sequence[MethodRow]) -> str:
    """The section of costs."""
    head = "".join(
        f"<th data-sort>{escape(n[0].upper() + n[1:])}</th>" for n in ("method", *(c[0] for c in COST_COLUMNS))
    )
    body = ""
    for row in rows:
        own = row.member.costs
        cells = "".join(_cell(quantity(getattr(own, k), unit), getattr(own, k)) for _, k, unit in COST_COLUMNS)
        body += f"<tr>{_name(row.member)}{cells}</tr>"
    note = (
        "Measured in these runs. Steps and training are the method’s own (of all experts together where these are the "
        "method); “experts before” is the time of all trainings that it needs first, each at the same budget; "
        "validations during a training count. “Budget used” is the mean share of the budget’s steps, or of its minutes "
        "(those of steps, without validation). Multiply-adds are of the first case of each task, all windows or slices "
        "together. Memory is the process’s peak on a CPU, that of tensors on a GPU. Times depend on what else the "
        "machine does."
    )
    table = f'<table id="costs-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<h2>What it costs</h2><p class="sub">{note}</p><div class="card scroll">{table}</div>'


def structures(comparison: Comparison) -> str:
    """The section of structures: a table per measure; buttons choose."""
    rows = structure_rows(comparison)
    if not rows:
        return ""
    buttons, parts = "", ""
    for i, (measure, name) in enumerate((("dice", "Dice"), ("hd95", f"HD95 ({comparison.distance})"))):
        buttons += f'<button value="{measure}" aria-pressed="{str(i == 0).lower()}">{name}</button>'
        hidden = " hidden" if i else ""
        parts += (
            f'<div class="scroll" data-measure="{measure}"{hidden}>{_structure_table(comparison, rows, measure)}</div>'
        )
    note = (
        "Mean and 95 % interval over cases that show the structure. The best mean of methods that are not prompted is "
        "bold; of distances only where they all found the structure as often. A star marks p &lt; 0.05 against the "
        "reference, corrected by Holm within the row."
    )
    tabs = f'<div class="tabs" data-group="measure">{buttons}</div>'
    return f'<h2>Structure by structure</h2><p class="sub">{note}</p>{tabs}<div class="card">{parts}</div>'


def _structure_table(comparison: Comparison, rows: Mapping[Any, Any], measure: str) -> str:
    head = "<th data-sort>Task</th><th data-sort>Structure</th>"
    head += "".join(f"<th data-sort>{key(m.model.key)} {escape(m.model.title)}</th>" for m in comparison.members)
    body = ""
    for (task, structure), per in rows.items():
        own: Mapping[str, MeasureRow] = per[measure]
        leader = top(comparison, own, measure)
        cells = ""
        for m in comparison.members:
            cell = _mean(own[m.model.key].mean, measure, leader == m.model.key)
            cells += cell.replace("</b>", "*</b>", 1) if own[m.model.key].p_holm < 0.05 else cell
        body += f"<tr><td>{escape(task)}</td><td>{escape(structure)}</td>{cells}</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
