"""How far two masks agree: from the numbers of their voxels, and for a batch of masks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["dice", "dice_of_each", "iou"]


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


def dice_of_each(mask: Tensor, target: Tensor) -> Tensor:
    """:func:`dice` of every sample.

    Args:
        mask: ``[B, ...]``; what is above 0 counts.
        target: likewise.

    Returns:
        ``[B]``; NaN where both are empty.
    """
    found, wanted = (mask > 0).flatten(1), (target > 0).flatten(1)
    both, pred, label = (found & wanted).sum(1).tolist(), found.sum(1).tolist(), wanted.sum(1).tolist()
    return torch.tensor([dice(*counts) for counts in zip(both, pred, label)], device=mask.device)
