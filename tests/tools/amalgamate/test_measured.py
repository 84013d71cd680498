"""Counts on one scan against masks that were made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from common.experts.answers.record import record, record_overlapping
from common.labels import LabelSpace
from tools.amalgamate.measured import Answer, disputes, masks_of, rows_of, seen_in


def answer(expert: str, names: tuple[str, ...], classes: list[int]) -> Answer:
    logits = torch.nn.functional.one_hot(torch.tensor(classes), len(names) + 1).T.float() * 20
    return Answer(expert, LabelSpace(names), record(logits[:, :, None, None]))


def mask(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)[:, None, None]


def test_every_expert_is_compared_in_what_it_knows() -> None:
    first = answer("a", ("liver", "spleen"), [1, 1, 2, 0])
    second = answer("b", ("liver", "kidney"), [0, 1, 0, 0])
    student = {"liver": mask(1, 1, 0, 0), "spleen": mask(0, 0, 0, 0)}
    truth = {"liver": mask(1, 1, 1, 1), "rib": mask(1, 0, 0, 0)}
    found = {(r.structure, r.expert): r for r in rows_of("ct", "x", student, [first, second], truth)}
    assert set(found) == {("liver", "a"), ("liver", "b"), ("spleen", "a"), ("kidney", "b")}
    a, b = found["liver", "a"], found["liver", "b"]
    assert (a.agreement, a.student, a.own) == (1.0, pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (b.agreement, b.own) == (pytest.approx(2 / 3), pytest.approx(0.4))
    assert found["spleen", "a"].agreement == 0.0 and math.isnan(found["spleen", "a"].student)
    assert math.isnan(found["kidney", "b"].agreement)  # the student was not taught it, nobody sees it


def test_a_region_is_held_against_all_that_it_consists_of() -> None:
    logits = torch.tensor([[9.0, 9, 9, -9], [-9, 9, 9, -9]])[:, :, None, None]
    regions = Answer("r", LabelSpace(("whole", "core"), exclusive=False), record_overlapping(logits))
    student = {"rim": mask(1, 0, 0, 0), "core": mask(0, 1, 0, 0), "cyst": mask(0, 0, 1, 0)}
    made = {"r": {"whole": ("rim", "core", "cyst"), "core": ("core", "cyst")}}
    truth = {"core": mask(0, 1, 1, 0)}
    found = {(r.structure, r.expert): r for r in rows_of("ct", "x", student, [regions], truth, made)}
    assert found["whole", "r"].agreement == found["core", "r"].agreement == 1.0
    assert math.isnan(found["core", "r"].student) and math.isnan(found["whole", "r"].own), "no label map has the cyst"
    bare = {r.structure: r for r in rows_of("ct", "x", student, [regions], None)}
    assert math.isnan(bare["whole"].agreement) and bare["core"].agreement == pytest.approx(2 / 3)


def test_what_only_labels_know_is_scored() -> None:
    (row,) = rows_of("ct", "x", {"rib": mask(1, 0)}, [], {"rib": mask(1, 1)})
    assert row.expert == "" and row.student == pytest.approx(2 / 3) and math.isnan(row.own)


def test_disputes_are_counted_per_pair() -> None:
    first = answer("a", ("liver", "spleen"), [1, 1, 2, 0])
    second = answer("b", ("kidney", "liver"), [2, 1, 1, 1])
    assert disputes([first, second]) == {("a", "liver", "b", "kidney"): 1, ("a", "spleen", "b", "kidney"): 1}
    everywhere = record_overlapping(torch.full((1, 4, 1, 1), 9.0))
    overlapping = Answer("r", LabelSpace(("whole",), exclusive=False), everywhere)
    assert disputes([first, overlapping]) == {}


def test_structures_that_overlap_have_masks_of_their_own() -> None:
    logits = torch.tensor([[5.0, -5.0], [5.0, 5.0]])[:, :, None, None]
    both = Answer("r", LabelSpace(("core", "whole"), exclusive=False), record_overlapping(logits))
    assert both.mask("core").flatten().tolist() == [True, False] and both.mask("whole").all()
    assert seen_in(both, 2) == {"core": False, "whole": True}


def test_masks_of_indices() -> None:
    found = masks_of(torch.tensor([0, 1, 2, 2]), ("a", "b"))
    assert {n: int(m.sum()) for n, m in found.items()} == {"a": 1, "b": 2}
