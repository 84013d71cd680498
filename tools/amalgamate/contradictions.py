"""Experts that contradict each other wherever they meet: they mean something else, or one is asked wrongly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from common.data.store.entry import StoredArray
from common.errors import few
from common.experts.answers.record import LEVELS, decide
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
        data: :class:`~common.experts.answers.cases.AnsweredCases`. Of an expert whose structures overlap, a region
            that holds another's structure contradicts nothing: only one of the same extent, whose name the other
            does not know, is taken for the same.
    """
    pairs = [(a, b) for a in range(len(data.experts)) for b in range(a + 1, len(data.experts))]
    left = dict.fromkeys(pairs, LOOKED)
    shares: dict[tuple[int, int], dict[tuple[int, int], list[tuple[float, float]]]] = {pair: {} for pair in pairs}
    for position in range(len(data)):
        own = [p for p in pairs if left[p] and all(position in data.places[e] for e in p)]
        said = {e: _said(data, e, position) for e in dict.fromkeys(e for p in own for e in p)}
        for a, b in own:
            left[a, b] -= 1
            for structures, share in _shared(said[a], said[b], data.experts[a], data.experts[b]).items():
                shares[a, b].setdefault(structures, []).append(share)
    return [c for (a, b), own in shares.items() for c in _found(data.experts[a], data.experts[b], own)]


def _said(data: Any, expert: int, position: int) -> Tensor:
    """``[...]`` the structures' numbers, or bool masks ``[K, ...]`` where structures overlap."""
    answer = data.answers[expert].case(data.places[expert][position])["answer"]
    record = answer.whole() if isinstance(answer, StoredArray) else answer
    return decide(record).long() if data.experts[expert].labels.exclusive else record > LEVELS / 2


def _shared(
    one: Tensor, other: Tensor, first: ExpertSpec, second: ExpertSpec
) -> dict[tuple[int, int], tuple[float, float]]:
    """Of each pair of structures that are seen, the shares of the smaller and of the larger one that both claim."""
    rows, columns = len(first.labels), len(second.labels)
    everywhere = torch.ones(one.shape[-3:], dtype=torch.bool)
    mine, its = _voxels(one, everywhere, rows).tolist(), _voxels(other, everywhere, columns).tolist()
    met = _met(one, other, rows, columns).tolist()
    return {(i, j): (met[i][j] / min(mine[i], its[j]), met[i][j] / max(mine[i], its[j]))
            for i in range(rows) for j in range(columns) if min(mine[i], its[j]) >= SEEN}  # fmt: skip


def _voxels(said: Tensor, where: Tensor, structures: int) -> Tensor:
    """``[K]`` voxels of each structure at some places."""
    if said.dtype == torch.bool:
        return (said & where).flatten(1).sum(1)
    return torch.bincount(said[where], minlength=structures + 1)[1:]


def _met(one: Tensor, other: Tensor, rows: int, columns: int) -> Tensor:
    """``[rows, columns]`` voxels that both claim, by structure."""
    if other.dtype == torch.bool:
        return torch.stack([_voxels(one, mask, rows) for mask in other], 1)
    if one.dtype == torch.bool:
        return _met(other, one, columns, rows).T
    met = torch.bincount((one * (columns + 1) + other).flatten(), minlength=(rows + 1) * (columns + 1))
    return met.reshape(rows + 1, columns + 1)[1:, 1:]


def _found(
    first: ExpertSpec, second: ExpertSpec, shares: Mapping[tuple[int, int], Sequence[tuple[float, float]]]
) -> list[Contradiction]:
    found = []
    exclusive = first.labels.exclusive and second.labels.exclusive
    for (i, j), both in shares.items():
        one, other = first.labels.names[i], second.labels.names[j]
        own = [smaller for smaller, _ in both]
        alike = min(own) > SAME
        if not exclusive:  # one inside the other is what regions are for
            known = one in second.labels.names or other in first.labels.names
            alike = not known and min(larger for _, larger in both) > SAME
        if max(own) < APART if one == other else alike:
            found.append(Contradiction(first.name, one, second.name, other, sum(own) / len(own), len(own)))
    return found


def contradicted(found: Sequence[Sequence[Any]]) -> list[str]:
    """For people: one message for each pair of experts, about all structures.

    Args:
        found: fields of contradictions, as a result has them.
    """
    pairs: dict[tuple[str, str], list[Contradiction]] = {}
    for c in (Contradiction(*one) for one in found):
        pairs.setdefault((c.expert, c.other), []).append(c)
    return [_sentence(*own) if len(own) == 1 else _message(own) for own in pairs.values()]


def _sentence(c: Contradiction) -> str:
    if c.structure == c.its:
        return (f"{c.expert} and {c.other} contradict each other about {c.structure} in all {c.scans} scans "
                f"that both see it in ({c.shared:.0%} in common): one of them means something else, or is "
                "asked in a wrong orientation")  # fmt: skip
    return (f"{c.expert} says {c.structure} where {c.other} says {c.its}, in all {c.scans} scans "
            f"({c.shared:.0%} of the smaller one): if they are one, describe one of the experts with "
            "--map; if not, one of them is wrong")  # fmt: skip


def _message(own: Sequence[Contradiction]) -> str:
    apart = [c for c in own if c.structure == c.its]
    mixed = [f"{c.structure} where the other says {c.its}" for c in own if c.structure != c.its]
    parts = []
    if apart:
        most = max(c.shared for c in apart)
        parts.append(f"about {few([c.structure for c in apart])} (at most {most:.0%} in common)")
    if mixed:
        parts.append(f"{own[0].expert} says {few(mixed)}")
    names = len({n for c in own for n in (c.structure, c.its)})
    return (f"{own[0].expert} and {own[0].other} contradict each other about {names} structures in all scans that both "
            f"see them in: {'; '.join(parts)}. One of them is asked in a wrong orientation (experts check, "
            "--orientation), or calls its structures otherwise (--map)")  # fmt: skip
