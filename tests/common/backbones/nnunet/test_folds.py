"""Which folds a results folder has: names are compared sign by sign, and what only looks like a fold is refused."""

from pathlib import Path

import pytest

from common.backbones.nnunet.folds import folds_there, is_fold
from common.errors import ExpertError, WeightError

FILE = "checkpoint_final.pth"
ODD = ["٣", "00", "01", "1_0", " 1", "+1", "-1", "²", "三", "", "1.0"]


def folds(root: Path, *names: str, file: str = FILE) -> Path:
    for name in names:
        (root / f"fold_{name}").mkdir(parents=True)
        (root / f"fold_{name}" / file).write_bytes(b"")
    return root


@pytest.mark.parametrize(("fold", "good"), [
    (0, True), (12, True), ("0", True), ("all", True), (-1, False), (True, False), (1.0, False), (None, False),
    (10**9, False), (10**4000, False), ("9" * 5000, False), ("$x", False), ("0/../1", False), ("ALL", False),
    *((name, False) for name in ODD),
])  # fmt: skip
def test_what_is_a_fold(fold: object, good: bool) -> None:
    assert is_fold(fold) is good


def test_numbers_come_in_order_and_other_folders_are_left_out(tmp_path: Path) -> None:
    folds(tmp_path, "10", "2", "all", "0_old", "backup")
    (tmp_path / "fold_3").mkdir()
    assert folds_there(tmp_path) == ["2", "10", "all"]
    assert folds_there(tmp_path / "nowhere") == []


@pytest.mark.parametrize("name", ODD)
def test_what_looks_like_a_fold_is_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    folds(tmp_path, "0", name)
    with pytest.raises(ExpertError, match="looks like a fold and is none") as refusal:
        folds_there(tmp_path, error=ExpertError)
    assert refusal.value.hint is not None and "rename it" in refusal.value.hint
    (tmp_path / f"fold_{name}" / FILE).unlink()
    assert folds_there(tmp_path) == ["0"]


def test_a_files_name_is_no_pattern(tmp_path: Path) -> None:
    folds(tmp_path, "0")
    assert folds_there(tmp_path, "[**") == folds_there(tmp_path, "*.pth") == folds_there(tmp_path, "?" + FILE[1:]) == []
    folds(tmp_path, "1", file="[**.pth")
    assert folds_there(tmp_path, "[**.pth") == ["1"]
    for outside in ("../fold_0/" + FILE, "a/b", "..", "\0"):
        with pytest.raises(WeightError, match="checkpoint"):
            folds_there(tmp_path, outside)
