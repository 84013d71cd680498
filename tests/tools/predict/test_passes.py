"""An expert that stays beside a student decides about its structures, and the record says what ran."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from common.errors import ConfigError, DataError, ExpertError
from common.experts.answers.beside import Kept, kept_file, write_kept
from tests.architecture.tree import ROOT
from tests.common.experts.answers.easy import VALUES, expert
from tests.nnunet_students import STRUCTURES, two_modalities, write_student
from tools.predict.command import segment

BUNDLE, CT = ROOT / "bundles" / "ka2er", {"modality": "CT", "quiet": True}
BLIND = STRUCTURES.index("aorta") + 1
AFFINE = np.diag([-1.0, 1.0, 1.0, 1.0])  # stored as LAS


class Given(NamedTuple):
    folder: Path
    scan: Path
    model: Path
    alone: NDArray[Any]
    labels: NDArray[Any]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """A scan whose structures have intensities of their own, and a student that guesses, taught no aorta on CT."""
    folder = tmp_path_factory.mktemp("kept")
    labels = np.zeros((24, 20, 18), np.uint8)
    labels[3:12, 4:12, 3:9], labels[14:22, 4:12, 8:16], labels[8:14, 13:18, 5:12] = 1, 2, 3
    image = np.array([0.0, *VALUES.values()])[labels] + np.random.default_rng(0).normal(0, 4, labels.shape)
    nib.save(nib.Nifti1Image(image.astype(np.float32), AFFINE), folder / "scan.nii.gz")
    volume = MetaTensor(torch.from_numpy(image[None].astype(np.float32)), affine=torch.from_numpy(AFFINE))
    model = write_student(folder / "model.pt", two_modalities(), volume)
    return Given(folder, folder / "scan.nii.gz", model, predicted(model, folder / "scan.nii.gz", folder / "a"), labels)


def predicted(model: Path, scan: Path, out: Path, **more: Any) -> NDArray[Any]:
    file = segment(str(BUNDLE), scan, out, weights=model, overrides={**CT, **more})["scan"]
    return np.asarray(nib.nifti1.load(file).dataobj)


def record(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "scan.nii.gz.record.json").read_text())
    return found


@pytest.fixture
def kept(given: Given, tmp_path: Path) -> Any:
    """Experts by their structures, what they decide, and further fields of their description."""

    def write(*told: tuple[tuple[str, ...], tuple[str, ...]], **more: Any) -> list[Kept]:
        found = [Kept(expert(tmp_path, f"e{i}", *knows, **more), decides) for i, (knows, decides) in enumerate(told)]
        write_kept(given.model, found)
        return found

    yield write
    write_kept(given.model, [])


def test_a_blind_student_gets_what_the_expert_knows_and_nothing_else_changes(
    given: Given, kept: Any, tmp_path: Path
) -> None:
    assert {1, 2} <= set(np.unique(given.alone)) and BLIND not in given.alone, "it says all but the aorta"
    assert not (given.folder / "a" / "scan.nii.gz.record.json").exists(), "nothing stays, nothing is to be said"
    (own,) = kept((("spleen", "aorta"), ("aorta",)))
    found = predicted(given.model, given.scan, tmp_path / "out")
    aorta = given.labels == BLIND
    np.testing.assert_array_equal(found == BLIND, aorta)
    np.testing.assert_array_equal(found[~aorta], given.alone[~aorta])  # the spleen is the student's, right or wrong
    told = record(tmp_path / "out")
    assert told["passes"] == ["student", "e0"] and told["keep"] is True and "ignore_card" not in told
    assert told["kept"] == [{"expert": "e0", "sha256": own.spec.sha256, "decides": ["aorta"]}]
    alone = predicted(given.model, given.scan, tmp_path / "alone", keep=False)
    np.testing.assert_array_equal(alone, given.alone)
    assert record(tmp_path / "alone")["passes"] == ["student"] and record(tmp_path / "alone")["keep"] is False


def test_what_the_expert_does_not_confirm_is_the_students_next_best(given: Given, kept: Any, tmp_path: Path) -> None:
    kept((("liver",), ("liver",)))
    found = predicted(given.model, given.scan, tmp_path / "out")
    liver, was = given.labels == 1, given.alone == 1
    np.testing.assert_array_equal(found == 1, liver)
    taken = was & ~liver
    assert taken.any() and set(np.unique(found[taken])) == {0, 2}, "not all of it becomes background"
    np.testing.assert_array_equal(found[~liver & ~was], given.alone[~liver & ~was])
    asked = predicted(given.model, given.scan, tmp_path / "two", targets=["spleen"])
    assert set(np.unique(asked)) == {0, 2} and record(tmp_path / "two")["passes"] == ["student"]


def test_scans_that_the_expert_does_not_read_are_the_students(given: Given, kept: Any, tmp_path: Path) -> None:
    kept((("aorta",), ("aorta",)), channels=("MR",))
    np.testing.assert_array_equal(predicted(given.model, given.scan, tmp_path / "out"), given.alone)
    assert record(tmp_path / "out")["passes"] == ["student"]
    with pytest.raises(DataError, match="nobody says what the scan is") as error:
        predicted(given.model, given.scan, tmp_path / "none", modality=None)
    assert "--modality" in str(error.value) and "--keep False" in str(error.value)
    assert not list((tmp_path / "none").glob("*"))


@pytest.mark.parametrize("change", ["missing", "changed"])
def test_an_expert_that_is_not_there_any_more_is_refused(given: Given, kept: Any, tmp_path: Path, change: str) -> None:
    (own,) = kept((("aorta",), ("aorta",)))
    file = Path(own.spec.path)
    file.unlink() if change == "missing" else file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(ExpertError, match="an expert that stays beside the student cannot be asked") as error:
        predicted(given.model, given.scan, tmp_path / "out")
    assert str(file) in str(error.value) and "--keep False" in str(error.value)
    np.testing.assert_array_equal(predicted(given.model, given.scan, tmp_path / "alone", keep=False), given.alone)


def test_another_students_experts_are_refused(given: Given, kept: Any, tmp_path: Path) -> None:
    kept((("aorta",), ("aorta",)))
    file = kept_file(given.model)
    file.write_text(json.dumps({**json.loads(file.read_text()), "model": "0" * 64}))
    with pytest.raises(ConfigError, match="belong to another student"):
        predicted(given.model, given.scan, tmp_path / "out")
