"""Experts and folders come as users have them; what cannot be meant is refused with what to type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import AmalgamationError, ConfigError, ExpertError
from common.experts.describe import describe_expert
from common.literals import odd_in
from tests.nnunet_folders import write_folder
from tests.tools.test_hostile_names import NAMES
from tools.amalgamate.given import Folder, folders, read_experts


@pytest.mark.parametrize("given", ["ct={0}/a,mr={0}/b", ["ct={0}/a", "mr={0}/b"], {"ct": "{0}/a", "mr": "{0}/b"}])
def test_folders(given: object, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    text = json.loads(json.dumps(given).replace("{0}", str(tmp_path)))
    assert folders(text, "scans") == [Folder("ct", tmp_path / "a"), Folder("mr", tmp_path / "b")]
    assert folders(str(tmp_path), "scans") == [Folder("", tmp_path)]
    (tmp_path / "x=y").mkdir()
    assert folders(f"{tmp_path}/x=y", "scans") == [Folder("", tmp_path / "x=y")]


@pytest.mark.parametrize("given", ["", "ct=nowhere", "nowhere", "ct="])
def test_what_is_no_folder_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"no folder is given|no such folder"):
        folders(given, "scans")


@pytest.mark.parametrize("name", [n for n in NAMES if "/" not in n])
def test_a_name_that_a_configuration_would_obey_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a modality"):
        folders({name: str(tmp_path)}, "scans")


def test_experts_come_as_folders_and_descriptions(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "r", "Dataset001_a", channel_names=("CT",))
    other = write_folder(tmp_path / "s", "Dataset001_a", channel_names=("CT",), seed=1, reader="NibabelIO")
    spec = describe_expert(other, name="mine", task="ct", orientation="LPS")
    (tmp_path / "expert.json").write_text(json.dumps(spec.to_dict()))
    found = read_experts([folder, folder.parent.parent / "Dataset001_a" / folder.name, tmp_path / "expert.json"][::2])
    assert [(s.name, s.role, s.task) for s in found] == [("Dataset001_a", "external", ""), ("mine", "external", "")]
    assert found[1].orientation == "LPS" and found[0].sha256 and found[0].labels.names == ("liver", "spleen")
    (whole, again) = read_experts([folder.parent, other], orientation="RAS")
    assert [whole.name, again.name] == ["Dataset001_a", "Dataset001_a 2"] and whole.orientation == "RAS"


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
