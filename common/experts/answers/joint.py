"""One map out of several experts' answers, for what needs one: boxes, pictures, statistics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import ExpertError

__all__ = ["conflicts", "joint"]


def joint(
    answers: Sequence[Tensor], matrices: Sequence[Tensor], weights: Sequence[float] = (), *, steps: int = 200,
    tolerance: float = 1e-4,
) -> Tensor:  # fmt: skip
    """The distribution over all classes that explains every expert best, each in its own terms.

    Iterates ``q(c) <- q(c) sum_e w_e p_e(g_e(c)) / (M_e q)(g_e(c)) / sum_e w_e`` from the uniform one, where
    ``g_e(c)`` is c if e knows c and else e's background. A fixed point minimises ``sum_e w_e KL(p_e || M_e q)``, so the
    map is what the marginal loss teaches; every step keeps ``sum_c q(c) = 1`` and makes that sum no larger.

    Args:
        answers: per expert ``[Ke+1, ...]`` probabilities.
        matrices: per expert ``[Ke+1, K+1]`` of :func:`common.losses.marginal.terms`.
        weights: per expert, > 0; equal when empty.
        steps: the most iterations.
        tolerance: ends when no probability moves by more.

    Returns:
        ``[K+1, ...]``.

    Raises:
        ExpertError: for no expert, or numbers that differ.
    """
    w = list(weights) or [1.0] * len(answers)
    if not len(answers) == len(matrices) == len(w) or not answers or min(w) <= 0:
        raise ExpertError("one answer, one matrix and one positive weight an expert", where="joint",
                          got=(len(answers), len(matrices), w))  # fmt: skip
    classes = matrices[0].shape[1]
    q = answers[0].new_full((classes, *answers[0].shape[1:]), 1 / classes)
    for _ in range(steps):
        factor = torch.zeros_like(q)
        for p, matrix, weight in zip(answers, matrices, w, strict=True):
            m = matrix.to(q)
            seen = torch.einsum("ek,k...->e...", m, q)
            factor += weight * torch.einsum("ek,e...->k...", m, p / seen.clamp(min=1e-12))
        moved = q * factor / sum(w)
        change = float((moved - q).abs().max())
        q = moved
        if change <= tolerance:
            break
    return q


def conflicts(decisions: Sequence[Tensor], known: Sequence[Sequence[str]]) -> dict[tuple[str, str], int]:
    """Voxels that two experts claim for different structures, per pair of structures.

    Args:
        decisions: per expert ``[...]`` class numbers in its own order, 0 for background.
        known: per expert its structures.

    Returns:
        ``{(structure of the earlier expert, structure of the later): voxels}``, pairs without voxels left out.
    """
    found: dict[tuple[str, str], int] = {}
    for i, (first, names) in enumerate(zip(decisions, known, strict=True)):
        for second, others in list(zip(decisions, known, strict=True))[i + 1 :]:
            both = (first > 0) & (second > 0)
            pairs = torch.stack([first[both].long(), second[both].long()]).unique(dim=1, return_counts=True)
            for (a, b), count in zip(pairs[0].T.tolist(), pairs[1].tolist(), strict=True):
                pair = names[a - 1], others[b - 1]
                if pair[0] != pair[1]:
                    found[pair] = found.get(pair, 0) + count
    return found
