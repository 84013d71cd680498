"""Scans that are not as bright as they should be, channels that tell nothing, and DICOM that says something else."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.data.datasets.convert import convert_pairs
from common.data.datasets.convert_channels import dicom_differs, told_channels
from common.data.datasets.dataset import Dataset
from common.data.datasets.dataset_json import Case
from common.data.datasets.verify import check
from common.data.datasets.verify_contents import other_dicom
from common.errors import DataError
from common.labels import LabelSpace

RNG = np.random.default_rng(0)


def volume(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random((12, 12, 12)) < 0.5, -1000, rng.normal(40, 60, (12, 12, 12))).astype(np.float32)


def dataset(folder: Path, scans: dict[str, np.ndarray], channel: str = "CT") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for name, voxels in scans.items():
        for part, array in (("image", voxels), ("label", np.ones(voxels.shape, np.uint8))):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{name}_{part}.nii.gz")
        entries.append({"id": name, "image": f"{name}_image.nii.gz", "label": f"{name}_label.nii.gz"})
    content = {"name": "d", "modality": [channel], "labels": {"background": 0, "liver": 1}, "training": entries}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(("change", "words"), [
    (lambda v: v + 1024, "offset"), (lambda v: v + 500, "offset"), (lambda v: (v + 1000) / 1400, "rescaled"),
    (lambda v: v - 1024, "twice"), (lambda v: np.clip((v + 1000) / 5, 0, 255), "picture"),
])  # fmt: skip
@pytest.mark.parametrize("channel", ["CT", "CTA"])
def test_one_scan_that_is_no_hu(tmp_path: Path, change: Any, words: str, channel: str) -> None:
    scans = {f"c{i}": volume(i) for i in range(5)}
    folder = dataset(tmp_path, {**scans, "odd": change(volume(9)).astype(np.float32)}, channel)
    (found,) = check(folder)
    assert (found.case, found.kind, found.severity) == ("d/odd", "intensity", "warning")
    assert words in found.got and found.file.endswith("odd_image.nii.gz") and found.hint


def test_a_whole_data_set_that_is_no_hu_is_one_line(tmp_path: Path) -> None:
    (found,) = check(dataset(tmp_path, {f"c{i}": volume(i) + 1024 for i in range(7)}))
    assert found.case == "d" and "7 scans (c" in found.got and "1024" in found.got
    assert check(dataset(tmp_path / "alike", {f"c{i}": volume(i) for i in range(7)})) == []


def test_one_mr_scan_of_another_scale(tmp_path: Path) -> None:
    scans = {f"c{i}": np.maximum(volume(i) + 400, 0) for i in range(5)}
    (found,) = check(dataset(tmp_path, {**scans, "odd": scans["c0"] / 900}, "T2 MR"))
    assert found.case == "d/odd" and "scale" in found.got
    assert check(dataset(tmp_path / "few", {"a": scans["c0"], "b": scans["c1"] / 900}, "T2 MR")) == []


def test_a_channel_that_tells_nothing(tmp_path: Path) -> None:
    folder = dataset(tmp_path, {"a": volume(0)}, "image")
    (found,) = check(folder)
    assert (found.kind, found.severity) == ("channels", "warning") and "channel image" in found.got
    (tmp_path / "collection.json").write_text(json.dumps({"datasets": ["."], "tasks": {"d": {"modality": "CT"}}}))
    assert check(tmp_path / "collection.json") == []


def labelled(tmp_path: Path, dicom_series: Any, tag: str, name: str = "a", **tags: Any) -> None:
    def said(_: int, data: Any) -> None:
        data.Modality = tag
        for key, value in tags.items():
            setattr(data, key, value)

    (tmp_path / "maps").mkdir(exist_ok=True)
    dicom_series(tmp_path / "scans" / name, RNG.integers(-900, 90, (6, 7, 8)), change=said)
    affine = np.diag([-1.5, -1.25, 3, 1])
    nib.save(nib.Nifti1Image(np.full((6, 7, 8), 1, np.uint8), affine), tmp_path / "maps" / f"{name}.nii.gz")


def converted(tmp_path: Path, **options: Any) -> Any:
    return convert_pairs(tmp_path / "scans", tmp_path / "maps", tmp_path / "new", name="new", **options)


def test_dicom_says_what_scans_are(dicom_series: Any, tmp_path: Path) -> None:
    labelled(tmp_path, dicom_series, "MR")
    data = converted(tmp_path)
    assert data.channels == ("MR",) and data.labels.names == ("new structure 1",)
    assert converted(tmp_path, channels=["T2 MR"]).channels == ("T2 MR",)
    with pytest.raises(DataError, match="something else") as error:
        converted(tmp_path, channels=["CT"])
    assert "MR" in str(error.value) and "--channels MR" in str(error.value)
    content = json.loads((tmp_path / "new" / "dataset.json").read_text())
    (tmp_path / "new" / "dataset.json").write_text(json.dumps({**content, "modality": {"0": "CT"}}))
    assert [(p.kind, p.severity) for p in check(tmp_path / "new") if "DICOM says MR" in p.got] == [
        ("channels", "error")
    ]
    labelled(tmp_path, dicom_series, "CT", "b")
    with pytest.raises(DataError, match="nobody says") as error:
        converted(tmp_path)
    assert "CT, MR" in str(error.value)


@pytest.mark.parametrize(("names", "words"), [
    (("a.nii.gz",), "--channels CT"), (("a_0000.nii.gz", "a_0001.nii.gz"), "T1,FLAIR"), (("a.png",), "red,green,blue"),
])  # fmt: skip
def test_other_scans_do_not_say_it(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    from PIL import Image

    for folder in ("scans", "maps"):
        (tmp_path / folder).mkdir()
        for name in names if folder == "scans" else [names[-1]]:
            if name.endswith(".png"):
                Image.new("L", (8, 8)).save(tmp_path / folder / name)
            else:
                nib.save(nib.Nifti1Image(np.ones((8, 8, 8), np.uint8), np.eye(4)), tmp_path / folder / name)
    with pytest.raises(DataError, match="nobody says") as error:
        converted(tmp_path)
    assert words in str(error.value) and not (tmp_path / "new").exists()


def test_what_dicoms_tag_can_contradict() -> None:
    assert dicom_differs("MR", ["CT"]) and not dicom_differs("MR", ["image"]) and not dicom_differs("OT", ["CT"])
    assert not dicom_differs("MR", ["T1", "T2"]) and not dicom_differs("CT", ["NCCT"])


def test_dicom_says_what_each_channel_of_a_new_data_set_is(dicom_series: Any, tmp_path: Path) -> None:
    dicom_series(tmp_path / "a", np.zeros((2, 7, 8), np.int16))
    case = Case("p", (tmp_path / "a", tmp_path / "pet.nii.gz"), None, "p")
    assert told_channels(("CT", "PET"), [case], tmp_path) == ("CT", "PET")
    with pytest.raises(DataError, match="case p") as caught:
        told_channels(("PET", "CT"), [case], tmp_path)
    assert caught.value.got == "CT,CT" and "--channels CT,CT" in str(caught.value.hint)


def setattr_of(name: str, value: str, _: int, data: Any) -> None:
    setattr(data, name, value)


def test_ct1_beside_a_weighting_is_mr_for_dicom_too(dicom_series: Any, tmp_path: Path) -> None:
    for name, modality in (("a", "MR"), ("b", "MR"), ("c", "CT")):
        change = partial(setattr_of, "Modality", modality)
        dicom_series(tmp_path / name, np.zeros((2, 7, 8), np.int16), change=change)
    case = Case("p", (tmp_path / "a", tmp_path / "b"), None, "p")
    given = ("T1", "CT1")
    assert told_channels(given, [case], tmp_path) == given
    data = Dataset("d", tmp_path, given, LabelSpace(("liver",)), {})
    assert other_dicom(data, case) is None
    found = other_dicom(data, Case("p", (tmp_path / "a", tmp_path / "c"), None, "p"))
    assert found is not None and found.expected == "CT1" and "DICOM says CT" in found.got


CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.parametrize(("tag", "tags"), [
    ("OT", {}), ("SC", {}), ("DOC", {}), ("SR", {}), ("PR", {}), ("REG", {}), ("RTPLAN", {}), ("UNKNOWN", {}),
    ("CT", {"SOPClassUID": CAPTURE}), ("CT", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67"}),
])  # fmt: skip
def test_what_is_no_modality_becomes_no_ct_beside_one(
    dicom_series: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, tag: str, tags: dict[str, Any]
) -> None:
    labelled(tmp_path, dicom_series, tag, "b", **tags)
    with pytest.raises(DataError, match="none of these is a scan") as error:
        converted(tmp_path)
    assert "b: " in str(error.value) and not (tmp_path / "new").exists()
    labelled(tmp_path, dicom_series, "CT", "a")
    data = converted(tmp_path)
    assert data.channels == ("CT",) and [c.id for c in data.cases()] == ["a"] and "left out b: " in caplog.text


def test_what_a_user_says_of_a_scan_that_dicom_calls_nothing(
    dicom_series: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labelled(tmp_path, dicom_series, "OT")
    labelled(tmp_path, dicom_series, "DOC", "b")
    data = converted(tmp_path, channels=["CT"])
    assert data.channels == ("CT",) and [c.id for c in data.cases()] == ["a"]
    assert "DICOM says OT, which is no modality" in caplog.text and "left out b: a document (DOC)" in caplog.text
    assert any("DICOM says OT" in p.got and p.severity == "warning" for p in check(tmp_path / "new"))


def test_which_contrast_of_mr_it_is_nobody_said(
    dicom_series: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labelled(tmp_path, dicom_series, "MR", SeriesDescription="t2_tse_tra")
    labelled(tmp_path, dicom_series, "MR", "b", SeriesDescription="t1_vibe")
    assert converted(tmp_path).channels == ("MR",)
    assert "which MR contrast it is nobody said; SeriesDescription 't2_tse_tra', 't1_vibe'" in caplog.text
    caplog.clear()
    assert converted(tmp_path, channels=["T2 MR"]).channels == ("T2 MR",) and "contrast" not in caplog.text


@pytest.mark.parametrize(("tags", "channel", "other"), [
    ({"Units": "BQML"}, "PT BQML", "SUV"), ({"Units": "CNTS"}, "PT counts", "PET SUV"),
    ({"Units": "GML"}, "PT SUV", "PET BQML"), ({"Units": "GML", "SUVType": "LBM"}, "PT SUL", "SUV"),
])  # fmt: skip
def test_the_unit_of_a_pet_is_kept_and_compared(
    dicom_series: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, tags: dict[str, str], channel: str, other: str
) -> None:
    labelled(tmp_path, dicom_series, "PT", **tags)
    assert converted(tmp_path).channels == (channel,)
    with pytest.raises(DataError, match="something else") as error:
        converted(tmp_path, channels=[other])
    assert f"--channels '{channel}'" in str(error.value.hint).replace('"', "'")
    caplog.clear()
    assert converted(tmp_path, channels=["PET"]).channels == ("PET",)
    assert f"are {' '.join(tags.values())} (Units)" in caplog.text
    labelled(tmp_path, dicom_series, "PT", "b", Units="CM2")
    with pytest.raises(DataError, match="nobody says"):
        converted(tmp_path)


def test_a_ct_that_is_not_in_hu_is_told(dicom_series: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labelled(tmp_path, dicom_series, "CT", RescaleType="US")
    assert converted(tmp_path).channels == ("CT",) and "are US (RescaleType), and not HU" in caplog.text
    assert any("not HU" in p.got and p.severity == "warning" for p in check(tmp_path / "new"))
    shutil.rmtree(tmp_path / "scans")
    labelled(tmp_path, dicom_series, "CT", RescaleType="Z_EFF")
    assert converted(tmp_path).channels == ("CT Zeff",)
    with pytest.raises(DataError, match="something else"):
        converted(tmp_path, channels=["CT"])
