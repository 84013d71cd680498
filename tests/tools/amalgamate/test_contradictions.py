"""Two experts that contradict each other in every scan are named; who differs now and then is not."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.experts.answers.record import record
from common.experts.spec import ExpertSpec
from tests.tools.amalgamate.made import expert
from tools.amalgamate.contradictions import LOOKED, Contradiction, _found, _shared, contradicted, contradictions


def answer(spec: ExpertSpec, *slabs: tuple[str, int, int]) -> Tensor:
    """A record of 10 slices of 4 x 4 voxels: each structure from one slice to another."""
    logits = torch.zeros(len(spec.labels) + 1, 10, 4, 4)
    logits[0] = 4
    for name, start, stop in slabs:
        logits[spec.labels.index(name), start:stop] = 9
    return record(logits)


def answered(experts: Sequence[ExpertSpec], scans: Sequence[Sequence[Tensor | None]]) -> Any:
    """What is stored of these experts' answers, None where one was not asked."""
    places: list[dict[int, int]] = [{} for _ in experts]
    kept: list[list[Tensor]] = [[] for _ in experts]
    for number, scan in enumerate(scans):
        for e, said in enumerate(scan):
            if said is not None:
                places[e][number] = len(kept[e])
                kept[e].append(said)

    class Data(list[int]):
        pass

    data: Any = Data(range(len(scans)))
    data.experts, data.places = list(experts), places
    data.answers = [SimpleNamespace(case=lambda p, own=own: {"answer": own[p]}) for own in kept]
    return data


A, B = expert("a", "liver", "spleen"), expert("b", "liver", "rib")


def test_one_structure_at_two_places() -> None:
    scans = [(answer(A, ("liver", 0, 3)), answer(B, ("liver", 6, 9)))] * 2
    assert contradictions(answered([A, B], scans)) == [Contradiction("a", "liver", "b", "liver", 0.0, 2)]
    once = [*scans, (answer(A, ("liver", 0, 3)), answer(B, ("liver", 1, 4)))]
    assert contradictions(answered([A, B], once)) == []
    unseen = [(answer(A, ("liver", 0, 3)), answer(B)), (answer(A), answer(B, ("liver", 0, 3)))]
    assert contradictions(answered([A, B], unseen)) == [], "nobody is contradicted where one sees nothing"


def test_two_names_at_one_place() -> None:
    scans = [(answer(A, ("spleen", 0, 4)), answer(B, ("rib", 1, 4))), (answer(A, ("spleen", 2, 4)), None),
             (answer(A, ("spleen", 0, 3)), answer(B, ("rib", 1, 5)))]  # fmt: skip
    (found,) = contradictions(answered([A, B], scans))
    assert found[:4] == ("a", "spleen", "b", "rib") and found.scans == 2
    assert found.shared == pytest.approx(np.mean([1, 2 / 3]))
    beside = [*scans, (answer(A, ("spleen", 0, 3)), answer(B, ("rib", 2, 6)))]
    assert contradictions(answered([A, B], beside)) == [], "they touch, as ribs and spleens do"
    assert contradictions(answered([A, expert("b", "liver", "rib", exclusive=False)], scans)) == []


def test_no_more_scans_are_looked_at_than_needed() -> None:
    data = answered([A, B], [(answer(A, ("liver", 0, 3)), answer(B, ("liver", 6, 9)))] * (LOOKED + 5))
    assert contradictions(data)[0].scans == LOOKED


def test_both_are_said_in_a_sentence() -> None:
    apart, same = contradicted([["a", "liver", "b", "liver", 0.02, 7], ["a", "spleen", "b", "rib", 0.9, 3]])
    assert apart.startswith("a and b contradict each other about liver in all 7 scans") and "(2% in common)" in apart
    assert same.startswith("a says spleen where b says rib, in all 3 scans (90%") and "--map" in same


def test_the_bars_of_a_contradiction() -> None:
    """Ten voxels are seen, less than a tenth in common is nothing, more than a half is the same."""
    one, other = expert("one", "liver", "spleen"), expert("other", "liver", "kidney")
    first, second = torch.zeros(40, dtype=torch.long), torch.zeros(40, dtype=torch.long)
    first[:20], second[10:20] = 1, 2
    assert _shared(first, second, one, other) == {(1, 2): 1.0}
    second[10] = 0
    assert _shared(first, second, one, other) == {}, "nine are not seen"
    second[18:30] = 2
    assert _shared(first, second, one, other)[1, 2] == pytest.approx(9 / 19)
    for shares, told in (({(1, 1): [0.09, 0.0]}, True), ({(1, 1): [0.1, 0.0]}, False), ({(1, 2): [0.51, 0.9]}, True),
                         ({(1, 2): [0.5, 0.9]}, False), ({(2, 1): [0.0]}, False)):  # fmt: skip
        found = _found(one, other, shares)
        assert bool(found) == told, shares
        for c in found:
            ((i, j),) = shares
            assert (c.structure, c.its, c.scans) == (one.labels.names[i - 1], other.labels.names[j - 1], 2)
            assert c.shared == sum(shares[i, j]) / 2
