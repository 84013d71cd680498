"""Names of files, of cases and of channels."""

from pathlib import Path

import pytest

from common.data.datasets.dataset_json import base_name, case_id, channel_groups, channel_number, read_case


@pytest.mark.parametrize(
    ("file", "base", "case", "number"),
    [
        ("a/liver_003_0000.nii.gz", "liver_003_0000", "liver_003", 0),
        ("amos_0001.nii.gz", "amos_0001", "amos_0001", 1),
        ("FLARE22_Tr_0001_0000.nii.gz", "FLARE22_Tr_0001_0000", "FLARE22_Tr_0001", 0),
        ("x.y.NRRD", "x.y", "x.y", None),
        ("x_00001.mha", "x_00001", "x_00001", None),
        ("_0000.nii", "_0000", "_0000", None),
        ("series", "series", "series", None),
    ],
)
def test_names_of_files_and_cases(file, base, case, number):
    assert (base_name(file), case_id(Path(file)), channel_number(file)) == (base, case, number)


def groups(*names, count=None):
    return {k: [p.name for p in v] for k, v in channel_groups([Path(n) for n in names], count).items()}


def test_channels_are_those_that_are_numbered_from_0_to_the_last():
    two = ("a_0001.nii", "a_0000.nii")
    assert groups(*two) == groups(*two, count=2) == {"a": ["a_0000.nii", "a_0001.nii"]}
    assert groups(*two, count=1) == groups(*two, count=3) == {}
    assert groups("b_0000.nii") == {} and groups("b_0000.nii", count=1) == {"b": ["b_0000.nii"]}
    assert groups("amos_0001.nii", "amos_0002.nii") == groups("amos_0001.nii", "amos_0002.nii", count=2) == {}
    assert groups("a_0000.nii", "a_0002.nii") == groups("a_0000.nii", "a_0000.mha") == {}
    assert groups(*two, "a.nii") == {}, "a file is called so already"


@pytest.mark.parametrize(
    ("entry", "name"),
    [("x_0000.nii", "x"), ("amos_0001.nii", "amos_0001"), ({"image": "amos_0001.nii", "id": "p"}, "p")],
)
def test_a_cases_id(entry, name, tmp_path):
    case = read_case(entry, tmp_path, ("CT",), "here")
    assert (case.id, case.subject, len(case.images)) == (name, name, 1)


def test_a_numbered_file_may_hold_all_channels(tmp_path):
    assert read_case("amos_0001.nii", tmp_path, ("T1", "T2"), "here").images == (tmp_path / "amos_0001.nii",)
