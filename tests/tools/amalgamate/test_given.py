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
