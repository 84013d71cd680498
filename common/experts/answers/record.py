"""An expert's answer at a voxel in few bytes: how much background, which two structures, how sure of each."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import ExpertError

__all__ = ["LEVELS", "decide", "expand", "record", "record_overlapping"]

LEVELS = 255  # steps between probability 0 and 1
_MOST = 255


def record(logits: Tensor) -> Tensor:
    """Truncate the answer of an expert whose structures exclude each other.

    ``(round(255 p_0), k_1, round(255 p_{k_1}), k_2, round(255 p_{k_2}))`` with ``p = softmax(logits)`` and
    ``k_1, k_2`` its two most likely structures; the other structures' probability is what is missing to 1. With one
    structure ``k_2`` is 0 and its probability is, too. Where rounding would make a tie of a structure that is likelier
    than background, it gets one step more, so that :func:`decide` is the argmax.

    Args:
        logits: ``[K+1, ...]`` of the expert, background first, 1 <= K <= 255.

    Returns:
        ``[5, ...]`` uint8.

    Raises:
        ExpertError: for too few or too many structures.

    Reference:
        ours; truncating per expert, before any union, keeps its background apart from what it does not know.
    """
    structures = logits.shape[0] - 1
    if not 1 <= structures <= _MOST:
        raise ExpertError("an answer keeps one to 255 structures", where="logits", got=structures)
    p = logits.float().softmax(0)
    best, index = p[1:].topk(min(2, structures), dim=0)
    found = torch.zeros(5, *p.shape[1:], dtype=torch.uint8, device=p.device)
    found[0] = _levels(p[0])
    for i, (value, structure) in enumerate(zip(best, index, strict=True)):
        found[1 + 2 * i] = (structure + 1).to(torch.uint8)
        found[2 + 2 * i] = _levels(value)
    found[2] += (best[0] > p[0]) & (found[2] == found[0])
    return found


def record_overlapping(logits: Tensor) -> Tensor:
    """Keep the answer of an expert whose structures (nnU-Net's regions) overlap: ``round(255 sigmoid(logits))``.

    Args:
        logits: ``[K, ...]``.

    Returns:
        ``[K, ...]`` uint8.
    """
    return _levels(logits.float().sigmoid())


def expand(answer: Tensor, structures: int) -> Tensor:
    """Probabilities of a :func:`record`, in the expert's own classes.

    What is missing to 1 is shared evenly by the structures that the record does not name; without such structures,
    and where rounding made more than 1 of it, the named ones are scaled to 1.

    Args:
        answer: ``[B, 5, ...]`` uint8.
        structures: K.

    Returns:
        ``[B, K+1, ...]`` float32, sums to 1.

    Raises:
        ExpertError: for another shape, or a structure beyond K.
    """
    if answer.ndim < 2 or answer.shape[1] != 5 or answer.dtype != torch.uint8:
        raise ExpertError("not an expert's answer", got=(tuple(answer.shape), str(answer.dtype)),
                          expected="uint8 [B, 5, ...]")  # fmt: skip
    named = answer[:, 1::2].long()
    if int(named.max()) > structures:
        raise ExpertError("the answer names a structure that the expert does not know", got=int(named.max()),
                          expected=f"0 .. {structures}", hint="they are of another expert: ask again")  # fmt: skip
    p = answer[:, 0::2].float() / LEVELS
    rest = (1 - p.sum(1, keepdim=True)).clamp(min=0)
    others = structures - (named > 0).sum(1, keepdim=True)
    share = torch.where(others > 0, rest / others.clamp(min=1), 0.0)
    full = share.expand(-1, structures + 1, *answer.shape[2:]).clone()
    full[:, :1] = p[:, :1]
    for i in (0, 1):
        place = named[:, i : i + 1]
        full.scatter_(1, place, torch.where(place > 0, p[:, i + 1 : i + 2], full[:, :1]))
    return full / full.sum(1, keepdim=True).clamp(min=1 / LEVELS)


def decide(answer: Tensor) -> Tensor:
    """The class of each voxel: the named structure if it is likelier than background, else 0.

    Args:
        answer: ``[5, ...]`` uint8.

    Returns:
        ``[...]`` uint8.
    """
    return torch.where(answer[2] > answer[0], answer[1], torch.zeros_like(answer[1]))


def _levels(p: Tensor) -> Tensor:
    return (p * LEVELS).round().to(torch.uint8)
