"""Tasks are united by names that somebody gave; near names and names of anything are told."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from common.data.datasets.datalist import read_collection
from common.data.datasets.dataset import Dataset
from common.data.datasets.dataset_json import SPLITS, Case
from common.data.datasets.merge import merge_datasets
from common.data.datasets.naming import check_names, is_general, is_nameless, name_doubts
from common.data.datasets.verify import check
from common.errors import DataError
from common.labels import LabelSpace


@pytest.mark.parametrize("name", ["structure 1", "Structure_2", "ct structure 7", "label 3", "class1", "Segment_1", "4",
                                  "mask", "foreground", "ROI", "object 2", "roi-3", "my label 2", "(1)",
                                  "Segment_1_1", "unknown", "lbl1", "untitled", "New Segment", "Label A", "gt",
                                  "GT_1", "positive", "ground truth"])  # fmt: skip
def test_names_that_nobody_gave(name: str) -> None:
    assert is_nameless(name)


@pytest.mark.parametrize("name", ["liver", "rib 3", "liver segment 4", "vertebra L1", "T12", "GTV1", "organ of Corti",
                                  "masked region of lung", "subclass A", "new lesion", "unknown primary"])  # fmt: skip
def test_names_that_somebody_gave(name: str) -> None:
    assert not is_nameless(name)


@pytest.mark.parametrize("name", [
    "GTV", "GTVp", "GTV1", "GTV_n2", "CTV high risk", "lymph nodes", "artery", "arteries", "left vein", "benign",
    "malignant tumour", "carcinoma", "necrosis", "necrotic core", "haemorrhage", "calcifications", "polyp", "thrombus",
    "plaque", "lumen", "outer wall", "left ventricle", "infection", "whole tumor", "enhancing tumor", "tumor core",
    "Tumors", "lesion_1", "non-enhancing tumor", "cyst", "metastases",
    "head", "cortex", "LV", "body", "tail", "left lobe", "LV_myo", "RV", "Myo", "Anterior", "Posterior", "upper lobe",
    "lobes", "WT", "PZ", "GM", "ET", "left LA", "apex", "left horn", "valve", "zone 1", "other", "lower pole", "CRBL",
])  # fmt: skip
def test_names_of_anything_in_any_organ(name: str) -> None:
    assert is_general(name) and not is_nameless(name)


@pytest.mark.parametrize("name", [
    "kidney tumor", "portal vein", "renal artery", "liver", "coronary plaque", "left lung", "prostate GTV",
    "bladder wall", "hippocampus", "upper lobe of the lung", "1", "femoral head", "pancreas tail", "renal cortex",
    "eye", "left eye", "LV of the heart", "rib 3", "T12", "left ear", "brain stem", "spinal canal",
])  # fmt: skip
def test_names_of_one_organ(name: str) -> None:
    assert not is_general(name)


def pair(make_dataset: Any, one: str, other: str) -> None:
    make_dataset("ct", labels={"background": 0, one: 1})
    make_dataset("mri", labels={"background": 0, other: 1}, modality={"0": "T2 MR"})


@pytest.mark.parametrize("name", ["structure 1", "Segment_1", "1st label 2", "foreground"])
def test_they_unite_no_tasks(make_dataset: Any, tmp_path: Path, name: str) -> None:
    pair(make_dataset, name, name)
    with pytest.raises(DataError, match="nobody gave") as error:
        check_names(read_collection(tmp_path))
    assert "ct, mri" in str(error.value) and "collection.json" in str(error.value)
    assert [(p.kind, p.severity) for p in check(tmp_path) if p.kind == "names"] == [("names", "error")]
    renamed = {"ct": {"labels": {name: "spleen"}}, "mri": {"labels": {name: "liver"}}}
    (tmp_path / "collection.json").write_text(json.dumps({"datasets": ["ct", "mri"], "tasks": renamed}))
    assert check_names(read_collection(tmp_path)) == []
    assert check_names(read_collection(f"{tmp_path / 'ct'}")) == []


@pytest.mark.parametrize(("one", "other"), [
    ("Liver", "liver"), ("left kidney", "kidney_left"), ("kidneys", "kidney"), ("LeftKidney", "left kidney"),
    ("tumour", "tumor"), ("L kidney", "left-kidney"),
])  # fmt: skip
def test_near_names_are_told(make_dataset: Any, tmp_path: Path, one: str, other: str) -> None:
    pair(make_dataset, one, other)
    (said,) = check_names(read_collection(tmp_path))
    assert repr(one) in said and repr(other) in said and "ct, mri" in said
    assert [p.severity for p in check(tmp_path) if p.kind == "names"] == ["warning"]


def test_modalities_that_nobody_names(make_dataset: Any, tmp_path: Path) -> None:
    for name in ("ct", "mri"):
        make_dataset(name, modality={"0": "image"})
    (said,) = check_names(read_collection(tmp_path))
    assert "'image' tells no modality" in said and "ct, mri" in said
    own = {"ct": {"modality": "CT"}, "mri": {"modality": "T2 MR"}}
    (tmp_path / "collection.json").write_text(json.dumps({"datasets": ["ct", "mri"], "tasks": own}))
    assert check_names(read_collection(tmp_path)) == []


def test_other_names_are_not(make_dataset: Any, tmp_path: Path) -> None:
    pair(make_dataset, "left kidney", "right kidney")
    assert name_doubts(read_collection(tmp_path).datasets) == []
    pair(make_dataset, "liver", "liver")
    assert name_doubts(read_collection(tmp_path).datasets) == []
    pair(make_dataset, "tumour", "tumour")
    assert [d.severity for d in name_doubts(read_collection(tmp_path).datasets)] == ["warning"]


def test_channels_in_another_order_unite_no_tasks(make_dataset: Any, tmp_path: Path) -> None:
    files = {"image": ["images/c0_0000.nii.gz", "images/c0_0001.nii.gz"], "label": "labels/c0.nii.gz", "id": "a"}
    cases = {"training": [files], "validation": [{**files, "id": "b"}]}
    for name in ("one", "two"):
        images = make_dataset(name) / "images"
        shutil.copy(images / "c1_0000.nii.gz", images / "c0_0001.nii.gz")
    make_dataset("one", modality={"0": "CT arterial", "1": "CT portal"}, **cases)
    make_dataset("two", modality={"0": "portal CT", "1": "arterial CT"}, **cases)
    with pytest.raises(DataError, match="different orders") as error:
        check_names(read_collection(tmp_path))
    assert "one, two" in str(error.value) and "CT arterial, CT portal" in str(error.value)
    assert "error" in {p.severity for p in check(tmp_path) if p.kind == "names"}
    make_dataset("two", modality={"0": "CT arterial", "1": "CT portal"}, **cases)
    assert check_names(read_collection(tmp_path)) == []


@pytest.mark.parametrize(("one", "other", "told"), [
    ("T1", "T2", True), ("T1", "T1w", False), ("T2 MR", "T2", False), ("CT", "CT", False), ("T1", "T1 MPRAGE", True),
])  # fmt: skip
def test_one_modality_of_other_channels_is_told(
    make_dataset: Any, tmp_path: Path, one: str, other: str, told: bool
) -> None:
    for name, channel, structure in (("a", one, "liver"), ("b", other, "spleen")):
        make_dataset(name, modality={"0": channel}, labels={"background": 0, structure: 1})
    tasks = {name: {"modality": "CT" if one == "CT" else "MR"} for name in ("a", "b")}
    (tmp_path / "collection.json").write_text(json.dumps({"datasets": ["a", "b"], "tasks": tasks}))
    said = check_names(read_collection(tmp_path))
    assert [f"'MR' is {one} in one task, {other} in the other" in s for s in said] == [True] * told


@pytest.mark.parametrize(("channels", "modality", "refused"), [
    ("T2 MR", "CT", True), ("CT", "PET", True), ("CT", "CTA", False), ("T2 MR", "MR", False), ("image", "CT", False),
    ("RGB", "US", False), ("CT", "scanner A", False), ("T2", "T1 MR", True), ("CT portal", "CT arterial", True),
    ("PSMA PET", "FDG PET", True), ("CT", "CT portal", False), ("MR", "T2 MR", False),
])  # fmt: skip
def test_a_modality_that_the_channels_are_not(
    make_dataset: Any, tmp_path: Path, channels: str, modality: str, refused: bool
) -> None:
    make_dataset("d", modality={"0": channels})
    (tmp_path / "collection.json").write_text(json.dumps({"datasets": ["d"], "tasks": {"d": {"modality": modality}}}))
    if not refused:
        assert check_names(read_collection(tmp_path)) == []
        return
    with pytest.raises(DataError, match="none of what the channels are") as error:
        check_names(read_collection(tmp_path))
    assert channels in str(error.value.hint) and modality in str(error.value.got)


@pytest.mark.parametrize(("one", "two", "refused"), [
    (("CT", "PET"), ("PET", "MR"), True), (("T1", "T2"), ("FLAIR", "T1"), True), (("DWI", "ADC"), ("ADC", "T2"), True),
    (("T1", "T2"), ("T1", "FLAIR"), False), (("CT arterial", "CT portal"), ("CT portal", "CT delayed"), True),
    (("CT", "PET"), ("first", "PET"), False), (("T1", "T2"), ("DWI", "ADC"), False),
    (("T1", "CT1", "T2"), ("T1", "T1c", "T2"), False), (("T1", "CT1"), ("T2", "T1ce"), False),
    (("T1", "CT1"), ("T1c", "T2"), True), (("R", "G", "B"), ("green", "red", "x"), True),
])  # fmt: skip
def test_a_channel_that_moved(one: tuple[str, ...], two: tuple[str, ...], refused: bool) -> None:
    empty: dict[str, tuple[Case, ...]] = dict.fromkeys(SPLITS, ())
    tasks = [Dataset(n, Path(), c, LabelSpace(("liver",)), empty) for n, c in (("one", one), ("two", two))]
    found = [d for d in name_doubts(tasks) if d.severity == "error"]
    assert [(d.tasks, d.problem) for d in found] == (
        [(("one", "two"), "the channels lie in different orders")] * refused
    )
    assert all("in all tasks" in d.hint or "in one order" in d.hint for d in found)


@pytest.mark.parametrize("name", ["LV", "left lobe", "tail", "anterior"])
def test_parts_of_organs_and_abbreviations_are_not_united_without_a_word(
    make_dataset: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    make_dataset("heart", labels={"background": 0, name: 1}, cases=2)
    make_dataset("brain", labels={"background": 0, name: 1}, cases=2)
    (said,) = check_names(read_collection(tmp_path))
    assert f"heart, brain: {name!r} is taken for one structure" in said.replace("brain, heart", "heart, brain")
    assert check_names(read_collection(tmp_path / "heart")) == []
    merge_datasets([tmp_path / "heart", tmp_path / "brain"], tmp_path / "both", name="both")
    assert f"{name!r} is taken for one structure" in caplog.text


def test_merging_refuses_names_that_nobody_gave(make_dataset: Any, tmp_path: Path) -> None:
    pair = [make_dataset(n, labels={"background": 0, "label 1": 1}, cases=2) for n in ("one", "two")]
    with pytest.raises(DataError, match="nobody gave") as error:
        merge_datasets(pair, tmp_path / "both", name="both")
    assert "ignore_card" not in str(error.value.hint) and not (tmp_path / "both").exists()
