"""Experts come as users have them; what cannot be meant is refused with what to type."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from common.command_words import shown_place
from common.errors import AmalgamationError, ConfigError, ExpertError
from common.experts.describe import describe_expert
from common.literals import odd_in
from tests.nnunet_folders import write_folder
from tests.tools.amalgamate.made import write_scans
from tests.tools.test_hostile_names import NAMES
from tools.__main__ import main
from tools.amalgamate.described import Told, read_experts
from tools.experts.profile import read_profile


def test_experts_come_as_folders_and_descriptions(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "r", "Dataset001_a", channel_names=("CT",))
    other = write_folder(tmp_path / "s", "Dataset001_a", channel_names=("CT",), seed=1, reader="NibabelIO")
    spec = describe_expert(other, name="mine", task="ct", orientation="LPS")
    (tmp_path / "expert.json").write_text(json.dumps(spec.to_dict()))
    found = read_experts([folder, folder.parent.parent / "Dataset001_a" / folder.name, tmp_path / "expert.json"][::2])
    assert [(s.name, s.role, s.task) for s in found] == [("Dataset001_a", "external", ""), ("mine", "external", "")]
    assert found[1].orientation == "LPS" and found[0].sha256 and found[0].labels.names == ("liver", "spleen")
    whole, again = read_experts([folder.parent, other], told=Told("LPS"))
    assert [whole.name, again.name] == ["Dataset001_a", "Dataset001_a 2"]
    assert [whole.orientation, again.orientation] == ["RAS", "LPS"]  # the first one's reader turns files itself


def hint_of(words: Sequence[str | Path], told: Told | None = None) -> str:
    with pytest.raises(AmalgamationError) as error:
        read_experts(words, told=told)
    return str(error.value.hint)


def test_a_folder_that_does_not_tell_everything_is_told_how_to_be_described(tmp_path: Path) -> None:
    """The command that a refusal shows is the one that mends it."""
    folder = write_folder(tmp_path / "a folder", "Dataset001_a", reader="NibabelIO")
    scans = write_scans(tmp_path / "raw" / "Dataset001_a" / "imagesTr", 1)
    hint = hint_of([folder])
    assert f"experts describe {shown_place(folder)} Dataset001_a.json --external True" in hint
    assert hint.endswith("--training_files nnUNet_raw/Dataset001_a") and "--orientation LPS" in hint
    line = hint.replace("nnUNet_raw/Dataset001_a", str(scans.parent)).replace(
        " Dataset001_a.json", f" {tmp_path}/a.json"
    )
    assert main(shlex.split(line[line.index("experts describe") :])) == 0
    (spec,) = read_experts([tmp_path / "a.json"])
    assert spec.orientation == "RAS"
    for files in ("raw", "raw/Dataset001_a"):
        (found,) = read_experts([folder], told=Told(training_files=str(tmp_path / files)))
        assert (found.orientation, found.sha256) == (spec.orientation, spec.sha256)
    assert "leave one of them out" in hint_of([folder], Told("RAS", training_files=str(tmp_path / "raw")))
    assert "leave it out" in hint_of([write_folder(tmp_path / "b")], Told("LPS"))
    with pytest.raises(ConfigError, match="these options are of results folders"):
        read_experts([tmp_path / "a.json"], told=Told(folds="all"))


def test_folds_are_one_expert_and_one_of_several_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "one", "Dataset001_a")
    (folder / "fold_0").rename(folder / "fold_3")
    assert read_experts([folder])[0].fold == 3 and not capsys.readouterr().err
    for fold in (0, 1):
        shutil.copytree(folder / "fold_3", folder / f"fold_{fold}")
    assert read_experts([folder])[0].fold == 0
    assert "Dataset001_a: fold 0 answers, of 0, 1, 3; with --folds all" in capsys.readouterr().err
    assert read_experts([folder], told=Told(folds="all"))[0].fold == (0, 1, 3)
    assert read_experts([folder], told=Told(folds="1,3"))[0].fold == (1, 3) and not capsys.readouterr().err
    assert "experts describe" in hint_of([folder], Told(folds="0,7"))


def test_the_program_that_experts_live_in_names_their_structures(tmp_path: Path) -> None:
    program = {"format": 1, "ask": read_profile("totalsegmentator").ask.to_dict(),
               "parts": [{"dataset": 1, "structures": ["lung", "rib"]}]}  # fmt: skip
    (tmp_path / "home.json").write_text(json.dumps(program))
    folders = [write_folder(tmp_path / str(n), f"Dataset00{n}_a", reader="NibabelIO") for n in (1, 2)]
    for number, folder in enumerate(folders, 1):
        plans = json.loads((folder / "plans.json").read_text())
        (folder / "plans.json").write_text(json.dumps({**plans, "dataset_name": f"Dataset00{number}_a"}))
    told = Told(profile=str(tmp_path / "home.json"))
    (spec,) = read_experts(folders[:1], told=told)
    assert spec.labels.names == ("lung", "rib") and spec.profile and spec.orientation == spec.profile["orientation"]
    hint = hint_of(folders, told)
    assert "leave --profile out" in hint and f"experts describe {folders[1]} Dataset002_a.json" in hint


def test_one_that_was_changed_is_described_again_by_the_command_that_is_shown(tmp_path: Path) -> None:
    folder, file = write_folder(tmp_path / "r", reader="NibabelIO"), tmp_path / "an expert.json"
    words = [
        "experts",
        "describe",
        str(folder),
        str(file),
        "--task",
        "ct",
        "--orientation",
        "LPS",
        "--map",
        "liver=Liver",
    ]
    assert main(words) == 0
    before = read_experts([file])
    write_folder(tmp_path / "s", seed=3, reader="NibabelIO")
    shutil.copytree(tmp_path / "s" / folder.parent.name / folder.name, folder, dirs_exist_ok=True)
    hint = hint_of([file])
    assert main(shlex.split(hint[hint.index("experts describe") :])) == 0
    (after,) = read_experts([file])
    assert after.sha256 != before[0].sha256 and replace(after, sha256="") == replace(before[0], sha256="")
    home = read_profile("totalsegmentator").ask.to_dict()
    shutil.copytree(folder / "fold_0", folder / "fold_1")
    for other, option in ((replace(after, profile=home, orientation=home["orientation"]), "--profile totalsegmentator"),
                          (replace(after, fold=(0, 1)), "--folds 0,1")):  # fmt: skip
        file.write_text(json.dumps({**other.to_dict(), "sha256": "0" * 64}))
        assert option in hint_of([file])


def test_what_is_no_expert_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no expert is given"):
        read_experts([])
    with pytest.raises(ExpertError, match="here is no expert"):
        read_experts([tmp_path])
    script = tmp_path / "x.ts"
    script.write_bytes(b"")
    with pytest.raises(ExpertError, match="does not say what it answers"):
        read_experts([script])
    folder = write_folder(tmp_path)
    with pytest.raises(ConfigError, match="given twice"):
        read_experts([folder, folder])
    shutil.copytree(folder, tmp_path / "copy" / "Dataset900_tiny" / folder.name)
    with pytest.raises(ConfigError, match="given twice: these are the same files"):
        read_experts([folder, tmp_path / "copy" / "Dataset900_tiny"])
    spec = describe_expert(folder, name="mine", task="ct")
    (tmp_path / "expert.json").write_text(json.dumps({**spec.to_dict(), "sha256": "0" * 64}))
    with pytest.raises(ExpertError, match="changed since they were recorded"):
        read_experts([tmp_path / "expert.json"])


@pytest.mark.parametrize("name", NAMES)
def test_hostile_structures_of_an_expert_are_refused(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    told = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**told, "labels": {"background": 0, name: 1, "spleen": 2}}))
    with pytest.raises(AmalgamationError, match="cannot be the name of a structure"):
        read_experts([folder])


def test_a_folder_of_any_name_gives_its_expert_one(tmp_path: Path) -> None:
    (spec,) = read_experts([write_folder(tmp_path, "$x #1")])
    assert odd_in(spec.name) is None and Path(spec.path).parent.name == "$x #1"


@pytest.mark.parametrize(("file", "change"), [
    ("plans.json", {"transpose_forward": None}),
    ("dataset.json", {"labels": {"background": 0, "liver": 1, "spleen": 1}}),
    ("dataset.json", {"labels": {"Background": 0, "liver": 1}}), ("dataset.json", {"channel_names": {"x": "CT"}}),
])  # fmt: skip
def test_every_refusal_of_a_folder_names_it_and_says_how_to_describe_it(
    tmp_path: Path, file: str, change: dict[str, object]
) -> None:
    folder = write_folder(tmp_path, channel_names=("CT",))
    place = folder / file
    place.write_text(json.dumps({**json.loads(place.read_text()), **change}))
    with pytest.raises(AmalgamationError, match="or describe this expert by itself") as caught:
        read_experts([folder])
    assert str(folder) in str(caught.value.where)
