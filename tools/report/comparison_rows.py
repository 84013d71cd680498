"""The figures of a comparison: one row per member, over all structures and for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .comparison import Comparison, Member
from .numbers import Model, Row, Stat, best, difference, of_row, statistic
from .sections import Values, common
from .significance import Paired, holm, paired

__all__ = ["NOTHING", "MeasureRow", "MethodRow", "annotated_values", "method_rows", "structure_rows", "top"]

MEASURES = ("dice", "hd95")
NOTHING = Stat(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class MeasureRow:
    """A member's figures in one measure.

    Args:
        mean: over structures of the means over cases, with its interval.
        spread: standard deviation (n - 1) of the seeds' means, NaN for one seed.
        seeds: how many.
        gap: minus the reference, paired by case and structure.
        test: against the reference.
        p_holm: its p value corrected for the number of members.
        known: of how many annotated structures of cases it has a value.
    """

    mean: Stat
    spread: float
    seeds: int
    gap: Stat
    test: Paired
    p_holm: float
    known: int = 0


@dataclass(frozen=True)
class MethodRow:
    """A member and its figures by measure.

    Args:
        member: the member.
        measures: figures over the annotated structures of the cases that all members have.
        missed: annotated structures that it did not find, the mean over seeds; NaN when not evaluated.
        shown: of how many annotated ones.
        invented: structures that it predicted where the annotation has none, the mean over seeds; NaN when not
            evaluated or when it is told what to look for.
        absent: of how many that the annotation does not have.
    """

    member: Member
    measures: Mapping[str, MeasureRow]
    missed: float
    shown: int
    invented: float = math.nan
    absent: int = 0


def annotated_values(comparison: Comparison, measure: str) -> dict[str, Values]:
    """Each member's values on the annotated structures of the cases that all have.

    A structure that a case does not show has no agreement: who rightly finds nothing would be left out of a mean that
    counts another's invention as 0. Inventions are counted by themselves, see :class:`MethodRow`.
    """
    shown = {_key(r) for m in comparison.models for run in m.runs for r in run.rows if r["volume_label_ml"] > 0}
    return {k: {c: x for c, x in v.items() if c in shown} for k, v in common(comparison.models, measure).items()}


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["task"], row["case"], row["structure"]


def top(comparison: Comparison, rows: Mapping[str, MeasureRow], measure: str) -> str | None:
    """Key of the best mean among those that are not prompted; None where these found different structures.

    A distance has no value where a structure was not found: a mean over fewer of them is no better for being smaller.
    """
    own = {m.model.key: rows[m.model.key] for m in comparison.members if not m.prompted}
    if len({r.known for r in own.values() if r.mean.n}) > 1:
        return None
    return best({k: r.mean for k, r in own.items()}, measure)


def method_rows(comparison: Comparison) -> list[MethodRow]:
    """A row for each member, in their order; of one that was not evaluated without figures."""
    every = {measure: annotated_values(comparison, measure) for measure in MEASURES}
    table = {measure: _measure(comparison, values) for measure, values in every.items()}
    for measure in MEASURES:
        for member in comparison.members:
            row = table[measure][member.model.key]
            spread, seeds = _spread(member, measure, every[measure].get(member.model.key, {}))
            table[measure][member.model.key] = replace(row, spread=spread, seeds=seeds)
    rows = []
    for member in comparison.members:
        missed, shown = _missed(member.model, every["dice"].get(member.model.key, {}))
        figures = {m: table[m][member.model.key] for m in MEASURES}
        rows.append(MethodRow(member, figures, missed, shown, *_invented(member)))
    return rows


def structure_rows(comparison: Comparison) -> dict[Row, dict[str, dict[str, MeasureRow]]]:
    """``{(task, structure): {measure: {member's key: figures}}}``; p values are corrected within measure and row."""
    every = {measure: annotated_values(comparison, measure) for measure in MEASURES}
    pairs = list(dict.fromkeys((t, s) for v in every["dice"].values() for t, _, s in v))
    found = {}
    for pair in sorted(pairs, key=pairs.index):
        own = {m: {k: _only(v, pair) for k, v in values.items()} for m, values in every.items()}
        found[pair] = {m: _measure(comparison, values, pair) for m, values in own.items()}
    return found


def _only(values: Values, pair: Row) -> Values:
    return {k: v for k, v in values.items() if (k[0], k[2]) == pair}


def _measure(comparison: Comparison, values: Mapping[str, Values], pair: Row | None = None) -> dict[str, MeasureRow]:
    reference = comparison.reference.model.key
    against = values.get(reference, {})
    tests = {k: paired(v, against) for k, v in values.items() if k != reference}
    corrected = holm({k: t.p for k, t in tests.items()})
    rows = {}
    for member in comparison.members:
        key = member.model.key
        own = values.get(key, {})
        mean = (statistic(own) if pair is None else of_row(own, pair)) if own else NOTHING
        gap = difference(own, against) if key in tests else NOTHING
        test = tests.get(key, Paired(math.nan, 0, 0, 0))
        known = sum(math.isfinite(v) for v in own.values())
        rows[key] = MeasureRow(mean, math.nan, 0, gap, test, corrected.get(key, math.nan), known)
    return rows


def _spread(member: Member, measure: str, shared: Values) -> tuple[float, int]:
    """Standard deviation of the seeds' means over what all members share; experts of different tasks are no seeds."""
    runs = [r for r in member.model.runs if r.rows]
    if any(r.kind == "expert" for r in runs):
        return math.nan, 1
    means = []
    for run in runs:
        own = Model(member.model.key, run.title, (run,)).values(measure)
        means.append(statistic({k: v for k, v in own.items() if k in shared}).mean)
    known = [m for m in means if math.isfinite(m)]
    return (float(np.std(known, ddof=1)) if len(known) > 1 else math.nan), len(runs)


def _missed(model: Model, shared: Values) -> tuple[float, int]:
    counts: list[int] = []
    shown: set[tuple[str, str, str]] = set()
    seeds = [r for r in model.runs if r.rows]
    for run in seeds:
        rows = [r for r in run.rows if _key(r) in shared and r["volume_label_ml"] > 0]
        shown |= {_key(r) for r in rows}
        counts.append(sum(not r["volume_pred_ml"] > 0 for r in rows))
    if not counts:
        return math.nan, 0
    experts = any(r.kind == "expert" for r in seeds)
    return (float(sum(counts)) if experts else sum(counts) / len(counts)), len(shown)


def _invented(member: Member) -> tuple[float, int]:
    """Predictions of structures that the annotation does not have; who is told what to look for invents none."""
    seeds = [[r for r in run.rows if not r["volume_label_ml"] > 0] for run in member.model.runs if run.rows]
    if not seeds or member.prompted:
        return math.nan, 0
    counts = [sum(r["volume_pred_ml"] > 0 for r in rows) for rows in seeds]
    absent = {_key(r) for rows in seeds for r in rows}
    experts = any(r.kind == "expert" for r in member.model.runs)
    return (float(sum(counts)) if experts else sum(counts) / len(counts)), len(absent)


def ordered(rows: Sequence[MethodRow], measure: str = "dice") -> list[MethodRow]:
    """Best first by the mean; what was not measured last."""
    return sorted(rows, key=lambda r: -r.measures[measure].mean.mean if r.measures[measure].mean.n else math.inf)
