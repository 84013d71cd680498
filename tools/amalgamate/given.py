"""What a user gives: folders of scans with the name of what they show, and experts in any form that they come in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import ConfigError, ExpertError, few
from common.experts.describe import describe_expert, kind_of
from common.experts.expert_set import check_unchanged
from common.experts.spec import ExpertSpec, read_manifest
from common.literals import check_name, disk_name, file_name, odd_in

from ..command_line import name_pairs
from ..experts.describe import agreed
from .lessons import LABELS

__all__ = ["Folder", "Given", "folders", "read_experts"]

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
        ConfigError: for none, a name that is none, or a folder that is not there.
    """
    words = [f"{n}={p}" for n, p in value.items()] if isinstance(value, Mapping) else name_pairs(value)
    found = [_folder(word.strip(), option) for word in words if word.strip()]
    if not found:
        raise ConfigError("no folder is given", where=f"--{option}", expected="ct=FOLDER, for example")
    return found


def _folder(word: str, option: str) -> Folder:
    name, sign, path = word.partition("=")
    if not sign or "/" in name or Path(word).exists():
        name, path = "", word
    if not path or not Path(path).is_dir():
        raise ConfigError("there is no such folder", where=f"--{option}", got=word, expected="ct=FOLDER, for example")
    if name:
        check_name(name, "modality", where=f"--{option}", error=ConfigError)
    return Folder(name, Path(path))


def read_experts(paths: Sequence[str | Path], *, trust: bool = False, **known: Any) -> list[ExpertSpec]:
    """Descriptions of the experts: as they are written, else as their own files tell.

    Each gets a name of its own. They belong to no task: whoever can read a scan answers for it.

    Args:
        paths: descriptions (``expert.json``), results folders of nnU-Net or a folder that holds one, MONAI bundles.
        trust: open the code of MONAI bundles without asking.
        known: further fields of all experts that are described here, such as ``orientation``; None is not given.

    Raises:
        ConfigError: for no expert, or a bundle's code that nobody agrees to.
        ExpertError: for what cannot be opened, or was changed since it was described.
    """
    if not paths:
        raise ConfigError("no expert is given", expected="results folders of nnU-Net, bundles or expert.json files",
                          hint="python -m tools amalgamate EXPERT EXPERT --scans ct=FOLDER")  # fmt: skip
    specs = [spec for path in paths for spec in _read(Path(path), trust, known)]
    twice = [str(p) for p in dict.fromkeys(paths) if list(paths).count(p) > 1]
    if twice:
        raise ConfigError("an expert is given twice", got=few(twice), expected="each once")
    return list(_named(specs))


def _read(path: Path, trust: bool, known: Mapping[str, Any]) -> Iterator[ExpertSpec]:
    if path.is_file() and path.suffix == ".json":
        for spec in read_manifest(path):
            check_unchanged(spec, "put its files back; or, where the change is meant, describe it again")
            yield replace(spec, role="external", task="")
        return
    below = sorted(p.parent for p in path.glob("*/plans.json")) if path.is_dir() else []
    if len(below) == 1 and not (path / "plans.json").is_file():
        path = below[0]
    told = dict(known)
    kind = kind_of(path)
    if kind == "bundle":
        told["trusted"] = agreed(path, trust)
    if kind == "torchscript":
        raise ExpertError("a TorchScript file does not say what it answers", where=path, expected="its description",
                          hint="python -m tools experts describe FILE.ts expert.json --external True --labels liver=1 "
                               "--channels CT")  # fmt: skip
    whole = path.resolve()
    name = whole.parent.name if kind == "nnunet" else whole.name
    yield describe_expert(path, name=file_name(name) if odd_in(name) else name, role="external", **told)


def _named(specs: Sequence[ExpertSpec]) -> Iterator[ExpertSpec]:
    """The same, each with a name that no disk takes for another's."""
    used = {disk_name(LABELS)}
    for spec in specs:
        name, number = spec.name, 1
        while disk_name(name) in used:
            number += 1
            name = f"{spec.name} {number}"
        used.add(disk_name(name))
        yield spec if name == spec.name else replace(spec, name=name)
