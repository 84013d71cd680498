"""Weights that a training begins with, or asks, were taught on what it learns from, or are refused by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.card import ModelCard
from common.contract import OVERRIDE
from common.data.datasets.datalist import Collection
from common.data.datasets.dataset import Dataset
from common.data.datasets.dataset_json import SPLITS, Case
from common.data.datasets.known_cases import short_hash
from common.data.starts import check_start
from common.errors import DataError
from common.labels import LabelSpace

LABELS = LabelSpace(("liver", "tumor"))


def collection(*channels: str, modality: str = "", dim: int = 3) -> Collection:
    empty: dict[str, tuple[Case, ...]] = dict.fromkeys(SPLITS, ())
    cases = {**empty, "training": (Case("c", (Path("c.nii"),), Path("l.nii"), "c"),)}
    return Collection("all", Path(), (Dataset("task", Path(), channels, LABELS, cases, dim, modality),))


def card(*channels: str, modality: str = "", taught: tuple[str, ...] = ("liver",), **more: Any) -> ModelCard:
    name = modality or " + ".join(channels)
    entry = {"modalities": {name: {"channels": list(channels), "dim": 3}}, "taught": {name: list(taught)}, **more}
    return ModelCard(LABELS, channels, extra={"contract": entry})


@pytest.mark.parametrize(("own", "data", "structures", "problem"), [
    (card("CT"), collection("CT scan"), ["liver"], ""),
    (None, collection("T2 MR"), ["liver"], ""),
    (card("CT"), None, ["tumor"], ""),
    (ModelCard(LABELS, ("image",)), collection("T2 MR"), ["liver"], ""),
    (card("CT"), collection("T2 MR"), [], "not what the model was trained on"),
    (card("image", modality="CT"), collection("image", modality="T2 MR"), [], "not what the model was trained on"),
    (card("CT"), collection("CT", dim=2), [], "learned from volumes"),
    (card("T1", "FLAIR"), collection("FLAIR", "T1"), [], "in another order"),
    (card("CT", taught=("kidney tumor",)), collection("CT"), ["tumor"], "not taught the structure"),
])  # fmt: skip
def test_what_was_taught_on_something_else_is_refused(
    own: ModelCard | None, data: Collection | None, structures: list[str], problem: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    if not problem:
        check_start(own, "w.pt", data, structures=structures)
        assert not caplog.text or "tells nothing" in caplog.text  # "image" is remarked on
        return
    with pytest.raises(DataError, match=problem) as caught:
        check_start(own, "w.pt", data, structures=structures)
    assert "w.pt" in str(caught.value)
    if "volumes" not in problem:  # which no command takes
        assert OVERRIDE in str(caught.value.hint)
        check_start(own, "w.pt", data, structures=structures, ignore_card=True)
    check_start(own, "w.pt", data, modalities=["another"])  # they are asked about no case of these data


def test_names_of_another_data_set_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    both = card("CT", taught=("liver", "tumor"), data=[{"name": "KiTS"}])
    check_start(both, "w.pt", collection("CT"), structures=["liver", "tumor"])
    assert "w.pt: nobody says whether its 'tumor' is that of task" in caplog.text and "liver'" not in caplog.text
    caplog.clear()
    same = collection("CT")
    same = replace(same, datasets=tuple(replace(d, name="KiTS") for d in same.datasets))
    check_start(both, "w.pt", same, structures=["tumor"])
    assert "'tumor' is that of KiTS" in caplog.text  # a name alone is anybody's
    caplog.clear()
    (tmp_path / "c.nii").write_bytes(b"scan")
    known = {"training": {"number": 1, "hashes": [short_hash([tmp_path / "c.nii"])]}}
    case = Case("c", (tmp_path / "c.nii",), Path("l.nii"), "c")
    same = replace(same, datasets=tuple(replace(d, splits={**d.splits, "training": (case,)}) for d in same.datasets))
    whole = card("CT", taught=("liver", "tumor"), data=[{"name": "KiTS", "cases": known}])
    check_start(whole, "w.pt", same, structures=["tumor"])
    assert not caplog.text


def test_a_plain_folder_is_compared_by_its_modality(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_start(card("CT"), "w.pt", tmp_path, modalities=["CT scan"])
    assert not caplog.text
    check_start(card("CT"), "w.pt", tmp_path, modalities=["CTA"])
    assert "CTA is taken for CT" in caplog.text
    with pytest.raises(DataError, match="not what the model was trained on"):
        check_start(card("CT"), "w.pt", tmp_path, modalities=["T1"])


def test_a_structure_of_another_modality_alone_is_told(caplog: pytest.LogCaptureFixture) -> None:
    entry = {"modalities": {"CT": {"channels": ["CT"]}, "T2 MR": {"channels": ["T2 MR"]}},
             "taught": {"CT": ["liver"], "T2 MR": ["liver", "tumor"]}}  # fmt: skip
    both = ModelCard(LABELS, ("CT | T2 MR",), extra={"contract": entry})
    check_start(both, "w.pt", collection("CT"), structures=["liver"])
    assert "never taught" not in caplog.text
    check_start(both, "w.pt", collection("CT"), structures=["tumor"])
    assert "never taught on CT: tumor" in caplog.text


HU = {"lows": [-1024, -1000], "highs": [100, 300]}


def scans(folder: Path, voxels: Any, count: int = 1, channel: str = "CT") -> Collection:
    folder.mkdir(exist_ok=True)
    cases = []
    for i in range(count):
        nib.save(nib.Nifti1Image(np.asarray(voxels, np.float32), np.eye(4)), folder / f"c{i}.nii")
        cases.append(Case(f"c{i}", (folder / f"c{i}.nii",), None, f"c{i}"))
    splits: dict[str, tuple[Case, ...]] = {**dict.fromkeys(SPLITS, ()), "training": tuple(cases)}
    return Collection("all", folder, (Dataset("task", folder, (channel,), LABELS, splits),))


def body() -> Any:
    voxels = np.full((12, 12, 8), -1000.0)
    voxels[3:9, 3:9, 2:6] = 120
    return voxels


def measured(channel: str, low: Any) -> ModelCard:
    own = card(channel)
    own.extra["contract"]["modalities"][channel]["intensities"] = [low]
    return own


def test_intensities_that_weights_did_not_learn_from_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_start(measured("CT", HU), "w.pt", scans(tmp_path / "a", body()))
    assert "intensities" not in caplog.text
    check_start(measured("CT", HU), "w.pt", scans(tmp_path / "b", body() + 1024, count=12))
    assert "for w.pt: task, case c0: intensities" in caplog.text and "offset" in caplog.text
    assert "(6 of 12 scans were compared)" in caplog.text
    caplog.clear()
    pet = measured("SUV", {"lows": [0, 0], "highs": [5, 12]})
    grey = np.random.default_rng(0).uniform(0, 9, (9, 9, 9))
    check_start(pet, "w.pt", scans(tmp_path / "c", grey, channel="SUV"))
    assert "intensities" not in caplog.text
    check_start(pet, "w.pt", scans(tmp_path / "d", grey * 4000, channel="SUV"), ignore_card=True)
    assert "another scale" in caplog.text


def test_intensities_of_a_plain_folder_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scans(tmp_path / "a", body() + 1024)
    check_start(measured("CT", HU), "w.pt", tmp_path / "a", modalities=["CT"])
    assert "for w.pt: a, case c0: intensities" in caplog.text
