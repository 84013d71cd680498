"""Regions are made of classes that exclude each other, and an nnU-Net's own files say of which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.experts.answers.teaching import judge_of
from common.experts.describe import describe_expert
from common.experts.regions import classes_of, region_parts, region_values, taught_space
from common.experts.spec import ExpertSpec
from common.labels import LabelSpace
from tests.nnunet_folders import write_folder

TUMOUR = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
CLASSES = ("whole without core", "core without enhancing", "enhancing")


@pytest.fixture
def spec(tmp_path: Path) -> ExpertSpec:
    folder = write_folder(tmp_path, labels=TUMOUR, extra={"regions_class_order": [1, 2, 3]}, channel_names=("CT",))
    return describe_expert(folder, name="tumour", role="external", orientation="RAS")


def values(**regions: set[int]) -> dict[str, frozenset[int]]:
    return {name: frozenset(own) for name, own in regions.items()}


@pytest.mark.parametrize(
    ("regions", "classes"),
    [
        (values(whole={1, 2, 3}, core={2, 3}, enhancing={3}),
         {"whole without core": "whole", "core without enhancing": "whole core", "enhancing": "whole core enhancing"}),
        (values(whole={1, 2, 4}, core={2}), {"whole without core": "whole", "core": "whole core"}),
        (values(a={1, 2}, b={2, 3}), {"a without b": "a", "a and b": "a b", "b without a": "b"}),
        (values(a={1}, b={2}), {"a": "a", "b": "b"}),
        (values(a={1, 2}, b={1, 2}), {"a": "a b"}),
        (values(organ={1, 2, 3}, cyst={2}, stone={3}),
         {"organ without cyst and stone": "organ", "cyst": "organ cyst", "stone": "organ stone"}),
    ],
)  # fmt: skip
def test_the_classes_between_regions(regions: dict[str, frozenset[int]], classes: dict[str, str]) -> None:
    assert classes_of(regions) == {name: frozenset(held.split()) for name, held in classes.items()}


def test_the_experts_own_files_tell(spec: ExpertSpec) -> None:
    assert not spec.labels.exclusive and region_values(spec) == values(whole={1, 2, 3}, core={2, 3}, enhancing={3})
    assert taught_space(spec) == LabelSpace(CLASSES)
    assert region_parts(spec, CLASSES) == {"whole": CLASSES, "core": CLASSES[1:], "enhancing": CLASSES[2:]}
    judge = judge_of(spec, ("liver", *CLASSES))
    assert judge.matrix.tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1]] and judge.known == CLASSES


def test_a_region_inside_another_is_a_part_of_it(spec: ExpertSpec) -> None:
    """Label maps give a voxel one name: where they know ``core`` and ``enhancing``, a region ``core`` is both."""
    assert region_parts(spec, ("core", "enhancing", "liver")) == {
        "core": ("core", "enhancing"), "enhancing": ("enhancing",)}  # fmt: skip
    judge = judge_of(spec, ("core", "enhancing"))
    assert judge.place == (1, 2) and judge.matrix.tolist() == [[0, 1, 1], [0, 0, 1]]
    told = judge_of(spec, ("core", "enhancing"), {"core": ["core"]})
    assert told.matrix.tolist() == [[0, 1, 0], [0, 0, 1]], "who says it decides"


def test_files_that_do_not_tell(spec: ExpertSpec, tmp_path: Path) -> None:
    file = Path(spec.path) / "dataset.json"
    content = json.loads(file.read_text())
    wrong: tuple[Any, ...] = ["2", 3], [], True, [2.5]
    for labels in ({"whole": [1, 2]}, None, *({**TUMOUR, "core": values} for values in wrong)):
        file.write_text(json.dumps({**content, "labels": labels}))
        assert region_values(spec) == {} and taught_space(spec) == spec.labels and region_parts(spec, CLASSES) == {}
    file.unlink()
    assert region_values(spec) == {}
    exclusive = write_folder(tmp_path, "Dataset1_x", channel_names=("CT",))
    organs = describe_expert(exclusive, name="organs", role="external", orientation="RAS")
    assert region_values(organs) == {} and taught_space(organs) == organs.labels


def test_other_names(spec: ExpertSpec) -> None:
    called = describe_expert(spec.path, name="t", role="external", orientation="RAS", renamed={"core": "kernel"})
    assert list(region_values(called)) == ["whole", "kernel", "enhancing"]
    assert taught_space(called).names[1] == "kernel without enhancing"
