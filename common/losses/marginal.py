"""Several experts judge one student, each in its own terms: what an expert does not know is its background."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ConfigError

__all__ = ["FLOOR", "divergence", "gathered", "marginal_dice", "marginal_kl", "overlap", "region_divergence",
           "region_loss", "terms"]  # fmt: skip

FLOOR = 0.01


def terms(known: Sequence[str], structures: Sequence[str]) -> Tensor:
    """``M``: which of the student's classes an expert sums up in each of its own.

    Args:
        known: the expert's structures in the order of its output, each one of ``structures``.
        structures: the student's K names.

    Returns:
        ``[Ke+1, K+1]`` of 0 and 1, each column with a single 1: row 0 gathers the student's background and every
        structure that the expert does not know.

    Raises:
        ConfigError: for a structure that the student has not, or one twice.
    """
    missing = [name for name in known if name not in structures]
    if missing or len(set(known)) != len(known) or not known:
        raise ConfigError("an expert's structures are some of the student's, each once", where="structures",
                          got=", ".join(known) or "none", expected=f"some of {', '.join(structures)}")  # fmt: skip
    rows = [0, *(1 + list(known).index(n) if n in known else 0 for n in structures)]
    matrix = torch.zeros(len(known) + 1, len(structures) + 1)
    matrix[rows, torch.arange(len(rows))] = 1
    return matrix


def marginal_kl(
    logits: Tensor, expert: Tensor, matrix: Tensor, *, temperature: float = 1.0, floor: float = FLOOR
) -> Tensor:
    """``mean_x T^2 KL(p || M q)`` of a student to one expert.

    ``q = softmax(logits / T)``; ``p`` is the expert's probability sharpened to ``p^(1/T) / sum`` and mixed with
    ``floor`` of the uniform one. Since ``M q`` adds up every class that the expert does not know in its background, an
    expert's background contradicts nobody's organ.

    Args:
        logits: ``[B, K+1, ...]`` of the student.
        expert: ``[B, Ke+1, ...]`` probabilities, background first; one-hot for labels of some of the classes.
        matrix: ``[Ke+1, K+1]`` of :func:`terms`.
        temperature: T > 0.
        floor: share of the uniform distribution in the target, 0 <= floor < 1.

    Returns:
        A scalar, >= 0; 0 where ``M q = p``.

    Raises:
        ConfigError: for shapes that do not fit, or settings out of range.

    Reference:
        ours, after the marginal loss of Shi et al., "Marginal loss and exclusion loss for partially supervised
        multi-organ segmentation" (Medical Image Analysis 2021), with soft targets.
    """
    _check(logits, expert, matrix)
    if temperature <= 0 or not 0 <= floor < 1:
        raise ConfigError("temperature > 0 and 0 <= floor < 1", got=(temperature, floor))
    p = expert.float()
    if temperature != 1:
        p = p.pow(1 / temperature)
        p = p / p.sum(1, keepdim=True)
    seen = gathered((logits.float() / temperature).softmax(1), matrix)
    return temperature**2 * divergence(seen, p, floor).mean()


def divergence(seen: Tensor, p: Tensor, floor: float = FLOOR) -> Tensor:
    """``mean_x KL((1 - floor) p + floor / K' || seen)`` of each sample.

    Args:
        seen: ``[B, K', ...]`` what an expert sees of the student, :func:`gathered`.
        p: ``[B, K', ...]`` the expert's probabilities.
        floor: share of the uniform distribution in the target.

    Returns:
        ``[B]``.
    """
    if floor:
        p = (1 - floor) * p + floor / p.shape[1]
    return (torch.xlogy(p, p) - p * seen.clamp(min=1e-9).log()).sum(1).flatten(1).mean(1)


def marginal_dice(logits: Tensor, expert: Tensor, matrix: Tensor, *, smooth: float = 1.0) -> Tensor:
    """``1 - mean_{b,k} (2 sum_x p_k (M q)_k + s) / (sum_x p_k^2 + sum_x (M q)_k^2 + s)`` over the expert's structures.

    With squares it is 0 where ``M q = p`` also for soft targets.

    Args:
        logits: ``[B, K+1, ...]`` of the student.
        expert: ``[B, Ke+1, ...]`` probabilities.
        matrix: ``[Ke+1, K+1]`` of :func:`terms`.
        smooth: s > 0.

    Returns:
        A scalar in 0 .. 1.

    Raises:
        ConfigError: for shapes that do not fit.

    Reference:
        Milletari et al., "V-Net" (3DV 2016), equation 2, over marginal probabilities.
    """
    _check(logits, expert, matrix)
    return overlap(gathered(logits.float().softmax(1), matrix), expert.float(), smooth).mean()


def overlap(seen: Tensor, p: Tensor, smooth: float = 1.0) -> Tensor:
    """The soft Dice loss of each sample, a mean over the expert's structures; see :func:`marginal_dice`.

    Args:
        seen: ``[B, K', ...]`` what an expert sees of the student, background first.
        p: ``[B, K', ...]`` the expert's probabilities.
        smooth: s > 0.

    Returns:
        ``[B]`` in 0 .. 1.
    """
    own, other = p[:, 1:].flatten(2), seen[:, 1:].flatten(2)
    both = 2 * (own * other).sum(2) + smooth
    return 1 - (both / (own.square().sum(2) + other.square().sum(2) + smooth)).mean(1)


def region_loss(logits: Tensor, expert: Tensor, regions: Tensor, *, floor: float = FLOOR) -> Tensor:
    """Binary cross-entropy above its least value, between regions that overlap and the student's sums over them.

    ``mean_{x,r} [H(p_r, (R q)_r) - H(p_r)]``.

    Args:
        logits: ``[B, K+1, ...]`` of the student, whose classes exclude each other.
        expert: ``[B, Re, ...]`` probability of each region.
        regions: ``[Re, K+1]`` of 0 and 1: the student's classes of each region, background never.
        floor: targets lie in ``floor/2 .. 1 - floor/2``.

    Returns:
        A scalar, >= 0.

    Raises:
        ConfigError: for shapes that do not fit, or a region with background or without a class.
    """
    _check(logits, expert, regions)
    if bool(regions[:, 0].any()) or not bool(regions.any(1).all()):
        raise ConfigError(
            "a region is made of structures", got=regions.tolist(), expected="no background, no empty one"
        )
    return region_divergence(gathered(logits.float().softmax(1), regions), expert.float(), floor).mean()


def region_divergence(seen: Tensor, p: Tensor, floor: float = FLOOR) -> Tensor:
    """``mean_{x,r} KL`` between each region and its outside, of each sample; see :func:`region_loss`.

    Args:
        seen: ``[B, Re, ...]`` the student's sums over each region.
        p: ``[B, Re, ...]`` probability of each region.
        floor: targets lie in ``floor/2 .. 1 - floor/2``.

    Returns:
        ``[B]``.
    """
    one, other = (torch.stack([1 - v, v], 2).flatten(0, 1) for v in (seen.clamp(1e-6, 1 - 1e-6), p))
    return divergence(one, other, floor).reshape(len(p), -1).mean(1)


def gathered(q: Tensor, matrix: Tensor) -> Tensor:
    """``M q``: the student's probabilities ``[B, K+1, ...]`` in an expert's terms, ``[B, K', ...]``."""
    if matrix.shape[0] == matrix.shape[1] and bool((matrix.diagonal() == 1).all()):
        return q  # one that knows all, in the student's order
    return torch.einsum("ek,bk...->be...", matrix.to(q), q)


def _check(logits: Tensor, expert: Tensor, matrix: Tensor) -> None:
    expected = (logits.shape[0], matrix.shape[0], *logits.shape[2:])
    if matrix.ndim != 2 or matrix.shape[1] != logits.shape[1] or tuple(expert.shape) != expected:
        raise ConfigError("student, expert and terms differ in shape",
                          got=(tuple(logits.shape), tuple(expert.shape), tuple(matrix.shape)),
                          expected="[B, K+1, ...], [B, Ke, ...], [Ke, K+1]")  # fmt: skip
