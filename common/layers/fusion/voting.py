"""Pixel-probability adaptive voting: which expert may add to the main one, for every image and class."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...errors import ConfigError

__all__ = ["BALANCES", "SCORES", "PixelVoting", "Votes", "agreement", "balanced_choice", "class_masks", "majority"]

SCORES = ("similarity", "l1_literal")
BALANCES = ("train", "always", "never")


class Votes(NamedTuple):
    """What the candidates say and which of them is chosen.

    Args:
        chosen: index of the chosen candidate ``[B, K]``, 0..E-1.
        scores: of the candidates ``[E, B, K]``, 0..1.
        masks: of the candidates ``[E, B, K, H, W]`` bool.
    """

    chosen: Tensor
    scores: Tensor
    masks: Tensor


def class_masks(logits: Tensor) -> Tensor:
    """Pixels of each class, where the background has the logit 0: of one class, those with a probability above 0.5.

    Args:
        logits: ``[..., K, H, W]`` of classes that exclude each other.

    Returns:
        bool of the same shape; at most one class per pixel.
    """
    positive = logits > 0
    if logits.shape[-3] == 1:
        return positive
    numbers = torch.arange(logits.shape[-3], device=logits.device).view(-1, 1, 1)
    return positive & (logits.argmax(-3, keepdim=True) == numbers)


def majority(masks: Tensor) -> Tensor:
    """Pixels ``[...]`` that more than half of the candidates ``[E, ...]`` see."""
    return masks.sum(0) * 2 > len(masks)


def agreement(masks: Tensor, reference: Tensor, *, score: str = "similarity") -> Tensor:
    """How well each candidate agrees with the reference.

    ``similarity``: ``S = 1 - mean |R - M|`` over the pixels. ``l1_literal``: ``S = mean |R - M|``, the distance itself.

    Args:
        masks: ``[E, B, K, H, W]`` bool.
        reference: R ``[B, K, H, W]`` bool.
        score: see above.

    Returns:
        ``[E, B, K]``, 0..1.

    Raises:
        ConfigError: for another score.
    """
    if score not in SCORES:
        raise ConfigError("unknown score", where="score", got=score, expected=", ".join(SCORES))
    distance = (masks != reference).flatten(-2).float().mean(-1)
    return distance if score == "l1_literal" else 1 - distance


def balanced_choice(scores: Tensor, limit: int | None) -> Tensor:
    """The best candidate of each sample that was not chosen ``limit`` times before it, for each class on its own.

    A candidate that is over the limit is masked, at most once per sample; when all are, the best one is taken. The
    first of equals wins.

    Args:
        scores: ``[E, B, K]`` >= 0.
        limit: >= 1; None chooses the best without counting.

    Returns:
        ``[B, K]``, 0..E-1.

    Raises:
        ConfigError: for a limit below 1.
    """
    if limit is None:
        return scores.argmax(0)
    if limit < 1:
        raise ConfigError("a candidate may be chosen at least once", where="n_threshold", got=limit, expected=">= 1")
    counts = torch.zeros_like(scores[:, 0], dtype=torch.long)
    chosen = []
    for sample in scores.unbind(1):  # one after the other, as the counts are
        free = counts < limit
        allowed = free | ~free.any(0)
        pick = sample.masked_fill(~allowed, -1).argmax(0)
        counts = counts.scatter_add(0, pick[None], torch.ones_like(pick)[None])
        chosen.append(pick)
    return torch.stack(chosen)


class PixelVoting(nn.Module):
    """Compares the masks of candidates with a reference and chooses one candidate for each image and class.

    The reference is the truth where it is known (training) and what most candidates say elsewhere (inference). Without
    balancing at inference, the choice for an image does not depend on the other images of its batch.

    Args:
        score: see :func:`agreement`.
        n_threshold: how often a candidate may be chosen in a batch, >= 1; ``ceil(B / E)`` when None.
        balance: ``train``: count the choices in training only; ``always``; ``never``.

    Raises:
        ConfigError: for a choice that there is not.

    Reference:
        IC-MoE, section 3.3, equations 3 to 5 and Algorithm 1. The printed argmax over an L1 *distance* would choose the
        worst candidate (``l1_literal``), and its loop need not end: here a candidate is masked at most once. Several
        classes are ours: each votes on its own.
    """

    def __init__(self, *, score: str = "similarity", n_threshold: int | None = None, balance: str = "train") -> None:
        super().__init__()
        for where, value, known in (("score", score, SCORES), ("balance", balance, BALANCES)):
            if value not in known:
                raise ConfigError(f"unknown {where}", where=where, got=value, expected=", ".join(known))
        if n_threshold is not None and n_threshold < 1:
            raise ConfigError(
                "a candidate may be chosen at least once", where="n_threshold", got=n_threshold, expected=">= 1"
            )
        self.score, self.n_threshold, self.balance = score, n_threshold, balance

    @torch.no_grad()
    def forward(self, logits: Tensor, truth: Tensor | None = None, known: Tensor | None = None) -> Votes:
        """Let the candidates vote.

        Args:
            logits: of the candidates ``[E, B, K, H, W]``.
            truth: ``[B, K, H, W]`` bool, None where nobody knows.
            known: ``[B, K]`` bool, the classes of which ``truth`` tells; all when None.
        """
        masks = class_masks(logits)
        reference = majority(masks)
        if truth is not None:
            reference = truth if known is None else torch.where(known[:, :, None, None], truth, reference)
        scores = agreement(masks, reference, score=self.score)
        counted = self.balance == "always" or (self.balance == "train" and self.training)
        limit = self.n_threshold or math.ceil(scores.shape[1] / scores.shape[0])
        return Votes(balanced_choice(scores, limit if counted else None), scores, masks)
