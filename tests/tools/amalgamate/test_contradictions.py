"""Two experts that contradict each other in every scan are named; who differs now and then is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.experts.answers.record import record
from common.experts.spec import ExpertSpec
from tests.tools.amalgamate.made import expert
from tools.amalgamate.answers import answers
from tools.amalgamate.contradictions import LOOKED, Contradiction, _found, _shared, contradicted, contradictions
from tools.amalgamate.work import Work


def answer(spec: ExpertSpec, *slabs: tuple[str, int, int]) -> Tensor:
    """A record of 10 slices of 4 x 4 voxels: each structure from one slice to another."""
    if not spec.labels.exclusive:
        levels = torch.zeros(len(spec.labels), 10, 4, 4, dtype=torch.uint8)
        for name, start, stop in slabs:
            levels[spec.labels.index(name) - 1, start:stop] = 250
        return levels
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


def test_no_more_scans_are_looked_at_than_needed() -> None:
    data = answered([A, B], [(answer(A, ("liver", 0, 3)), answer(B, ("liver", 6, 9)))] * (LOOKED + 5))
    assert contradictions(data)[0].scans == LOOKED


def test_both_are_said_in_a_sentence() -> None:
    apart, same = contradicted([["a", "liver", "b", "liver", 0.02, 7], ["a", "spleen", "c", "rib", 0.9, 3]])
    assert apart.startswith("a and b contradict each other about liver in all 7 scans") and "(2% in common)" in apart
    assert same.startswith("a says spleen where c says rib, in all 3 scans (90%") and "--map" in same


def test_the_bars_of_a_contradiction() -> None:
    """Ten voxels are seen, less than a tenth in common is nothing, more than a half is the same."""
    one, other = expert("one", "liver", "spleen"), expert("other", "liver", "kidney")
    first, second = torch.zeros(40, dtype=torch.long), torch.zeros(40, dtype=torch.long)
    first[:20], second[10:20] = 1, 2
    assert _shared(first, second, one, other) == {(0, 1): (1.0, 0.5)}
    second[10] = 0
    assert _shared(first, second, one, other) == {}, "nine are not seen"
    second[18:30] = 2
    assert _shared(first, second, one, other)[0, 1] == pytest.approx((9 / 19, 9 / 20))
    for shares, told in (({(0, 0): [0.09, 0.0]}, True), ({(0, 0): [0.1, 0.0]}, False), ({(0, 1): [0.51, 0.9]}, True),
                         ({(0, 1): [0.5, 0.9]}, False), ({(1, 0): [0.0]}, False)):  # fmt: skip
        found = _found(one, other, {pair: [(share, share / 2) for share in own] for pair, own in shares.items()})
        assert bool(found) == told, shares
        for c in found:
            ((i, j),) = shares
            assert (c.structure, c.its, c.scans) == (one.labels.names[i], other.labels.names[j], 2)
            assert c.shared == sum(shares[i, j]) / 2


REGIONS = expert("r", "whole", "core", "liver", exclusive=False)


@pytest.mark.parametrize("turned", [False, True])
def test_regions_are_heard_too(turned: bool) -> None:
    """A region at another place than its name elsewhere, and one of the extent of another name; not what is inside."""
    other = expert("b", "liver", "lesion", "edema")
    said = (("liver", 0, 2), ("whole", 4, 9), ("core", 6, 8)), (("liver", 8, 10), ("edema", 4, 6))
    experts, scan = [REGIONS, other], [answer(REGIONS, *said[0]), answer(other, *said[1])]
    if turned:
        experts, scan = experts[::-1], scan[::-1]
    (found,) = contradictions(answered(experts, [scan] * 2))
    assert (found.structure, found.its, found.scans) == ("liver", "liver", 2), "edema is inside of whole"
    scan[0 if turned else 1] = answer(other, ("lesion", 4, 8), ("liver", 0, 2))
    (found,) = contradictions(answered(experts, [scan]))
    assert {(found.expert, found.structure), (found.other, found.its)} == {("r", "whole"), ("b", "lesion")}
    assert found.shared == 1


def test_two_experts_of_the_same_regions_do_not_contradict_each_other() -> None:
    twin = expert("t", "whole", "core", exclusive=False)
    scan = (answer(REGIONS, ("whole", 2, 8), ("core", 3, 8)), answer(twin, ("whole", 2, 9), ("core", 3, 8)))
    assert contradictions(answered([REGIONS, twin], [scan])) == []
    apart = (scan[0], answer(twin, ("whole", 0, 2), ("core", 0, 1)))
    assert [c[1:4:2] for c in contradictions(answered([REGIONS, twin], [apart]))] == [("whole", "whole"),
                                                                                     ("core", "core")]  # fmt: skip


def test_all_that_two_experts_contradict_each_other_about_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked upside down, one expert is elsewhere with each of its structures."""
    names = tuple(f"organ {n}" for n in range(10))
    one, other, third = expert("a", *names), expert("b", *names), expert("c", "organ 0")
    upright = answer(one, *((name, n, n + 1) for n, name in enumerate(names)))
    turned = answer(other, *((name, 9 - n, 10 - n) for n, name in enumerate(names)))
    data = answered([one, other, third], [(upright, turned, answer(third, ("organ 0", 0, 1)))] * 2)
    monkeypatch.setattr(
        "tools.amalgamate.answers.opened", lambda *_: SimpleNamespace(get_parsed_content=lambda _: data)
    )
    monkeypatch.setattr("tools.amalgamate.answers.counted", lambda _: {"seen": {}})
    lines = contradicted(answers(Work(Path("out")))["contradictions"])
    assert [line.split(" contradict")[0] for line in lines] == ["a and b", "b and c"]
    assert "about 10 structures" in lines[0] and "organ 0" in lines[0] and "wrong orientation" in lines[0]
    assert "a says organ 0 where the other says organ 9" in lines[0] and "--map" in lines[0]
