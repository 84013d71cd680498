"""Scans and label maps that belong together, whatever their files are numbered with."""

import numpy as np
import pytest

from common.data.datasets.pairs import label_maps, paired
from common.errors import DataError


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def pairs(images, labels=None, channels=("CT",)):
    maps = {} if labels is None else label_maps(labels)
    return {c.id: ([p.name for p in c.images], c.label and c.label.name) for c in paired(images, maps, channels)}


@pytest.fixture
def places(tmp_path):
    return tmp_path / "images", tmp_path / "labels"


def test_cases_that_are_numbered_like_channels(places):
    names = ("amos_0000.nii.gz", "amos_0001.nii.gz", "amos_0600.nii.gz")
    for place in places:
        touch(place, *names)
    assert pairs(*places) == {n[:9]: ([n], n) for n in names}


def test_an_nnunet_folder_of_such_cases(places):
    touch(places[0], "amos_0001_0000.nii.gz", "amos_0002_0000.nii.gz", "liver_003_0000.nii.gz")
    touch(places[1], "amos_0001.nii.gz", "amos_0002_seg.nii.gz", "liver_003_0000.nii.gz")
    assert pairs(*places) == {
        "amos_0001": (["amos_0001_0000.nii.gz"], "amos_0001.nii.gz"),
        "amos_0002": (["amos_0002_0000.nii.gz"], "amos_0002_seg.nii.gz"),
        "liver_003": (["liver_003_0000.nii.gz"], "liver_003_0000.nii.gz"),
    }


def test_several_channels(places):
    touch(places[0], "a_0000.nii", "a_0001.nii", "amos_0007.nii", "b.nii")
    touch(places[1], "a.nii", "amos_0007.nii")
    assert pairs(*places, channels=("T1", "T2")) == {
        "a": (["a_0000.nii", "a_0001.nii"], "a.nii"),
        "amos_0007": (["amos_0007.nii"], "amos_0007.nii"),
        "b": (["b.nii"], None),
    }


@pytest.mark.parametrize("names", [("a_0000.nii",), ("a_0001.nii",), ("a_0000.nii", "a_0001.nii", "a_0002.nii")])
def test_channels_that_are_missing_or_too_many(places, names):
    with pytest.raises(DataError, match="one file per channel") as caught:
        pairs(touch(places[0], *names), channels=("T1", "T2"))
    assert "case a" in str(caught.value.where) and "a_0001 (T2)" in str(caught.value.expected)


def test_two_files_of_one_name(places):
    with pytest.raises(DataError, match="two scans have one name"):
        pairs(touch(places[0], "a.mha", "a.nii"))


def test_folders_without_dicom_are_no_scans(places, dicom_series, caplog):
    images, labels = places
    touch(images, "a.nii.gz", "datastore_v2.json", ".b.nii.gz")
    touch(images / "labels" / "final", "a.nii.gz")
    dicom_series(images / "c", np.zeros((4, 4, 3)))
    touch(images / "disc", "DICOMDIR")
    assert pairs(images) == {"a": (["a.nii.gz"], None), "c": (["c"], None)}
    assert "left out: disc, labels" in caplog.text
    with pytest.raises(DataError, match="no volumes") as caught:
        label_maps(images / "labels")
    assert "final" in str(caught.value.got)
    with pytest.raises(DataError, match="no such folder of label maps"):
        label_maps(labels)


def test_label_maps_that_match_no_scan_are_named(places, caplog):
    touch(places[0], "a.nii", "b.nii")
    pairs(places[0], touch(places[1], "a.nii"))
    assert not caplog.text
    touch(places[1], "C.nii")
    assert pairs(*places)["b"] == (["b.nii"], None)
    assert "match no scan: C.nii" in caplog.text


def test_several_label_maps_of_one_scan_are_named(places):
    touch(places[0], "case7.nii.gz", "case8.nii.gz")
    touch(places[1], "case7.nii.gz", "case7_mask.nii.gz", "case7_seg.nii.gz", "case8.nii.gz")
    with pytest.raises(DataError, match="several label maps") as caught:
        pairs(*places)
    assert caught.value.got == "case7: case7.nii.gz, case7_mask.nii.gz, case7_seg.nii.gz"


@pytest.mark.parametrize("names", [("Case7", "case7"), ("caf\u00e9", "cafe\u0301"), ("a.", "a")])
def test_names_that_a_disk_takes_for_one_are_not_guessed(places, names):
    one, other = (f"{n}.nii.gz" for n in names)
    touch(places[0], "b.nii.gz", one)
    touch(places[1], "b.nii.gz", other)
    with pytest.raises(DataError, match="label map's name differs") as caught:
        pairs(*places)
    assert ascii(names[0]) in caught.value.got and ascii(names[1]) in caught.value.got
    touch(places[0], other)
    with pytest.raises(DataError, match="names of scans differ"):
        pairs(*places)


CHANNELS = ("a_0000.nii", "a_0001.nii", "b_0000.nii", "b_0001.nii")


def test_channels_of_several_cases_are_no_cases_of_one_channel(places):
    with pytest.raises(DataError, match="numbered as the channels of a case") as caught:
        pairs(touch(places[0], *CHANNELS, "c_0000.nii"))
    assert caught.value.where == places[0] and "a_0000.nii, a_0001.nii; as many of 2 cases" in str(caught.value.got)
    (places[0] / "c_0000.nii").unlink()
    assert list(pairs(places[0], channels=("T1", "T2"))) == ["a", "b"]


def test_numbered_cases_with_a_label_map_each_stay_cases(places, caplog):
    for place in places:
        touch(place, *CHANNELS)
    assert list(pairs(*places)) == [n[:6] for n in CHANNELS] and not caplog.text


def test_what_may_be_channels_of_a_single_case_is_said(places, caplog):
    assert list(pairs(touch(places[0], "a_0000.nii", "a_0001.nii", "b.nii"))) == ["a_0000", "a_0001", "b"]
    assert "a_0000.nii, a_0001.nii are taken for cases of their own" in caplog.text
