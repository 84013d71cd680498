"""One label map of all answers about a scan: places to crop around and boxes where nobody drew a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...losses.marginal import terms
from .joint import conflicts, joint
from .record import LEVELS, decide, expand
from .teaching import Judge

__all__ = ["Together", "one_map"]


class Together(NamedTuple):
    """What several experts say about a scan.

    Args:
        classes: ``[...]`` int64 of the student's classes.
        disputed: ``{(structure of one, structure of another): voxels}`` that two experts claim.
    """

    classes: Tensor
    disputed: dict[tuple[str, str], int]


def one_map(answers: Sequence[Tensor], judges: Sequence[Judge], structures: Sequence[str]) -> Together:
    """The class of each voxel: what its experts say where they do not contradict each other, else the joint map's.

    A voxel that some experts take for one structure, and all others for none of theirs, is that structure. Where two
    claim it for different ones, :func:`.joint.joint` of all answers there decides. An expert whose structures overlap
    says the structure that alone is in just those regions that it says (above one half); where there is none such, the
    likeliest of those that are a region by themselves.

    Args:
        answers: ``[S_e, ...]`` uint8 of each expert, on one grid.
        judges: the experts in the student's terms.
        structures: the student's K names.
    """
    claims = [_claim(a, j, structures) for a, j in zip(answers, judges, strict=True)]
    classes = claims[0].clone()
    contested = torch.zeros_like(classes, dtype=torch.bool)
    for claim in claims[1:]:
        contested |= (classes > 0) & (claim > 0) & (classes != claim)
        classes = torch.where(classes > 0, classes, claim)
    disputed = conflicts(claims, [structures] * len(claims))
    if bool(contested.any()):
        heard = [(_distribution(a[:, contested], j), terms(j.known, structures))
                 for a, j in zip(answers, judges, strict=True) if j.exclusive]  # fmt: skip
        if len(heard) > 1:
            classes[contested] = joint([p for p, _ in heard], [m for _, m in heard]).argmax(0)
    return Together(classes, disputed)


def _claim(answer: Tensor, judge: Judge, structures: Sequence[str]) -> Tensor:
    """``[...]`` the student's class that an expert decides for, 0 where it decides for none of them."""
    table = torch.zeros(judge.structures + 1, dtype=torch.int64)
    rows = range(judge.structures) if judge.place is None else judge.place
    if judge.exclusive:
        for own, name in zip(rows, judge.known, strict=True):
            table[own + 1] = structures.index(name) + 1
        return table[decide(answer).long()]
    for own, row in zip(rows, judge.matrix, strict=True):
        table[own + 1] = int(row.argmax()) if row.sum() == 1 else 0
    single = answer * (table[1:] > 0)[(..., *[None] * (answer.ndim - 1))]
    value, place = single.max(0)
    claim = torch.where(value > LEVELS // 2, table[place + 1], 0)
    said = answer[list(rows)] > LEVELS // 2
    patterns = judge.matrix.T.bool()
    for number, held in enumerate(patterns):
        if number and bool(held.any()):
            same = (said == held.view(-1, *[1] * (answer.ndim - 1))).all(0)
            claim = torch.where(same, number if int((patterns == held).all(1).sum()) == 1 else 0, claim)
    return claim


def _distribution(answer: Tensor, judge: Judge) -> Tensor:
    """``[Ke+1, n]`` probabilities of an exclusive expert over its background and what the student knows of it."""
    p = expand(answer[None], judge.structures)[0]
    if judge.place is None:
        return p
    kept = p[[1 + i for i in judge.place]]
    return torch.cat([(1 - kept.sum(0, keepdim=True)).clamp(min=0), kept])
