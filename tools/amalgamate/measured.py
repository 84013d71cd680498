"""What is counted on one scan that was held back: student, experts and label map, structure by structure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from common.experts.answers.joint import conflicts
from common.experts.answers.record import LEVELS, decide
from common.labels import LabelSpace
from common.overlap import dice

from .verdict import Row

__all__ = ["Answer", "disputes", "masks_of", "rows_of", "seen_in"]


class Answer(NamedTuple):
    """What one expert said about a scan, on the scan's own grid.

    Args:
        expert: its name.
        labels: the structures that it knows.
        record: ``[5, X, Y, Z]`` uint8 of :func:`~common.experts.answers.record.record`, or ``[K, X, Y, Z]`` where
            structures overlap.
    """

    expert: str
    labels: LabelSpace
    record: Tensor

    def mask(self, structure: str) -> Tensor:
        """``[X, Y, Z]`` bool: where it says that the structure is."""
        index = self.labels.index(structure)
        if self.labels.exclusive:
            return decide(self.record) == index
        return self.record[index - 1] > LEVELS / 2


def rows_of(
    task: str,
    case: str,
    student: Mapping[str, Tensor],
    answers: Sequence[Answer],
    truth: Mapping[str, Tensor] | None,
    made: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
) -> list[Row]:
    """Every structure that somebody knows, for each expert that knows it.

    Args:
        task: whose scan.
        case: its id.
        student: masks ``[X, Y, Z]`` bool of what the student was taught here.
        answers: the experts'.
        truth: masks of what the label map annotates; None without one.
        made: by expert, of which structures its regions consist, where they overlap.
    """
    found, parts = [], made or {}
    known = {a.expert: {n: a.mask(n) for n in a.labels.names} for a in answers}
    names = dict.fromkeys([*student, *(n for masks in known.values() for n in masks), *(truth or {})])
    for name in names:
        own, label = student.get(name), (truth or {}).get(name)
        scored = _dice(own, label)
        asked = [expert for expert, masks in known.items() if name in masks]
        for expert in asked:
            mask, consists = known[expert][name], parts.get(expert, {}).get(name, (name,))
            one, drawn = _united(student, consists), _united(truth or {}, consists)
            found.append(Row(task, case, name, expert, _dice(one, mask), _dice(one, drawn), _dice(mask, drawn)))
        if not asked and math.isfinite(scored):
            found.append(Row(task, case, name, "", math.nan, scored, math.nan))
    return found


def _united(masks: Mapping[str, Tensor], names: Sequence[str]) -> Tensor | None:
    """Where one of some structures is; None where not all of them are known."""
    if any(name not in masks for name in names):
        return None
    return torch.stack([masks[name] for name in names]).any(0)


def _dice(one: Tensor | None, other: Tensor | None) -> float:
    """NaN where one of the two is not there, or both are empty."""
    if one is None or other is None:
        return math.nan
    return dice(int((one & other).sum()), int(one.sum()), int(other.sum()))


def disputes(answers: Sequence[Answer]) -> dict[tuple[str, str, str, str], int]:
    """Voxels that two experts claim for different structures.

    Args:
        answers: about one scan; those whose structures overlap are left out.

    Returns:
        ``{(expert, structure, other expert, its structure): voxels}``.
    """
    found: dict[tuple[str, str, str, str], int] = {}
    exclusive = [(a, decide(a.record)) for a in answers if a.labels.exclusive]
    for number, (first, one) in enumerate(exclusive):
        for second, other in exclusive[number + 1 :]:
            both = conflicts([one, other], [first.labels.names, second.labels.names])
            found |= {(first.expert, a, second.expert, b): voxels for (a, b), voxels in both.items()}
    return found


def masks_of(indices: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """``{name: [X, Y, Z] bool}`` of a map of class indices, the first name's is 1."""
    return {name: indices == number for number, name in enumerate(names, 1)}


def seen_in(answer: Answer, voxels: int) -> dict[str, bool]:
    """Whether an expert sees each of its structures in a scan: in so many voxels at least."""
    counts = torch.stack([answer.mask(n).sum() for n in answer.labels.names]).tolist()
    return {n: count >= voxels for n, count in zip(answer.labels.names, counts, strict=True)}
