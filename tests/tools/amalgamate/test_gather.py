"""Folders of scans become a collection: nothing is copied, a share is held back, and nothing is guessed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.data.datasets.dataset import Dataset
from common.data.datasets.dataset_json import SPLITS, Case
from common.errors import AmalgamationError, ConfigError, DataError
from common.experts.describe import describe_expert
from common.labels import LabelSpace
from tests.nnunet_folders import write_folder
from tests.tools.amalgamate.made import expert, write_scans
from tests.tools.empty_dataset import empty_dataset
from tests.tools.test_hostile_names import FILES, NAMES
from tools.amalgamate.gather import _names, gather, held_back
from tools.amalgamate.given import Folder

CT = expert("a", "liver", "spleen")
MR = expert("b", "liver", "kidney", channels=("MR",))


def test_scans_without_labels_have_the_structures_of_those_who_read_them(tmp_path: Path) -> None:
    scans = [Folder("ct", write_scans(tmp_path / "x")), Folder("mr", write_scans(tmp_path / "y", 3))]
    found = gather(scans, [], [CT, MR], tmp_path / "out")
    assert found.tasks == ("ct", "mr") and [d.channels for d in found.datasets] == [("CT",), ("MR",)]
    assert [d.labels.names for d in found.datasets] == [("liver", "spleen"), ("liver", "kidney")]
    counts = [{s: len(d.cases(s)) for s in SPLITS if d.cases(s)} for d in found.datasets]
    assert counts[0]["unlabelled"] + counts[0]["test"] == 5 and counts[0]["test"] >= 1
    assert counts[1] == {"unlabelled": 2, "test": 1}
    files = {p.resolve() for d in found.datasets for c in d.cases() for p in c.images}
    assert files == {p.resolve() for f in ("x", "y") for p in (tmp_path / f).iterdir()}
    again = (tmp_path / "out" / "ct" / "dataset.json").read_bytes()
    gather(scans, [], [CT, MR], tmp_path / "out")
    assert (tmp_path / "out" / "ct" / "dataset.json").read_bytes() == again


def test_channels_are_files_of_one_case(tmp_path: Path) -> None:
    both = expert("c", "tumour", channels=("T1", "FLAIR"))
    folder = write_scans(tmp_path / "x", 3, endings=("_0000", "_0001"))
    (found,) = gather([Folder("t1+flair", folder)], [], [both], tmp_path / "out").datasets
    assert found.channels == ("t1", "flair") and {len(c.images) for c in found.cases()} == {2}


def test_a_person_is_on_one_side_only(tmp_path: Path) -> None:
    folder = write_scans(tmp_path / "x", 2, stem="sub-01_ses")
    write_scans(folder, 2, stem="sub-02_ses")
    (found,) = gather([Folder("ct", folder)], [], [CT], tmp_path / "out", share=0.5).datasets
    sides = [{c.subject for c in found.cases(s)} for s in ("unlabelled", "test")]
    assert sorted(map(len, sides)) == [1, 1] and not sides[0] & sides[1]


def test_labels_are_named_or_refused(tmp_path: Path) -> None:
    scans = write_scans(tmp_path / "x", 4)
    (tmp_path / "y").mkdir()
    for file in scans.iterdir():
        labels = np.zeros((12, 10, 8), np.uint8)
        labels[:5] = 1
        nib.save(nib.Nifti1Image(labels, np.diag([2.0, 2, 3, 1])), tmp_path / "y" / file.name)
    given = [Folder("ct", scans)], [Folder("ct", tmp_path / "y")], [CT]
    with pytest.raises(DataError, match="nobody says which structure is which value"):
        gather(*given, tmp_path / "out")
    (found,) = gather(*given, tmp_path / "out", structures={"liver": 1}).datasets
    assert all(found.cases(s) and all(c.label for c in found.cases(s)) for s in ("training", "validation", "test"))
    with pytest.raises(ConfigError, match="label maps are given for scans that are not"):
        gather(given[0], [Folder("mr", tmp_path / "y")], [CT], tmp_path / "out")


def test_what_is_ready_is_taken(tmp_path: Path) -> None:
    empty_dataset(tmp_path / "all" / "one", {"liver": 1})
    found = gather([Folder("", tmp_path / "all")], [], [CT], tmp_path / "out")
    assert found.tasks == ("one",) and len(found.datasets[0].cases("test")) == 1
    with pytest.raises(DataError, match="says to be of something else"):
        gather([Folder("mr", tmp_path / "all" / "one")], [], [MR], tmp_path / "out2")
    with pytest.raises(ConfigError, match="names its label maps itself"):
        gather([Folder("ct", tmp_path / "all" / "one")], [Folder("ct", tmp_path)], [CT], tmp_path / "out2")


def test_what_experts_know_beyond_the_labels_is_learned_too(tmp_path: Path) -> None:
    empty_dataset(tmp_path / "one", {"liver": 1})
    found = gather([Folder("ct", tmp_path / "one")], [], [CT, expert("d", "rib", channels=("PET",))], tmp_path / "out")
    assert found.labels.names == ("liver", "spleen") and found.datasets[0].labels.names == ("liver",)


def test_scans_that_nobody_reads_or_names_are_refused(tmp_path: Path) -> None:
    folder = write_scans(tmp_path / "x", 2)
    with pytest.raises(DataError, match="nobody teaches about these scans"):
        gather([Folder("mr", folder)], [], [CT], tmp_path / "out")
    with pytest.raises(DataError, match="nobody says what the scans are"):
        gather([Folder("", folder)], [], [CT], tmp_path / "out")
    with pytest.raises(DataError, match=r"(?s)of which structures these regions consist.*r: whole.*--regions"):
        gather([Folder("ct", folder)], [], [CT, expert("r", "whole", exclusive=False)], tmp_path / "out")
    with pytest.raises(ConfigError, match="between 0 and 1"):
        gather([Folder("ct", folder)], [], [CT], tmp_path / "out", share=1.0)


@pytest.mark.parametrize("name", NAMES)
def test_names_that_a_configuration_would_obey_are_refused(name: str, tmp_path: Path) -> None:
    folder = write_scans(tmp_path / "x", 2)
    with pytest.raises(AmalgamationError, match="cannot be the name of a"):
        gather([Folder(name, folder)], [], [CT], tmp_path / "out")
    assert not (tmp_path / "outside").exists() and not list(tmp_path.rglob("dataset.json"))


def test_scans_may_be_called_as_they_like(tmp_path: Path) -> None:
    folder = write_scans(tmp_path / "x", len(FILES))
    for file, name in zip(sorted(folder.iterdir()), FILES, strict=True):
        file.rename(folder / f"{name}.nii.gz")
    found = gather([Folder("ct", folder)], [], [CT], tmp_path / "out")
    assert {c.id for c in found.datasets[0].cases()} == set(FILES)
    assert all(p.is_file() for c in found.datasets[0].cases() for p in c.images)


def test_dicom_says_itself_what_it_is(tmp_path: Path, dicom_series: Callable[..., Any]) -> None:
    for name in ("a", "b"):
        dicom_series(tmp_path / "series" / name, np.zeros((8, 8, 4), np.int16))
    found = gather([Folder("", tmp_path / "series")], [], [CT], tmp_path / "out")
    assert found.tasks == ("series",) and found.datasets[0].channels == ("CT",)
    assert [len(found.datasets[0].cases(s)) for s in ("unlabelled", "test")] == [1, 1]
    with pytest.raises(DataError, match="DICOM says that the scan is something else"):
        gather([Folder("mr", tmp_path / "series")], [], [MR], tmp_path / "out2")


def _raw(folder: Path, *channels: str) -> Path:
    """A raw folder of nnU-Net with three scans."""
    write_scans(folder / "imagesTr", 3, endings=tuple(f"_{i:04d}" for i in range(len(channels))))
    _labelled(folder / "labelsTr")
    names = {str(i): c for i, c in enumerate(channels)}
    content = {"channel_names": names, "labels": {"background": 0, "liver": 1}, "numTraining": 3}
    (folder / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nii.gz"}))
    return folder


@pytest.mark.parametrize(
    ("name", "said", "kept"),
    [("t2", "MRI", "t2"), ("cbct", "CT", "cbct"), ("mr", "T2 MR", "T2 MR"), ("t2", "image", "t2"),
     ("site A", "image", "image"), ("ct", "CT", "CT")],
)  # fmt: skip
def test_of_two_descriptions_the_more_telling_one_is_kept(name: str, said: str, kept: str, tmp_path: Path) -> None:
    raw = _raw(tmp_path / "raw", said)
    reads = expert("a", "liver", channels=(kept,))
    for number, folder in enumerate((raw, raw / "imagesTr")):
        called = kept if (name, number) == ("ct", 1) or (name, number) == ("site A", 1) else name
        (found,) = gather([Folder(called, folder)], [], [reads], tmp_path / str(number)).datasets
        assert found.channels == (kept,)


@pytest.mark.parametrize("inner", ["", "imagesTr"])
def test_two_descriptions_that_contradict_are_refused(inner: str, tmp_path: Path) -> None:
    portal = _raw(tmp_path / "portal", "CT portal") / inner
    with pytest.raises(DataError, match="says to be of something else"):
        gather([Folder("ct arterial", portal)], [], [expert("a", "liver", channels=("CT portal",))], tmp_path / "out")
    both = _raw(tmp_path / "both", "FLAIR", "T1") / inner
    with pytest.raises(DataError, match="another order") as error:
        gather([Folder("t1+flair", both)], [], [expert("a", "liver", channels=("T1", "FLAIR"))], tmp_path / "out")
    assert "--scans FLAIR+T1=FOLDER" in str(error.value.hint)


def test_two_folders_of_one_kind_are_two_tasks(tmp_path: Path) -> None:
    scans = [Folder("ct", write_scans(tmp_path / n, 2, stem=n)) for n in "xy"]
    assert gather(scans, [], [CT], tmp_path / "out").tasks == ("ct", "ct 2")


def test_a_test_split_stays_and_the_last_scan_is_trained_on() -> None:
    def cases(*names: str) -> tuple[Case, ...]:
        return tuple(Case(n, (Path(n),), None, n) for n in names)

    own = {"training": (), "validation": (), "test": cases("a"), "unlabelled": cases("b", "c")}
    data = Dataset("ct", Path(), ("CT",), LabelSpace(("liver",)), own)
    assert held_back(data, 0.5) is data
    alone = Dataset("ct", Path(), ("CT",), LabelSpace(("liver",)), {**own, "test": (), "unlabelled": cases("b")})
    assert held_back(alone, 0.9).cases("unlabelled") and not held_back(alone, 0.9).cases("test")


def _labelled(folder: Path, count: int = 3, stem: str = "case") -> Path:
    folder.mkdir()
    for number in range(count):
        voxels = np.ones((12, 10, 8), np.uint8)
        nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2, 3, 1])), folder / f"{stem}{number}.nii.gz")
    return folder


def test_two_folders_of_one_name_do_not_share_label_maps(tmp_path: Path) -> None:
    """Their files may be called alike, and a label map is of one scan."""
    first, second = write_scans(tmp_path / "a1"), write_scans(tmp_path / "a2")
    maps = Folder("ct", _labelled(tmp_path / "l"))
    given = [Folder("ct", first), Folder("ct", second)], [maps], [CT]
    with pytest.raises(DataError, match="two scans would share one label map") as refusal:
        gather(*given, tmp_path / "out", structures={"liver": 1})
    told = [f"{first.resolve() / name} and {second.resolve() / name}" for name in (f"case{n}.nii.gz" for n in range(3))]
    assert any(line in str(refusal.value) for line in told)
    assert not (tmp_path / "out" / "collection.json").exists()
    bare = [Folder("", first), Folder("", second)], [Folder("", tmp_path / "l")], [CT]
    with pytest.raises(DataError):
        gather(*bare, tmp_path / "out", structures={"liver": 1})
    write_scans(tmp_path / "b1", stem="other")
    _labelled(tmp_path / "l2", stem="other")
    for file in (tmp_path / "l2").iterdir():
        file.rename(tmp_path / "l" / file.name)
    found = gather([Folder("ct", first), Folder("ct", tmp_path / "b1")], [maps], [CT], tmp_path / "out",
                   structures={"liver": 1})  # fmt: skip
    assert found.tasks == ("ct", "ct 2") and all(len(d.cases()) == 5 for d in found.datasets)
    said = [Folder("t1", first), Folder("t2", second)], [Folder("t1", maps.path), Folder("t2", maps.path)]
    assert gather(*said, [CT], tmp_path / "said", structures={"liver": 1}).tasks == ("t1", "t2")


@pytest.mark.parametrize(
    ("names", "tasks"),
    [(["ct 2", "ct", "ct"], ["ct 2", "ct", "ct 3"]), (["ct", "ct", "ct 2"], ["ct", "ct 3", "ct 2"]),
     (["ct", "ct", "ct"], ["ct", "ct 2", "ct 3"]), (["ct 2", "ct"], ["ct 2", "ct"]),
     (["ct 2", "ct 2", "ct", "ct"], ["ct 2", "ct 2 2", "ct", "ct 3"])],
)  # fmt: skip
def test_no_number_makes_two_names_one(names: list[str], tasks: list[str]) -> None:
    assert _names([Folder(name, Path("x")) for name in names]) == tasks


def test_regions_teach_the_classes_between_them(tmp_path: Path) -> None:
    """Without a label map: what excludes each other is what the student learns."""
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    folder = write_folder(tmp_path / "r", labels=labels, extra={"regions_class_order": [1, 2]}, channel_names=("CT",))
    regions = describe_expert(folder, name="r", role="external", orientation="RAS")
    for number, others in enumerate(([], [CT])):
        found = gather([Folder("ct", write_scans(tmp_path / "x", 3))], [], [regions, *others], tmp_path / f"{number}")
        assert found.labels == LabelSpace(("whole without core", "core", *(n for o in others for n in o.labels.names)))


@pytest.mark.parametrize(("option", "told"), [({"labels": {"liver": "Leber"}}, "Leber"), ({"modality": "T2"}, "T2")])
def test_a_collection_that_renames_is_refused_and_not_read_without(
    option: dict[str, Any], told: str, tmp_path: Path
) -> None:
    empty_dataset(tmp_path / "c" / "ct", {"liver": 1})
    own = json.loads((tmp_path / "c" / "ct" / "dataset.json").read_text())["name"]
    content = {"datasets": ["ct"], "tasks": {own: option}}
    (tmp_path / "c" / "collection.json").write_text(json.dumps(content))
    with pytest.raises((ConfigError, DataError), match=told):
        gather([Folder("", tmp_path / "c")], [], [CT], tmp_path / "out")
    del content["tasks"]
    (tmp_path / "c" / "collection.json").write_text(json.dumps(content))
    assert gather([Folder("", tmp_path / "c")], [], [CT], tmp_path / "out").datasets[0].labels.names[0] == "liver"
