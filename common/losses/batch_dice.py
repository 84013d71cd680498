"""Dice over a whole batch, background included, plus cross-entropy, as SAM's descendants for slices use it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.utils import one_hot
from torch import Tensor

from ..errors import LabelError
from .processes import over_processes
from .segmentation import DiceCE

__all__ = ["batch_dice_ce"]

_SMOOTH = 1e-5


def batch_dice_ce(logits: Tensor, label: Tensor, annotated: Tensor | None = None) -> DiceCE:
    """Dice of each class over all pixels of a batch, and the mean cross-entropy.

    ``Dice = mean_c 1 - (2 sum p_c t_c + s) / (sum p_c^2 + sum t_c^2 + s)`` with ``s = 1e-5``, ``p = softmax``, sums
    over the pixels of all samples, mean over classes **with** the background. A label map larger than the logits is
    brought to their size by the nearest neighbour.

    On partially annotated samples the softmax is over a sample's annotated classes, and a class's sums are over the
    samples that annotate it. Under ``torch.distributed`` the sums are over the batches of all processes.

    Args:
        logits: ``[B, K+1, h, w]``.
        label: ``[B, 1, H, W]`` class indices 0..K.
        annotated: ``[B, K+1]`` bool, the background's entry True; all classes when None.

    Returns:
        The two terms, each a scalar.

    Raises:
        LabelError: for shapes that do not fit, a sample without background, or label values that are out of range or
            belong to classes that their sample is not annotated for.

    Reference:
        SAMora, eq. 9; Zhang and Liu, SAMed, 2023 (logits at a quarter of the size).
    """
    batch, classes = logits.shape[:2]
    if logits.ndim != 4 or label.ndim != 4 or (label.shape[0], label.shape[1]) != (batch, 1):
        got = (tuple(logits.shape), tuple(label.shape))
        raise LabelError("logits and label differ in shape", got=got, expected="[B, K+1, h, w] and [B, 1, H, W]")
    if annotated is None:
        annotated = logits.new_ones(batch, classes, dtype=torch.bool)
    annotated = annotated.to(device=logits.device, dtype=torch.bool)
    if annotated.shape != (batch, classes) or not bool(annotated[:, 0].all()):
        problem = "every sample is annotated for the background, and for classes that there are"
        raise LabelError(problem, got=annotated.tolist(), expected=f"bool [{batch}, {classes}]")
    if label.shape[2:] != logits.shape[2:]:
        label = F.interpolate(label.float(), size=logits.shape[2:], mode="nearest")
    _check_values(label, annotated)
    masked = logits.float().masked_fill(~annotated[:, :, None, None], -torch.inf)
    ce = F.cross_entropy(masked, label[:, 0].long())
    truth = one_hot(label, classes).to(masked.dtype)
    return DiceCE(_dice(masked.softmax(1), truth, annotated), ce)


def _check_values(label: Tensor, annotated: Tensor) -> None:
    low, high = float(label.min()), float(label.max())
    if low < 0 or high >= annotated.shape[1]:
        raise LabelError("label values are out of range", got=(low, high), expected=f"0..{annotated.shape[1] - 1}")
    if not bool(annotated.gather(1, label.flatten(1).long()).all()):
        raise LabelError("a label map holds classes that its sample is not annotated for", got=annotated.tolist())


def _dice(p: Tensor, t: Tensor, annotated: Tensor) -> Tensor:
    known = annotated.to(p.dtype)
    sums = [((x * y).flatten(2).sum(2) * known).sum(0) for x, y in ((p, t), (p, p), (t, t))]
    both, own, true, samples = over_processes(torch.stack([*sums, known.sum(0)]))
    score = (2 * both + _SMOOTH) / (own + true + _SMOOTH)
    per_class: Tensor = (1 - score)[samples > 0]
    return per_class.mean()
