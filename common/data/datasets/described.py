"""What a ``dataset.json`` beside scans says of them: the names of their channels, and of structures in their maps."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ...command_words import shown_option
from ...contract import Contract
from ...errors import DataError, few
from ...labels import BACKGROUND
from ...literals import odd_in
from ...more_telling import Agreed, agreed
from .dataset_json import SPLITS, channel_names, channel_number, read_json
from .naming import is_general, is_nameless
from .spelling import alike

__all__ = ["Description", "about_structures", "described", "told_and_described"]

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


class _Read(NamedTuple):
    """A file's content, the entry of each path that it lists, and why it could not be read."""

    data: Mapping[str, Any]
    entries: Mapping[str, Any]
    problem: str = ""


def described(files: Sequence[Path], written: Path | None = None) -> Description | None:
    """What the ``dataset.json`` says that a scan belongs to; None where there is none.

    It lies in the scan's folder, or beside the folder ``imagesTs`` (``images...``) in which the scan is, or lists it.

    Args:
        files: of the scan, one per channel, or the folder of its DICOM series.
        written: what is about to be written anew, and says nothing any more where it is one of ours.

    Raises:
        DataError: when it contradicts itself, or names channels in another form.
    """
    for place in list(files[0].absolute().parents)[:_UP]:
        file = place / "dataset.json"
        if not file.is_file():
            continue
        inside = files[0].absolute().relative_to(place).parts
        state = file.stat()
        read = _read(file, state.st_size, state.st_mtime_ns)
        if read.problem:
            return Description(file, problem=read.problem) if _belongs(inside) else None
        if written is not None and file.resolve() == written.resolve() and SPLITS[-1] in read.data:
            continue
        entry = next((read.entries[p] for p in map(_normal, files) if p in read.entries), None)
        if entry is None and not _belongs(inside):
            continue
        if read.data.get("channel_names") is None and read.data.get("modality") is None:
            return None  # another program's file of that name
        said = entry.get("modality") if isinstance(entry, Mapping) else ""
        modality = said if isinstance(said, str) and not odd_in(said) else ""
        return Description(file, _own(channel_names(read.data, file), files), modality, _structures(read.data))
    return None


def told_and_described(
    told: Sequence[str],
    cases: Mapping[str, Sequence[Path]],
    *,
    where: object,
    option: str = "channels",
    written: Path | None = None,
    mixed: bool = False,
) -> Agreed:
    """What a user tells of a folder's scans and what a ``dataset.json`` beside them says, together.

    Args:
        told: the user's names of the channels, in order; none where nobody gives any.
        cases: the scans' files by name.
        where: the folder, for messages.
        option: by which they are told: ``channels``, ``modality``, or ``scans`` as ``t1+flair=FOLDER``.
        written: as of :func:`described`.
        mixed: the scans may be of several kinds that the user's name does not contradict; it stays as it is then.

    Raises:
        DataError: when both cannot be true, or not all of these scans are of one kind.
    """
    found: dict[Agreed, list[str]] = {}
    unread: set[str] = set()
    for name, files in cases.items():
        said = described(files, written)
        if said is None or said.problem:
            unread |= set() if said is None else {f"{said.file}: {said.problem}: the scans are not compared with it"}
            continue
        own = (said.modality,) if said.modality and len(said.channels) == 1 else said.channels
        typed = f"{'+'.join(own)}=FOLDER" if option == "scans" else ",".join(own)
        found.setdefault(agreed(told, own, said.file, where=where, typed=shown_option(option, typed)), []).append(name)
    kinds: dict[tuple[str, ...], list[str]] = {}
    for one, names in found.items():
        kinds.setdefault(one.names, []).extend(names)
    if len(kinds) > 1 and not mixed:
        raise DataError("the data set says that these scans are of several kinds", where=where,
                        got="; ".join(f"{', '.join(k)}: {few(n)}" for k, n in kinds.items()), expected="one kind",
                        hint="give each kind its own folder")  # fmt: skip
    notes = dict.fromkeys([*sorted(unread), *(line for one in found for line in one.notes)])
    return Agreed(tuple(told) if mixed else next(iter(kinds), tuple(told)), tuple(notes))


def about_structures(said: Description, contract: Contract) -> list[str]:
    """Sentences about structures of the data that a model was not taught, or that mean anything.

    Args:
        said: of a scan.
        contract: what the model's card says.
    """
    taught = dict.fromkeys(s for names in contract.taught.values() for s in names)
    named = [n for n in said.structures if not is_nameless(n)]
    left = [n for n in named if not any(alike(n, s) for s in taught)]
    general = [n for n in named if n not in left and is_general(n)]
    if not taught or not named:
        return []
    none = "none of the structures that it names was" if len(left) == len(named) else "not all that it names was"
    found = [f"{said.file}: {none} taught to the model, which answers nothing about {', '.join(left)}"] if left else []
    told = f"{said.file}: {', '.join(general)}: nobody says whether these are the same as in the data that the model "
    return [*found, *([f"{told}learned from"] if general else [])]


def _belongs(inside: tuple[str, ...]) -> bool:
    return len(inside) == 1 or inside[0].casefold().startswith(_FOLDERS)


def _own(channels: tuple[str, ...], files: Sequence[Path]) -> tuple[str, ...]:
    """Of a file that is a channel of several, its own name."""
    number = channel_number(files[0]) if len(files) == 1 < len(channels) else None
    return channels if number is None or number >= len(channels) else (channels[number],)


@lru_cache(maxsize=8)
def _read(file: Path, _size: int, _time: int) -> _Read:
    """Once for all of a folder's scans."""
    try:
        data = read_json(file)
    except DataError as error:
        return _Read({}, {}, error.problem)
    return _Read(data, {_normal(file.parent / n): e for e in _entries(data) for n in _listed(e)})


def _entries(data: Mapping[str, Any]) -> Iterator[Any]:
    for split in SPLITS:
        found = data.get(split)
        yield from found if isinstance(found, list) else ()
    table = data.get("dataset")
    yield from table.values() if isinstance(table, Mapping) else ()


def _listed(entry: Any) -> list[str]:
    images = entry.get("image", entry.get("images")) if isinstance(entry, Mapping) else entry
    images = images.values() if isinstance(images, Mapping) else [images] if isinstance(images, str) else images
    return [i for i in images if isinstance(i, str)] if isinstance(images, list | type({}.values())) else []


def _normal(path: Path) -> str:
    return os.path.normpath(path.absolute())


def _structures(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Names in either direction: ``{"liver": 1}`` and ``{"1": "liver"}``."""
    labels = data.get("labels")
    found = labels.items() if isinstance(labels, Mapping) else ()
    names = [v if isinstance(v, str) and not v.isdecimal() else k for k, v in found]
    return tuple(
        n for n in names if isinstance(n, str) and not odd_in(n) and n.casefold() not in (BACKGROUND, "ignore")
    )
