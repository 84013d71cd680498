"""Folders come as users have them; what cannot be meant is refused with what to type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import ConfigError
from tests.tools.test_hostile_names import NAMES
from tools.amalgamate.given import Folder, folders


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


@pytest.mark.parametrize("word", ["+={0}", "ct+={0}", "+ct={0}", "t1+ +flair={0}", "={0}", "t1+T1={0}", " ={0}"])
def test_a_channel_without_a_name_of_its_own_is_refused_with_the_word(word: str, tmp_path: Path) -> None:
    given = word.replace("{0}", str(tmp_path))
    with pytest.raises(ConfigError, match=r"--scans: not each channel has a name of its own") as refusal:
        folders([given], "scans")
    assert given.strip() in str(refusal.value)


@pytest.mark.parametrize("path", ["x" * 300, "\0", "a\0b", "\ud800"])
def test_what_no_folder_can_be_called_is_refused(path: str) -> None:
    for word in (f"ct={path}", path):
        with pytest.raises(ConfigError, match=r"--scans: this folder cannot be followed"):
            folders([word], "scans")


def test_a_folders_name_is_taken_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With both ``s`` and ``s `` there, each is read where it is named; a mapping's folder is never a word."""
    for name in ("s", "s ", "ct=s"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    for given in ({"ct": "s "}, {"ct": Path("s ")}, ["ct=s "], "ct=./s "):
        assert folders(given, "scans") == [Folder("ct", Path("s "))], given
    assert folders(["s "], "scans") == [Folder("", Path("s "))]
    assert folders({"ct": "s"}, "scans") == [Folder("ct", Path("s"))], "not the folder called ct=s"
    (tmp_path / "s ").rmdir()
    assert folders(" ct=./s , mr=./s ", "scans") == [Folder("ct", Path("s")), Folder("mr", Path("s"))]
