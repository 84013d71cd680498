"""Folders of scans as a user gives them, with the name of what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import ConfigError
from common.literals import check_name
from common.paths import check_path, is_there

from ..command_line import name_pairs

__all__ = ["Folder", "Given", "folders"]

Given = str | Sequence[str] | Mapping[str, str | Path]
"""``ct=FOLDER``, several with commas between them or as a list, or a mapping."""


class Folder(NamedTuple):
    """A folder and what its scans are.

    Args:
        name: of the modality, or of the channels with ``+`` between them; empty where the files say it.
        path: of the folder.
    """

    name: str
    path: Path


def folders(value: Given, option: str) -> list[Folder]:
    """The folders of an option.

    Args:
        value: what was typed, or a mapping.
        option: its name, for messages.

    Raises:
        ConfigError: for none, a name that is none, a channel without one, or a folder that is not there.
    """
    if isinstance(value, Mapping):
        found = [_named(str(name), str(path), f"{name}={path}", option) for name, path in value.items()]
    else:
        found = [_folder(word, option) for word in name_pairs(value) if word.strip()]
    if not found:
        raise ConfigError("no folder is given", where=f"--{option}", expected="ct=FOLDER, for example")
    return found


def _folder(word: str, option: str) -> Folder:
    name, sign, path = word.partition("=")
    if not sign or "/" in name or is_there(word):
        return Folder("", _place(word, word, option))
    return _named(name.strip(), path, word, option)


def _named(name: str, path: str, word: str, option: str) -> Folder:
    channels = [part.strip().casefold() for part in name.split("+")]
    if "" in channels or len(set(channels)) < len(channels):
        raise ConfigError("not each channel has a name of its own", where=f"--{option}", got=word,
                          expected="ct=FOLDER, or t1+flair=FOLDER for two channels")  # fmt: skip
    place = _place(path, word, option)
    check_name(name, "modality", where=f"--{option}", error=ConfigError)
    return Folder(name, place)


def _place(path: str, word: str, option: str) -> Path:
    if not path or not check_path(path, where=f"--{option}", what="folder", error=ConfigError).is_dir():
        raise ConfigError("there is no such folder", where=f"--{option}", got=word, expected="ct=FOLDER, for example")
    return Path(path)
