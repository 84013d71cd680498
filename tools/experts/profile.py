"""Reads a home profile: the shipped ones by name, a user's own from a file of the same form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.backbones.nnunet.description import labels_of
from common.backbones.nnunet.network import read_json
from common.errors import ExpertError
from common.experts.profile import HomeProfile
from common.literals import check_name
from common.plain_json import read_object

__all__ = ["Profile", "read_profile"]

SHIPPED = Path(__file__).parent / "profiles"
_EXPECTED = '{"format": 1, "ask": {"program", "version", "orientation", ...}, "parts": [{"dataset", "structures"}]}'
_HINT = "look at the shipped one: tools/experts/profiles/totalsegmentator.json"


@dataclass(frozen=True)
class Profile:
    """A home profile with the names that the program gives to its experts' structures.

    Args:
        file: where it was read.
        ask: how the program asks an expert.
        parts: ``{number of nnU-Net's data set: names of the values 1, 2, ...}``; empty where files name them.
    """

    file: Path
    ask: HomeProfile
    parts: dict[int, tuple[str, ...]]

    def names(self, folder: Path) -> dict[str, str]:
        """``{name in the expert's files: the program's name}`` of what is called otherwise there.

        Args:
            folder: results folder of nnU-Net.

        Raises:
            ExpertError: for a data set that the program does not have, or one with another number of structures.
        """
        if not self.parts:
            return {}
        plans = read_json(folder / "plans.json")
        number = re.match(r"Dataset([0-9]{1,6})_", str(plans.get("dataset_name", "")))
        names = self.parts.get(int(number.group(1))) if number else None
        if names is None:
            raise ExpertError(f"{self.ask.program} has no expert of this data set", where=folder,
                              got=ascii(plans.get("dataset_name"))[:100], expected=", ".join(map(str, self.parts)),
                              hint="leave --profile out, or give one that names its structures")  # fmt: skip
        labels = labels_of(read_json(folder / "dataset.json"), where=folder)
        if sorted(labels.values) != list(range(1, len(names) + 1)):
            raise ExpertError(f"{self.ask.program} names another number of structures of this data set", where=folder,
                              got=f"{len(labels)} in the files", expected=f"{len(names)}, the values 1 to {len(names)}",
                              hint=f"version {self.ask.version} is known here")  # fmt: skip
        told = {name: names[value - 1] for name, value in zip(labels.names, labels.values, strict=True)}
        return {old: new for old, new in told.items() if old != new}


def read_profile(given: str | Path) -> Profile:
    """A profile by the name of a shipped one, or from a JSON file.

    Raises:
        ExpertError: when there is none, or something in it is not of its form.
    """
    shipped = {p.stem: p for p in sorted(SHIPPED.glob("*.json"))}
    file = shipped.get(str(given), Path(given))
    if not file.is_file():
        raise ExpertError("there is no such home profile", where="--profile", got=ascii(str(given))[:100],
                          expected=f"{', '.join(shipped)}, or a JSON file", hint=_HINT)  # fmt: skip
    data = read_object(file, error=ExpertError, problem="cannot read the home profile", expected=_EXPECTED, hint=_HINT)
    unknown = [k for k in data if k not in ("format", "ask", "parts")]
    if unknown or data.get("format") != 1:
        got = f"unknown: {', '.join(map(ascii, unknown))}" if unknown else f"format {data.get('format')!a:.100}"
        raise ExpertError("cannot read the home profile", where=file, got=got, expected=_EXPECTED, hint=_HINT)
    return Profile(file, HomeProfile.from_dict(data.get("ask"), where=file), _parts(data.get("parts", []), file))


def _parts(given: Any, file: Path) -> dict[int, tuple[str, ...]]:
    parts: dict[int, tuple[str, ...]] = {}
    for entry in given if isinstance(given, list) else [given]:
        keys = set(entry) if isinstance(entry, Mapping) else set()
        number, names = (entry["dataset"], entry["structures"]) if keys == {"dataset", "structures"} else (None, None)
        if type(number) is not int or number < 0 or number in parts or not isinstance(names, list) or not names:
            raise ExpertError("cannot read the parts of a home profile", where=file, got=ascii(entry)[:200],
                              expected="each data set's number once, with the names of its structures", hint=_HINT
                              )  # fmt: skip
        for name in names:
            check_name(name, "structure", where=file, error=ExpertError)
        if len(set(names)) != len(names):
            raise ExpertError("two structures of one data set have one name", where=file,
                              got=", ".join(sorted({n for n in names if names.count(n) > 1})))  # fmt: skip
        parts[number] = tuple(names)
    return parts
