"""What a ``dataset.json`` beside scans says of them: the names of their channels, and of structures in their maps."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common.contract import Contract
from common.data.datasets.dataset_json import SPLITS, channel_names, channel_number, read_json
from common.data.datasets.naming import is_general, is_nameless
from common.errors import DataError
from common.labels import BACKGROUND
from common.literals import odd_in
from common.name_words import plain

from .scans import Scan

__all__ = ["Description", "about_structures", "described"]

_FOLDERS = "images"
_UP = 3


class Description(NamedTuple):
    """What is said of a scan.

    Args:
        file: that says it.
        channels: names of the scan's channels, in the order of its files; of a file that is one of several, its own.
        modality: that its entry names; empty when it has none.
        structures: names of the values of label maps.
        problem: why nothing can be read there; empty when it can.
    """

    file: Path
    channels: tuple[str, ...] = ()
    modality: str = ""
    structures: tuple[str, ...] = ()
    problem: str = ""


def described(scan: Scan) -> Description | None:
    """What the ``dataset.json`` says that a scan belongs to; None where there is none.

    It lies in the scan's folder, or beside the folder ``imagesTs`` (``images...``) in which the scan is, or lists it.

    Args:
        scan: what a user points at.

    Raises:
        DataError: when it contradicts itself, or names channels in another form.
    """
    for place in list(scan.files[0].absolute().parents)[:_UP]:
        file = place / "dataset.json"
        if not file.is_file():
            continue
        inside = scan.files[0].absolute().relative_to(place).parts
        try:
            data = read_json(file)
        except DataError as error:
            return Description(file, problem=error.problem) if _belongs(inside) else None
        entry = next((e for e in _entries(data) if _is_of(e, place, scan)), None)
        if entry is None and not _belongs(inside):
            continue
        if data.get("channel_names") is None and data.get("modality") is None:
            return None  # another program's file of that name
        said = entry.get("modality") if isinstance(entry, Mapping) else ""
        modality = said if isinstance(said, str) and not odd_in(said) else ""
        return Description(file, _own(channel_names(data, file), scan), modality, _structures(data))
    return None


def about_structures(said: Description, contract: Contract) -> list[str]:
    """Sentences about structures of the data that a model was not taught, or that mean anything.

    Args:
        said: of a scan.
        contract: what the model's card says.
    """
    taught = {plain(s) for names in contract.taught.values() for s in names}
    named = [n for n in said.structures if not is_nameless(n)]
    left = [n for n in named if plain(n) not in taught]
    general = [n for n in named if plain(n) in taught and is_general(n)]
    if not taught or not named:
        return []
    none = "none of the structures that it names was" if len(left) == len(named) else "not all that it names was"
    found = [f"{said.file}: {none} taught to the model, which answers nothing about {', '.join(left)}"] if left else []
    told = f"{said.file}: {', '.join(general)}: nobody says whether these are the same as in the data that the model "
    return [*found, *([f"{told}learned from"] if general else [])]


def _belongs(inside: tuple[str, ...]) -> bool:
    return len(inside) == 1 or inside[0].casefold().startswith(_FOLDERS)


def _own(channels: tuple[str, ...], scan: Scan) -> tuple[str, ...]:
    """Of a file that is a channel of several, its own name."""
    number = channel_number(scan.files[0]) if len(scan.files) == 1 < len(channels) else None
    return channels if number is None or number >= len(channels) else (channels[number],)


def _entries(data: Mapping[str, Any]) -> Iterator[Any]:
    for split in SPLITS:
        found = data.get(split)
        yield from found if isinstance(found, list) else ()
    table = data.get("dataset")
    yield from table.values() if isinstance(table, Mapping) else ()


def _is_of(entry: Any, place: Path, scan: Scan) -> bool:
    images = entry.get("image", entry.get("images")) if isinstance(entry, Mapping) else entry
    images = images.values() if isinstance(images, Mapping) else [images] if isinstance(images, str) else images
    listed = [i for i in images if isinstance(i, str)] if isinstance(images, list | type({}.values())) else []
    known = {os.path.normpath(p.absolute()) for p in scan.files}
    return any(os.path.normpath(place / name) in known for name in listed)


def _structures(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Names in either direction: ``{"liver": 1}`` and ``{"1": "liver"}``."""
    labels = data.get("labels")
    found = labels.items() if isinstance(labels, Mapping) else ()
    names = [v if isinstance(v, str) and not v.isdecimal() else k for k, v in found]
    return tuple(
        n for n in names if isinstance(n, str) and not odd_in(n) and n.casefold() not in (BACKGROUND, "ignore")
    )
