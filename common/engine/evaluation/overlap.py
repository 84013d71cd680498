"""How far two masks agree, from the numbers of their voxels."""

from __future__ import annotations

import math

__all__ = ["dice", "iou"]


def dice(both: float, pred: float, label: float) -> float:
    """``2|P∩L| / (|P|+|L|)``; NaN where P and L are empty, which means leave out.

    Args:
        both: voxels of P∩L, >= 0.
        pred: voxels of P.
        label: voxels of L.
    """
    return 2.0 * both / (pred + label) if pred + label else math.nan


def iou(both: float, pred: float, label: float) -> float:
    """``|P∩L| / |P∪L|``; NaN where P and L are empty, which means leave out.

    Args:
        both: voxels of P∩L, >= 0.
        pred: voxels of P.
        label: voxels of L.
    """
    return both / (pred + label - both) if pred + label else math.nan
