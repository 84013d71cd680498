"""Comparisons between models: pooled over seeds, paired by case, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.engine.evaluation.score_summary import bootstrap_interval

from .results import Run, Study

__all__ = [
    "LOWER_IS_BETTER",
    "Model",
    "Stat",
    "best",
    "difference",
    "difference_title",
    "models_of",
    "statistic",
    "variant_keys",
]

LOWER_IS_BETTER = frozenset({"hd95", "hd"})
BOOTSTRAP: dict[str, int] = {"seed": 0, "n_boot": 1000}

Row = tuple[str, str]
"""A task and a structure."""


class Stat(NamedTuple):
    """A mean with its 95 % interval over n cases."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Model:
    """What one column of the report shows: one or several runs (seeds, or each task's expert) taken together.

    Args:
        key: "expert", "alone", "amalgamated" or "run<i>"; also its colour.
        title: for people.
        runs: its runs.
    """

    key: str
    title: str
    runs: tuple[Run, ...]

    def values(self, measure: str) -> dict[tuple[str, str, str], float]:
        """``{(task, case, structure): value}``, the mean over runs that scored it."""
        found: dict[tuple[str, str, str], list[float]] = {}
        for run in self.runs:
            for r in run.rows:
                found.setdefault((r["task"], r["case"], r["structure"]), []).append(r[measure])
        return {k: _mean(v) for k, v in found.items()}

    def seed_means(self, measure: str) -> list[float]:
        """The overall mean of each run by itself."""
        return [statistic(Model(self.key, r.title, (r,)).values(measure)).mean for r in self.runs if r.rows]


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if math.isfinite(v)]
    return sum(known) / len(known) if known else math.nan


def models_of(study: Study) -> list[Model]:
    """The columns: experts together, the student alone, the amalgamated one, variants; single runs by themselves."""
    if study.chain is None:
        return [Model(f"run{i}", r.title, (r,)) for i, r in enumerate(study.runs) if r.rows]
    titles = {"expert": "Each task’s expert", **{k: study.words[k] for k in ("alone", "amalgamated")}}
    groups = [Model(k, t, tuple(study.kind(k))) for k, t in titles.items()]
    for name, key in variant_keys(study).items():
        runs = tuple(r for r in study.kind("variant") if r.variant == name)
        groups.append(Model(key, runs[0].title.rsplit(" (seed", 1)[0], runs))
    return [m for m in groups if any(r.rows for r in m.runs)]


def variant_keys(study: Study) -> dict[str, str]:
    """A colour for each kind of optional run, by its name in the chain; the first three are other kinds'."""
    names = dict.fromkeys(r.variant for r in study.kind("variant"))
    return {name: f"run{3 + i % 13}" for i, name in enumerate(names)}


def table(values: Mapping[tuple[str, str, str], float]) -> NDArray[np.float64]:
    """``[cases, (task, structure) pairs]``, NaN where not measured."""
    cases = {c: i for i, c in enumerate(dict.fromkeys((t, c) for t, c, _ in values))}
    pairs = {p: i for i, p in enumerate(dict.fromkeys((t, s) for t, _, s in values))}
    out = np.full((len(cases), len(pairs)), np.nan)
    for (t, c, s), v in values.items():
        out[cases[t, c], pairs[t, s]] = v
    return out


def statistic(values: Mapping[tuple[str, str, str], float]) -> Stat:
    """Mean over (task, structure) pairs of the means over cases; the interval resamples cases within their task."""
    matrix = table(values)
    known = np.isfinite(matrix)
    columns = [_mean(c.tolist()) for c in matrix.T]
    mean = _mean(columns)
    if not math.isfinite(mean):
        return Stat(math.nan, math.nan, math.nan, 0)
    tasks = [t for t, _ in dict.fromkeys((t, c) for t, c, _ in values)]
    low, high = bootstrap_interval(matrix, groups=tasks, **BOOTSTRAP)
    return Stat(mean, low, high, int(known.any(axis=1).sum()))


def of_row(values: Mapping[tuple[str, str, str], float], row: Row) -> Stat:
    """The statistic of one structure of one task."""
    return statistic({k: v for k, v in values.items() if (k[0], k[2]) == row})


def difference(first: Mapping[tuple[str, str, str], float], second: Mapping[tuple[str, str, str], float]) -> Stat:
    """First minus second over the cases and structures that both have (paired)."""
    return statistic({k: v - second[k] for k, v in first.items() if k in second})


def difference_title(first: Model, second: Model) -> str:
    """What a column of differences is called, in short."""
    less = "alone" if second.key == "alone" else (second.title.split() or ["second"])[-1]
    return f"{(first.title.split() or ['first'])[0]} − {less}"


def best(stats: Mapping[str, Stat], measure: str) -> str | None:
    """Key of the best mean; None when fewer than two are known or the best is shared."""
    known = {k: round(s.mean, 4) for k, s in stats.items() if s.n}
    if len(known) < 2:
        return None
    top = (min if measure in LOWER_IS_BETTER else max)(known.values())
    winners = [k for k, v in known.items() if v == top]
    return winners[0] if len(winners) == 1 else None
