"""Means, medians and bootstrap intervals over cases, and the files that carry them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...atomic import atomic_write
from ...errors import ConfigError, DataError
from ...tables import read_csv, write_csv
from .scores import MEASURES

__all__ = ["bootstrap_interval", "read_case_csv", "summary", "write_case_csv", "write_summary_json"]

COLUMNS = ("case", "task", "structure", *MEASURES, "volume_pred_ml", "volume_label_ml")


def bootstrap_interval(
    values: NDArray[np.float64],
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    n_boot: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over cases.

    Cases (rows) are drawn with replacement; a matrix ``[cases, structures]`` gives the mean over structures of the
    means over cases, NaN entries left out of each. With ``groups`` as many cases are drawn within each group as it has:
    otherwise a draw without a case of some task would be a mean over the structures of the others. A group of one case
    then adds nothing to the interval's width.

    Args:
        values: ``[n]`` or ``[n, structures]``, NaN where not measured.
        groups: the task of each case, ``n`` names; None when there is one.
        seed: of numpy's generator; the same seed gives the same interval.
        n_boot: number of resamples, >= 1.
        level: coverage in (0, 1).

    Returns:
        lower and upper bound; both NaN without a finite value.

    Raises:
        ConfigError: for a level outside (0, 1), no resamples, or not one group per case.

    Reference: Efron & Tibshirani, An Introduction to the Bootstrap, ch. 13 (percentiles) and 8 (several samples).
    """
    if n_boot < 1 or not 0 < level < 1:
        raise ConfigError("bootstrap needs n_boot >= 1 and a level in (0, 1)", got=(n_boot, level))
    table = np.asarray(values, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    names = np.zeros(len(table), dtype=int) if groups is None else np.asarray(list(groups), dtype=object)
    if len(names) != len(table):
        raise ConfigError("every case is of one group", where="groups", got=len(names), expected=len(table))
    measured = np.isfinite(table).any(axis=1)
    table, names = table[measured], names[measured]
    if not len(table):
        return math.nan, math.nan
    members = [np.flatnonzero(names == g) for g in dict.fromkeys(names.tolist())]
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, n_boot, 256):
        count = min(256, n_boot - start)
        draws = [m[rng.integers(0, len(m), size=(count, len(m)))] for m in members]
        means.append(_mean_of_means(table[np.concatenate(draws, axis=1)]))
    bounds = np.nanpercentile(np.concatenate(means), [50 * (1 - level), 50 * (1 + level)])
    return float(bounds[0]), float(bounds[1])


