"""Names of files, of cases and of channels."""

from pathlib import Path

import pytest

from common.data.datasets.dataset_json import (
    base_name,
    case_id,
    channel_groups,
    channel_names,
    channel_number,
    read_case,
)
from common.errors import DataError


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


BRATS = ("T1", "T1ce", "T2", "FLAIR")


@pytest.mark.parametrize(("channels", "files", "taken"), [
    (BRATS, [f"BraTS20_001_{t}.nii.gz" for t in ("flair", "t1", "t1ce", "t2")], False),
    (BRATS, [f"BraTS20_001_{t}.nii.gz" for t in ("t1", "t1ce", "t2", "flair")], True),
    (BRATS, [f"BraTS-GLI-00001-000-{t}.nii.gz" for t in ("t1n", "t1c", "t2w", "t2f")], True),
    (BRATS, [f"BraTS-GLI-00001-000-{t}.nii.gz" for t in ("t1c", "t1n", "t2f", "t2w")], False),
    (("T1", "T2"), ["t2/001.nii.gz", "t1/001.nii.gz"], False), (("T1", "T2"), ["t1/001.nii.gz", "t2/001.nii.gz"], True),
    (("CT", "PET"), ["s/CTres.nii.gz", "s/SUV.nii.gz"], True), (("CT", "PET"), ["a_pet.nii", "a_ct.nii"], False),
    (("CT", "PET"), ["T1_x.nii", "T2_x.nii"], False), (("first", "second"), ["a_t2.nii", "a_t1.nii"], True),
    (("T1", "T2"), ["one.nii", "two.nii"], True), (("T1", "T2"), ["x_t2.nii", "x.nii"], True),
    (("T2", "ADC"), ["p1_t2.nii", "p1_adc.nii"], True), (("T2", "ADC"), ["p1_adc.nii", "p1_t2.nii"], False),
    (("CT arterial", "CT portal"), ["a_pv.nii", "a_art.nii"], False),
    (("DCE pre", "DCE post"), ["b.nii", "a.nii"], True),
    (("CT arterial", "CT portal"), ["a_art.nii", "a_pv.nii"], True),
])  # fmt: skip
def test_names_of_files_that_say_another_order(
    tmp_path: Path, channels: tuple[str, ...], files: list[str], taken: bool
) -> None:
    if taken:
        case = read_case({"image": files, "id": "a"}, tmp_path, channels, "d")
        assert [p.relative_to(tmp_path).as_posix() for p in case.images] == files
        return
    with pytest.raises(DataError, match="not in the order of the channels") as caught:
        read_case({"image": files, "id": "a"}, tmp_path, channels, "d")
    assert '"image": {' in str(caught.value.hint)
    by_name = dict(zip(channels, files, strict=True))  # which is what the hint asks for
    assert len(read_case({"image": by_name, "id": "a"}, tmp_path, channels, "d").images) == len(files)


@pytest.mark.parametrize(("names", "modality"), [
    ({"0": "CT"}, {"0": "MR"}), ({"0": "T1"}, {"0": "T2"}), (["CT"], "PET"), ({"0": "CT arterial"}, ["CT portal"]),
    ({"0": "T1", "1": "FLAIR"}, {"0": "FLAIR", "1": "T1"}), ({"0": "T1", "1": "T2"}, {"0": "T1", "1": "T2", "2": "PD"}),
    ({"0": "T1", "1": "FLAIR"}, "CT"), ({"0": "PET SUV"}, {"0": "PET BQML"}),
])  # fmt: skip
def test_two_descriptions_that_contradict_each_other_are_refused(names, modality):
    with pytest.raises(DataError, match="different things") as error:
        channel_names({"channel_names": names, "modality": modality}, Path("dataset.json"))
    assert "channel_names: " in str(error.value.got) and "; modality: " in str(error.value.got)


@pytest.mark.parametrize(("names", "modality"), [
    ({"0": "CT"}, {"0": "CTA"}), ({"0": "zscore"}, {"0": "T2"}), ({"0": "T1", "1": "FLAIR"}, "MR"),
    ({"0": "R", "1": "G", "2": "B"}, "fundus"), ({"0": "CT"}, None), ({"0": "CT"}, ["CT"]),
])  # fmt: skip
def test_two_descriptions_that_can_both_be_true(names, modality):
    found = channel_names({"channel_names": names, "modality": modality}, Path("dataset.json"))
    assert found == tuple(names.values())
