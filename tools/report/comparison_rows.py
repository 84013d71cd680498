"""The figures of a comparison: one row per member, over all structures and for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .comparison import Comparison, Member
from .numbers import Model, Row, Stat, difference, of_row, statistic
from .sections import Values, common
from .significance import Paired, holm, paired

__all__ = ["NOTHING", "MeasureRow", "MethodRow", "method_rows", "structure_rows"]

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
    """

    mean: Stat
    spread: float
    seeds: int
    gap: Stat
    test: Paired
    p_holm: float


@dataclass(frozen=True)
class MethodRow:
    """A member and its figures by measure.

    Args:
        member: the member.
        measures: figures, the cases and structures being those that all members have.
        missed: annotated structures that it did not find, the mean over seeds; NaN when not evaluated.
        shown: of how many annotated ones.
    """

    member: Member
    measures: Mapping[str, MeasureRow]
    missed: float
    shown: int


def method_rows(comparison: Comparison) -> list[MethodRow]:
    """A row for each member, in their order; of one that was not evaluated without figures."""
    every = {measure: common(comparison.models, measure) for measure in MEASURES}
    table = {measure: _measure(comparison, values) for measure, values in every.items()}
    for measure in MEASURES:
        for member in comparison.members:
            row = table[measure][member.model.key]
            spread, seeds = _spread(member, measure, every[measure].get(member.model.key, {}))
            table[measure][member.model.key] = MeasureRow(row.mean, spread, seeds, row.gap, row.test, row.p_holm)
    rows = []
    for member in comparison.members:
        missed, shown = _missed(member.model, every["dice"].get(member.model.key, {}))
        rows.append(MethodRow(member, {m: table[m][member.model.key] for m in MEASURES}, missed, shown))
    return rows


def structure_rows(comparison: Comparison) -> dict[Row, dict[str, dict[str, MeasureRow]]]:
    """``{(task, structure): {measure: {member's key: figures}}}``; p values are corrected within measure and row."""
    every = {measure: common(comparison.models, measure) for measure in MEASURES}
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
        rows[key] = MeasureRow(mean, math.nan, 0, gap, test, corrected.get(key, math.nan))
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
        rows = [r for r in run.rows if (r["task"], r["case"], r["structure"]) in shared and r["volume_label_ml"] > 0]
        shown |= {(r["task"], r["case"], r["structure"]) for r in rows}
        counts.append(sum(not r["volume_pred_ml"] > 0 for r in rows))
    if not counts:
        return math.nan, 0
    experts = any(r.kind == "expert" for r in seeds)
    return (float(sum(counts)) if experts else sum(counts) / len(counts)), len(shown)


def ordered(rows: Sequence[MethodRow], measure: str = "dice") -> list[MethodRow]:
    """Best first by the mean; what was not measured last."""
    return sorted(rows, key=lambda r: -r.measures[measure].mean.mean if r.measures[measure].mean.n else math.inf)