def _mean_of_means(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[draws, cases, structures]`` -> ``[draws]``, NaN left out."""
    known = np.isfinite(samples)
    count = known.sum(axis=1)
    total = np.where(known, samples, 0.0).sum(axis=1)
    per_structure = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    seen = np.isfinite(per_structure)
    out: NDArray[np.float64] = np.where(seen, per_structure, 0.0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    return out


def _statistics(
    table: NDArray[np.float64], tasks: Sequence[str], seed: int, n_boot: int
) -> dict[str, float | int | None]:
    table = table[:, None] if table.ndim == 1 else table
    rows = table[np.isfinite(table).any(axis=1)]
    if not len(rows):
        return {"mean": None, "median": None, "low": None, "high": None, "n": 0}
    low, high = bootstrap_interval(table, groups=tasks, seed=seed, n_boot=n_boot)
    return {
        "mean": float(_mean_of_means(rows[None])[0]),
        "median": float(np.nanmedian(rows)),
        "low": low,
        "high": high,
        "n": len(rows),
    }


def _counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How often the structure was absent from both maps, missed, or predicted although not annotated."""
    found = [(r["volume_label_ml"] > 0, r["volume_pred_ml"] > 0) for r in rows]
    return {
        "cases": len(rows),
        "absent": found.count((False, False)),
        "missed": found.count((True, False)),
        "false_positive": found.count((False, True)),
    }


def _table(rows: Sequence[Mapping[str, Any]], measure: str) -> NDArray[np.float64]:
    """``[cases, structures]`` of one measure, NaN where there is no row."""
    cases = list(dict.fromkeys((r["task"], r["case"]) for r in rows))
    names = list(dict.fromkeys(r["structure"] for r in rows))
    table = np.full((len(cases), len(names)), np.nan)
    at = {c: i for i, c in enumerate(cases)}
    for r in rows:
        table[at[r["task"], r["case"]], names.index(r["structure"])] = r[measure]
    return table


def _block(rows: Sequence[Mapping[str, Any]], seed: int, n_boot: int) -> dict[str, Any]:
    structures = {}
    for name in dict.fromkeys(r["structure"] for r in rows):
        own = [r for r in rows if r["structure"] == name]
        of = [r["task"] for r in own]
        columns = {m: _statistics(np.array([r[m] for r in own], dtype=float), of, seed, n_boot) for m in MEASURES}
        structures[name] = {**_counts(own), **columns}
    tasks = [task for task, _ in dict.fromkeys((r["task"], r["case"]) for r in rows)]
    mean = {m: _statistics(_table(rows, m), tasks, seed, n_boot) for m in MEASURES}
    return {"cases": len({(r["task"], r["case"]) for r in rows}), "structures": structures, "mean": mean}


def summary(rows: Iterable[Mapping[str, Any]], seed: int = 0, n_boot: int = 1000) -> dict[str, Any]:
    """Per structure, per task and over all: mean, median, 95 % bootstrap interval and counts.

    The mean over structures gives each structure the same weight: ``mean_s(mean_case(measure))``; resampling is by
    case within each task, so that the structures of one patient stay together and no task is drawn away.

    Args:
        rows: rows of :func:`case_metrics` with ``case`` and ``task`` added.
        seed: of the bootstrap.
        n_boot: number of resamples.

    Returns:
        ``{"all": block, "tasks": {task: block}}``, a block being ``{"cases", "structures": {name: {"cases", "absent",
        "missed", "false_positive", measure: {"mean", "median", "low", "high", "n"}}}, "mean": {measure: {...}}}``.
        What cannot be computed is None.

    Raises:
        DataError: without rows, or when a case and structure repeat.
    """
    table = [{"case": "", "task": "", **r} for r in rows]
    if not table:
        raise DataError("there is nothing to summarise", got="no rows", hint="is the evaluated split empty?")
    keys = [(r["task"], r["case"], r["structure"]) for r in table]
    repeated = [k for k in dict.fromkeys(keys) if keys.count(k) > 1] if len(set(keys)) < len(keys) else []
    if repeated:
        raise DataError("cases repeat", got=repeated[:5], expected="one row per task, case and structure")
    tasks = dict.fromkeys(r["task"] for r in table)
    blocks = {t: _block([r for r in table if r["task"] == t], seed, n_boot) for t in tasks}
    return {"all": _block(table, seed, n_boot), "tasks": blocks}


def write_case_csv(rows: Iterable[Mapping[str, Any]], path: str | Path) -> Path:
    """One line per case and structure; what is not defined is an empty field."""
    return write_csv(path, [{c: _cell(row.get(c, "")) for c in COLUMNS} for row in rows], COLUMNS)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return str(value)


def read_case_csv(path: str | Path) -> list[dict[str, Any]]:
    """Inverse of :func:`write_case_csv`; empty fields become NaN."""
    source = Path(path)
    head, rows = read_csv(source)
    if set(COLUMNS) - set(head):
        raise DataError("not a table of case scores", where=source, got=head, expected=COLUMNS)
    text = ("case", "task", "structure")
    try:
        return [{c: r[c] if c in text else float(r[c] or "nan") for c in COLUMNS} for r in rows]
    except ValueError as error:
        raise DataError("a score is not a number", where=source, got=str(error)) from error


def write_summary_json(content: Mapping[str, Any], path: str | Path) -> Path:
    """Plain JSON (no NaN), replaced in one step."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return Path(path)
