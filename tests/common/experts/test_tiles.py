"""A student's tiles step as far as those of the expert among its own that looks most often."""

from __future__ import annotations

from typing import Any

import pytest

from common.experts.spec import ExpertSpec
from common.experts.tiles import Tiles, inherited_tiles, tile_step
from common.labels import LabelSpace
from tools.experts.profile import read_profile


def expert(name: str, step: float | None = None, kind: str = "nnunet") -> ExpertSpec:
    profile: dict[str, Any] | None = None
    if step is not None:
        profile = {"program": "one", "version": "1", "orientation": "RAS", "tile_step": step}
    return ExpertSpec(name=name, kind=kind, path="x", labels=LabelSpace(("liver",)), channels=("CT",), role="external",
                      profile=profile)  # fmt: skip


def test_the_home_says_the_step() -> None:
    assert tile_step(expert("a")) == tile_step(expert("a", kind="torchscript")) == 0.5
    assert tile_step(expert("a", 0.8)) == 0.8 and tile_step(expert("a", 0.8), 0.3) == 0.3
    assert tile_step(expert("a", kind="bundle"), 0.8) == 0.5, "it is of nnU-Nets"


@pytest.mark.parametrize(
    ("experts", "step", "found"),
    [
        ([], None, Tiles(0.5, ())),
        ([expert("a"), expert("b", kind="bundle")], None, Tiles(0.5, ("a", "b"))),
        ([expert("a", 0.8), expert("b", 0.8)], None, Tiles(0.2, ("a", "b"))),
        ([expert("a", 0.8), expert("b"), expert("c", 0.9)], None, Tiles(0.5, ("b",))),
        ([expert("a", 0.8), expert("b", 0.3)], None, Tiles(0.7, ("b",))),
        ([expert("a"), expert("b", kind="bundle")], 0.25, Tiles(0.75, ("a",))),
        ([expert("a", 1)], None, Tiles(0.0, ("a",))),
    ],
)
def test_the_student_looks_as_often_as_who_looks_most(
    experts: list[ExpertSpec], step: float | None, found: Tiles
) -> None:
    assert inherited_tiles(experts, step) == found


def test_totalsegmentators_experts_leave_a_fifth() -> None:
    profile = read_profile("totalsegmentator").ask.to_dict()
    spec = ExpertSpec(name="organs", kind="nnunet", path="x", labels=LabelSpace(("liver",)), channels=("CT",),
                      role="external", profile=profile)  # fmt: skip
    assert inherited_tiles([spec]) == (0.2, ("organs",))
