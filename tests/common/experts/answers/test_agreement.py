"""The check tells a rightly asked expert from one that is asked wrongly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation, Spacing

from common.experts.answers.agreement import Agreement, agreement, student_grid
from common.experts.answers.at_home import HomeAnswer, HomeNNUNet
from common.geometry import Grid
from tests.common.experts.answers.nnunets import decided, scan, spec_of
from tests.nnunet_folders import write_folder


def test_the_students_grid_is_monais() -> None:
    given = scan("LAS", spacing=(1.0, 1.5, 2.0))
    wanted = Spacing(pixdim=(1.4, 1.4, 1.4))(Orientation(axcodes="RAS", labels=None)(given))
    found = student_grid(given, (1.4, 1.4, 1.4))
    assert found.same_as(Grid.of(wanted), tol_mm=1e-4)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.3, 1.3, 1.3), (0.7, 0.8, 0.9)])
def test_asked_at_home_is_heard_at_home(tmp_path: Path, spacing: tuple[float, ...]) -> None:
    given = scan("LPS", smooth=9)  # organs are smooth; at random's edges one more interpolation is seen
    folder = decided(write_folder(tmp_path, transpose=(1, 2, 0)), given, "RAS")
    found = agreement(HomeNNUNet(spec_of(folder, "RAS")), given, student_grid(given, spacing))
    assert found.voxels["liver"] > 500 and found.voxels["spleen"] > 500
    assert not found.below, found
    assert 0.8 < found.grid <= 1


def test_what_differs_is_named(tmp_path: Path) -> None:
    """An expert that is asked in another orientation than the judge does not reach the bar."""
    given = scan("RAS")
    folder = decided(write_folder(tmp_path), given, "RAS")
    right, wrong = (HomeNNUNet(spec_of(folder, code)) for code in ("RAS", "PIR"))
    right.judge = wrong.judge  # type: ignore[method-assign]
    found = agreement(right, given, Grid.of(given))
    assert "foreground" in found.below or found.below


def test_a_shift_by_a_voxel_is_seen(tmp_path: Path) -> None:
    given = scan("LPS", smooth=9)
    home = HomeNNUNet(spec_of(decided(write_folder(tmp_path), given, "RAS"), "RAS"), mirroring=False)
    answer = home.answer(given)
    moved = answer.affine.copy()
    moved[:3, 3] += [1, 0, 0]
    home.answer = lambda _: HomeAnswer(answer.logits, moved, answer.exclusive)  # type: ignore[method-assign]
    found = agreement(home, given, student_grid(given, (1.3, 1.3, 1.3)))
    assert "foreground" in found.below and found.student["foreground"] < 1


def test_bars() -> None:
    student = {"foreground": 1.0, "a": 0.99, "b": 0.3}
    fine = Agreement(0.999, {"a": 0.99, "b": 0.2}, {"a": 900, "b": 20}, student, {"a": 900, "b": 20}, 1.0)
    assert not fine.below
    assert replace(fine, on_student={"a": 900, "b": 600}).below == {"b on the student's grid": 0.3}
    assert replace(fine, student={**student, "foreground": 0.99}).below == {"foreground on the student's grid": 0.99}
    assert replace(fine, voxels={"a": 900, "b": 600}).below == {"b": 0.2}
    assert replace(fine, foreground=0.98).below == {"foreground": 0.98}


def test_a_rough_expert_of_coarse_voxels_is_heard_and_its_shift_seen(tmp_path: Path) -> None:
    """Classes that change from voxel to voxel of its own grid leave no place undecided between the scan's alone."""
    given = scan("LPS", smooth=2)
    folder = decided(write_folder(tmp_path, spacing=(2.0, 2.0, 2.0)), given, "RAS")
    home = HomeNNUNet(spec_of(folder, "RAS"), mirroring=False)
    grid = student_grid(given, (2.6, 2.7, 3.1))
    found = agreement(home, given, grid)
    assert found.on_student["liver"] > 100 and not found.below and found.student["foreground"] == 1, found
    answer = home.answer(given)
    moved = answer.affine.copy()
    moved[:3, 3] += [2, 0, 0]
    home.answer = lambda _: HomeAnswer(answer.logits, moved, answer.exclusive)  # type: ignore[method-assign]
    found = agreement(home, given, grid)
    assert "foreground" in found.below and "foreground on the student's grid" in found.below


def test_both_silent_is_agreement(tmp_path: Path) -> None:
    given = MetaTensor(torch.zeros(1, 20, 20, 20), affine=torch.from_numpy(np.eye(4)))
    given[0, 5:9, 5:9, 5:9] = 1
    folder = write_folder(tmp_path)
    found = agreement(HomeNNUNet(spec_of(folder)), given, Grid.of(given))
    assert all(0 <= d <= 1 for d in found.structures.values())


def test_bars_are_reached_by_what_lies_on_them() -> None:
    student = {"foreground": 0.995, "a": 0.98}
    fine = Agreement(0.995, {"a": 0.98}, {"a": 501}, student, {"a": 501}, 1.0)
    assert not fine.below
    assert replace(fine, foreground=0.9949).below and replace(fine, structures={"a": 0.9799}).below
    assert replace(fine, student={**student, "a": 0.9799}).below
    assert not replace(fine, structures={"a": 0.1}, voxels={"a": 500}).below
    assert not replace(fine, student={**student, "a": 0.1}, on_student={"a": 500}).below
