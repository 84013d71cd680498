"""Dice plus cross-entropy over the classes that a case is annotated for, and no others."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.losses.dice import DiceLoss
from monai.networks.utils import one_hot
from torch import Tensor

from ..errors import ConfigError, LabelError
from .processes import over_processes

__all__ = ["DiceCE", "annotated_dice_ce"]

_SMOOTH = 1e-5  # MONAI's


class DiceCE(NamedTuple):
    """The two terms, each a scalar: mean over a sample's annotated classes, then over samples."""

    dice: Tensor
    ce: Tensor


def annotated_dice_ce(
    logits: Tensor, label: Tensor, annotated: Tensor, *, exclusive: bool = True, over: str = "sample"
) -> DiceCE:
    """Dice loss and cross-entropy of a union label space on partially annotated cases.

    Exclusive: ``p = softmax`` over the annotated classes only (the logits of the others are set to minus infinity, so
    no voxel can be blamed for belonging to a structure that nobody looked for). ``CE = -mean log p[label]``;
    ``Dice = mean_k 1 - (2 sum p t + s) / (sum p + sum t + s)`` over annotated foreground classes.
    Overlapping: sigmoid and binary cross-entropy, means over annotated classes. Every sample counts the same, so that
    splitting a batch and averaging gives the same loss.

    ``over='batch'`` takes the sums of the Dice term over all samples that are annotated for a class, as nnU-Net does
    for slices. A slice shows few of its classes, and a class that is not there has a loss near 1 with next to no
    gradient: per sample, most of the term is such constants. The value then depends on how a batch is split, but not
    on how many processes share it.

    Args:
        logits: ``[B, K+1, X, Y, Z]`` (exclusive) or ``[B, K, X, Y, Z]``.
        label: ``[B, 1, X, Y, Z]`` class indices 0..K; overlapping structures also ``[B, K, X, Y, Z]`` 0/1.
        annotated: ``[B, K+1]`` bool; the background, index 0, always is.
        exclusive: whether a voxel belongs to one structure at most.
        over: ``sample`` or, for exclusive structures, ``batch``.

    Returns:
        The two terms.

    Raises:
        ConfigError: for another ``over``.
        LabelError: for shapes that do not fit, a case without background, label values that are out of range or
            belong to classes that the case is not annotated for.
    """
    if over not in ("sample", "batch") or (over == "batch" and not exclusive):
        expected = "sample or batch" if exclusive else "sample, for structures that overlap"
        raise ConfigError("unknown way to sum a Dice loss", where="over", got=over, expected=expected)
    annotated = annotated.to(device=logits.device, dtype=torch.bool)
    _check(logits, label, annotated, exclusive)
    if exclusive:
        return _exclusive(logits, label, annotated, over == "batch")
    return _overlapping(logits, label, annotated[:, 1:])


def _check(logits: Tensor, label: Tensor, annotated: Tensor, exclusive: bool) -> None:
    classes = logits.shape[1] + (not exclusive)
    channels = (1,) if exclusive else (1, logits.shape[1])
    shape = (logits.shape[0], logits.shape[2:])
    if logits.ndim != 5 or (label.shape[0], label.shape[2:]) != shape or label.shape[1] not in channels:
        raise LabelError("logits and label differ in shape", got=(tuple(logits.shape), tuple(label.shape)))
    if annotated.shape != (logits.shape[0], classes):
        raise LabelError("annotated has another size", got=tuple(annotated.shape), expected=(logits.shape[0], classes))
    if not bool(annotated[:, 0].all()):
        raise LabelError("the background must be annotated", got=annotated.tolist())
    indices = exclusive or (label.shape[1] == 1 and classes > 2)
    low, high = int(label.min()), int(label.max())
    if low < 0 or high >= (classes if indices else 2):
        raise LabelError("label values are out of range", got=(low, high), expected=f"0..{classes - 1}")
    if indices and not bool(annotated.gather(1, label.flatten(1).long()).all()):
        raise LabelError("a label map holds classes that its case is not annotated for", got=annotated.tolist())


def _exclusive(logits: Tensor, label: Tensor, annotated: Tensor, batch: bool) -> DiceCE:
    masked = logits.float().masked_fill(~annotated[:, :, None, None, None], -torch.inf)
    ce = F.cross_entropy(masked, label[:, 0].long())
    p, t = masked.softmax(1), one_hot(label, logits.shape[1])
    if batch:
        return DiceCE(_batch_dice(p[:, 1:], t[:, 1:], annotated[:, 1:]), ce)
    dice = DiceLoss(include_background=False, reduction="none")
    return DiceCE(_mean(dice(p, t).flatten(1), annotated[:, 1:]), ce)


def _batch_dice(p: Tensor, t: Tensor, annotated: Tensor) -> Tensor:
    """MONAI's ``DiceLoss(batch=True)`` over the batches of all processes, without classes that nobody annotated."""
    # classes that a sample is not annotated for have probability 0 and no voxel, so they add nothing to the sums
    sums = [x.transpose(0, 1).flatten(1).sum(1) for x in (p * t, p, t)]
    both, own, true, samples = over_processes(torch.stack([*sums, annotated.to(p.dtype).sum(0)]))
    per_class = 1 - (2 * both + _SMOOTH) / (own + true + _SMOOTH)
    return _mean(per_class[None], samples[None] > 0)


def _overlapping(logits: Tensor, label: Tensor, annotated: Tensor) -> DiceCE:
    target = one_hot(label, logits.shape[1] + 1)[:, 1:] if label.shape[1] != logits.shape[1] else label.float()
    raw = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none").flatten(2).mean(2)
    per_class = DiceLoss(reduction="none")(logits.float().sigmoid(), target).flatten(1)
    return DiceCE(_mean(per_class, annotated), _mean(raw, annotated))


def _mean(per_class: Tensor, annotated: Tensor) -> Tensor:
    weights = annotated.to(per_class.dtype)
    return ((per_class * weights).sum(1) / weights.sum(1).clamp(min=1)).mean()
