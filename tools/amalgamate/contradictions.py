"""Experts that contradict each other wherever they meet: they mean something else, or one is asked wrongly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from common.data.store.entry import StoredArray
from common.experts.answers.record import decide
from common.experts.spec import ExpertSpec

__all__ = ["APART", "LOOKED", "SAME", "SEEN", "Contradiction", "contradicted", "contradictions"]

LOOKED = 20  # scans of each pair of experts that are looked at
SEEN = 10  # voxels of the student's grid in which a structure counts as seen in a scan
APART = 0.1  # a structure that two experts know is contradicted where they share less of the smaller one
SAME = 0.5  # two structures are contradicted where experts that say them share more of the smaller one


class Contradiction(NamedTuple):
    """What two experts say about the same voxels, in every scan in which both see theirs.

    Args:
        expert: its name.
        structure: that it says.
        other: name of the other expert.
        its: structure that this one says; the same name where they agree nowhere about it.
        shared: mean share of the smaller structure that both claim.
        scans: in which both see theirs.
    """

    expert: str
    structure: str
    other: str
    its: str
    shared: float
    scans: int


def contradictions(data: Any) -> list[Contradiction]:
    """Pairs of structures about which two experts contradict each other in all scans that both answered.

    Args:
        data: :class:`~common.experts.answers.cases.AnsweredCases`; experts whose structures overlap are left out.
    """
    exclusive = [e for e, spec in enumerate(data.experts) if spec.labels.exclusive]
    pairs = [(a, b) for n, a in enumerate(exclusive) for b in exclusive[n + 1 :]]
    left = dict.fromkeys(pairs, LOOKED)
    shares: dict[tuple[int, int], dict[tuple[int, int], list[float]]] = {pair: {} for pair in pairs}
    for position in range(len(data)):
        own = [p for p in pairs if left[p] and all(position in data.places[e] for e in p)]
        said = {e: _said(data, e, position) for e in dict.fromkeys(e for p in own for e in p)}
        for a, b in own:
            left[a, b] -= 1
            for structures, share in _shared(said[a], said[b], data.experts[a], data.experts[b]).items():
                shares[a, b].setdefault(structures, []).append(share)
    return [c for (a, b), own in shares.items() for c in _found(data.experts[a], data.experts[b], own)]


def _said(data: Any, expert: int, position: int) -> Tensor:
    answer = data.answers[expert].case(data.places[expert][position])["answer"]
    return decide(answer.whole() if isinstance(answer, StoredArray) else answer).long()


def _shared(one: Tensor, other: Tensor, first: ExpertSpec, second: ExpertSpec) -> dict[tuple[int, int], float]:
    """Of each pair of structures that are seen, the share of the smaller one that both claim."""
    rows, columns = len(first.labels) + 1, len(second.labels) + 1
    met = torch.bincount((one * columns + other).flatten(), minlength=rows * columns).reshape(rows, columns)
    mine, its = met.sum(1).tolist(), met.sum(0).tolist()
    return {(i, j): int(met[i, j]) / min(mine[i], its[j]) for i in range(1, rows) for j in range(1, columns)
            if min(mine[i], its[j]) >= SEEN}  # fmt: skip


def _found(
    first: ExpertSpec, second: ExpertSpec, shares: Mapping[tuple[int, int], Sequence[float]]
) -> list[Contradiction]:
    found = []
    for (i, j), own in shares.items():
        one, other = first.labels.names[i - 1], second.labels.names[j - 1]
        if max(own) < APART if one == other else min(own) > SAME:
            found.append(Contradiction(first.name, one, second.name, other, sum(own) / len(own), len(own)))
    return found


def contradicted(found: Sequence[Sequence[Any]]) -> list[str]:
    """For people.

    Args:
        found: fields of contradictions, as a result has them.
    """
    lines = []
    for c in (Contradiction(*one) for one in found):
        if c.structure == c.its:
            lines.append(f"{c.expert} and {c.other} contradict each other about {c.structure} in all {c.scans} scans "
                         f"that both see it in ({c.shared:.0%} in common): one of them means something else, or is "
                         "asked in a wrong orientation")  # fmt: skip
        else:
            lines.append(f"{c.expert} says {c.structure} where {c.other} says {c.its}, in all {c.scans} scans "
                         f"({c.shared:.0%} of the smaller one): if they are one, describe one of the experts with "
                         "--map; if not, one of them is wrong")  # fmt: skip
    return lines
