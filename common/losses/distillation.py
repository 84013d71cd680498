"""What ties a student to its teachers: feature alignment and Kullback-Leibler divergence, with strict shapes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError

__all__ = ["ALIGN_KINDS", "align", "kl_divergence"]

ALIGN_KINDS = ("mse", "normalised", "l2", "cosine")


def align(f_s: Sequence[Tensor], f_m: Sequence[Tensor], *, kind: str = "mse", detach: bool = True) -> Tensor:
    """Pull the student's tokens to the amalgamated ones, averaged over levels.

    ``mse``: ``mean (f_s - f_m)^2``; ``normalised``: the same after each token has mean 0 and variance 1; ``l2``:
    ``||f_s - f_m||`` per sample over tokens and channels, mean over samples (the paper's equation to the letter);
    ``cosine``: ``1 - cos(f_s, f_m)`` per token, mean.

    Args:
        f_s: per level ``[B, N, C]`` student tokens.
        f_m: the same shapes, amalgamated.
        kind: one of ``mse``, ``normalised``, ``l2``, ``cosine``.
        detach: stop the gradient into ``f_m``. Without it the loss has a free minimum where the attentions do nothing.
            With it and a residual ``f_m = f_s + d``, ``mse`` and ``l2`` push ``f_s`` along ``d`` at every step however
            long it already is, and never arrive; ``normalised`` and ``cosine`` do not depend on length and do.

    Returns:
        A scalar.

    Raises:
        ConfigError: for an unknown kind, no level, or shapes that differ in any axis.

    Reference:
        KA2ER, equation 2. Detaching and the squared mean are ours.
    """
    if kind not in ALIGN_KINDS:
        raise ConfigError("unknown alignment", where="align kind", got=kind, expected=", ".join(ALIGN_KINDS))
    if not len(f_s) or len(f_s) != len(f_m):
        raise ConfigError("levels differ", got=(len(f_s), len(f_m)))
    terms = []
    for s, m in zip(f_s, f_m, strict=True):
        if s.shape != m.shape or s.ndim != 3:
            raise ConfigError("tokens to align differ in shape", got=(tuple(s.shape), tuple(m.shape)))
        terms.append(_distance(s.float(), (m.detach() if detach else m).float(), kind))
    return torch.stack(terms).mean()


def _distance(s: Tensor, m: Tensor, kind: str) -> Tensor:
    if kind == "mse":
        return F.mse_loss(s, m)
    if kind == "normalised":
        width = s.shape[-1:]
        return F.mse_loss(F.layer_norm(s, width), F.layer_norm(m, width))
    if kind == "l2":
        norms: Tensor = torch.linalg.vector_norm(s - m, dim=(1, 2))
        return norms.mean()
    cosine: Tensor = F.cosine_similarity(s, m, dim=-1)
    return (1 - cosine).mean()


def kl_divergence(
    logits: Tensor, teacher: Tensor, classes: Tensor, *, exclusive: bool = True, balanced: bool = False
) -> Tensor:
    """``KL(teacher || student)`` over the classes that the teacher knows, at temperature 1.

    Exclusive: ``d(x) = sum_k p_k (log p_k - log q_k)`` with ``q`` the student's softmax restricted to those classes,
    mean over voxels and samples; balanced: ``mean_k sum_x p_k(x) d(x) / sum_x p_k(x)``, so that a small organ counts as
    much as the background (classes that the teacher sees less than one voxel of are left out). Overlapping: the two
    Bernoulli terms per structure, mean over the known ones; balanced: inside and outside count the same. Every sample
    counts the same, so that splitting a batch and averaging gives the same value.

    Args:
        logits: ``[B, K+1, X, Y, Z]`` (``[B, K, X, Y, Z]`` when not exclusive) of the student.
        teacher: ``[B, K+1, X, Y, Z]`` probabilities at the union's indices, 0 for classes that it does not know.
        classes: ``[B, K+1]`` bool, the classes that the teacher knows, index 0 included.
        exclusive: softmax or sigmoid.
        balanced: every class the same weight instead of every voxel.

    Returns:
        A scalar, >= 0.

    Raises:
        ConfigError: when any axis differs (``torch``'s own divergence would broadcast).
    """
    expected = (logits.shape[0], logits.shape[1] + (not exclusive), *logits.shape[2:])
    if logits.ndim != 5 or tuple(teacher.shape) != expected:
        raise ConfigError("student and teacher differ in shape", got=tuple(teacher.shape), expected=expected)
    if tuple(classes.shape) != expected[:2] or classes.dtype != torch.bool:
        raise ConfigError("known classes must be bool [B, K+1]", got=(tuple(classes.shape), classes.dtype))
    logits, teacher = logits.float(), teacher.float()
    if exclusive:
        log_q = logits.masked_fill(~classes[:, :, None, None, None], -torch.inf).log_softmax(1)
        log_q = log_q.masked_fill(~classes[:, :, None, None, None], 0.0)
        divergence = (torch.xlogy(teacher, teacher) - teacher * log_q).sum(1)
        return _mean_of_means(divergence[:, None], teacher, classes) if balanced else divergence.mean()
    p, known = teacher[:, 1:], classes[:, 1:]
    entropy = torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)
    per_voxel = entropy + F.binary_cross_entropy_with_logits(logits, p, reduction="none")
    if balanced:
        return (_mean_of_means(per_voxel, p, known) + _mean_of_means(per_voxel, 1 - p, known)) / 2
    per_class = per_voxel.flatten(2).mean(2)
    return ((per_class * known).sum(1) / known.sum(1).clamp(min=1)).mean()


def _mean_of_means(values: Tensor, share: Tensor, known: Tensor) -> Tensor:
    """``mean_b mean_k sum_x share_k values_k / sum_x share_k`` over known classes that are there, 0 without any."""
    mass = share.flatten(2).sum(2)
    there = known & (mass >= 1)
    means = (values * share).flatten(2).sum(2) / mass.clamp(min=1)
    return ((means * there).sum(1) / there.sum(1).clamp(min=1)).mean()
