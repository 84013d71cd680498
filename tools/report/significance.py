"""Whether two members differ: paired tests over cases, corrected for their number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

__all__ = ["Paired", "holm", "paired", "paired_cases"]

Key = tuple[str, str, str]
"""Task, case and structure."""


class Paired(NamedTuple):
    """A paired test: its p value (NaN without a pair), the number of pairs, of pairs that differ, and of those left out
    because one of the two has no value.
    """

    p: float
    n: int
    differ: int
    left_out: int


def paired_cases(first: Mapping[Key, float], second: Mapping[Key, float]) -> tuple[NDArray[np.float64], int]:
    """Differences per case, the mean over the structures that both have, and how many values lack their partner."""
    per_case: dict[tuple[str, str], list[float]] = {}
    alone = 0
    for key in first.keys() | second.keys():
        a, b = first.get(key, math.nan), second.get(key, math.nan)
        if math.isfinite(a) and math.isfinite(b):
            per_case.setdefault(key[:2], []).append(a - b)
        elif math.isfinite(a) or math.isfinite(b):
            alone += 1
    values = [float(np.mean(per_case[case])) for case in sorted(per_case)]
    return np.array(values, dtype=np.float64), alone


def paired(first: Mapping[Key, float], second: Mapping[Key, float]) -> Paired:
    """Wilcoxon's signed-rank test, two-sided, over cases; equal pairs are dropped, none that differs gives p = 1.

    Reference: Wilcoxon 1945; exact for few cases without ties (scipy).
    """
    values, alone = paired_cases(first, second)
    # sums of floats: what is equal but for rounding is a tie
    values = np.round(values, 12)
    moved = values[values != 0]
    if not len(values):
        return Paired(math.nan, 0, 0, alone)
    if not len(moved):
        return Paired(1.0, len(values), 0, alone)
    return Paired(float(wilcoxon(moved).pvalue), len(values), len(moved), alone)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P values corrected for their number; NaN stays, and does not count.

    ``p'_(i) = max_{j <= i} min(1, (m - j + 1) p_(j))`` over the m sorted values.

    Reference: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    known = sorted((p, name) for name, p in p_values.items() if math.isfinite(p))
    corrected, highest = dict(p_values), 0.0
    for rank, (p, name) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        corrected[name] = highest
    return corrected
