"""What in a folder is a store's own: only that is ever deleted, and no link is followed for it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ...errors import DataError
from ...plain_json import read_object
from .entry import TEXT

__all__ = ["CHAIN", "FACTS", "LOCKS", "MEMORY", "TAG", "chains", "entries", "need_tag", "refuse_link",
           "refuse_links_below", "remove_all_unfinished", "remove_chain", "remove_memories", "remove_unfinished",
           "write_tag"]  # fmt: skip

CHAIN = "prepared_by.json"
FACTS, LOCKS, MEMORY, TAG = "facts", "locks", "sources.json", "CACHEDIR.TAG"
_TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# volumes that can be prepared again\n"
_HASH = re.compile(r"[0-9a-f]{32}")  # as digest() of .chain makes them
_ENTRY_FILE = re.compile(rf"{re.escape(TEXT)}|[0-9]+\.b2nd")
_FACT, _LOCK = re.compile(r"[0-9a-f]{32}\.json"), re.compile(r"[0-9a-f]{40}\.lock")
_KEYS = {"format", "chain", "libraries", "code", "reading"}
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def refuse_link(*paths: Path) -> None:
    """Refuse a store, or a part of one, that is a link: it may lead to anything.

    Raises:
        DataError: for a link, with where it leads.
    """
    for path in paths:
        if path.is_symlink():
            raise DataError("a link in a store of prepared volumes is not followed", where=path,
                            got=f"a link to {os.fspath(path.readlink())!a}", expected="a folder or file",
                            hint="remove the link, or name the folder itself with --store_dir")  # fmt: skip


def refuse_links_below(place: Path) -> None:
    """Refuse a store that is or holds a link, however deep.

    Raises:
        DataError: for the first one.
    """
    refuse_link(place)
    for root, folders, files in os.walk(place):
        refuse_link(*(Path(root) / name for name in sorted([*folders, *files])))


def write_tag(place: Path) -> None:
    """Mark a folder as a store, which backup programs leave out; what is there stays.

    Raises:
        DataError: when the mark is a link.
        OSError: when the disk refuses.
    """
    tag = place / TAG
    refuse_link(tag)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(tag, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o666)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(_TAG_TEXT)
        except OSError:  # half a mark would be nobody's
            tag.unlink(missing_ok=True)
            raise


def need_tag(place: Path) -> None:
    """Refuse a folder that no store marked as its own.

    Raises:
        DataError: without our mark.
    """
    tag = place / TAG
    found = None
    with contextlib.suppress(OSError, ValueError):
        found = tag.read_text(encoding="utf-8") if _is_file(tag) else None
    if found != _TAG_TEXT:
        raise DataError("this folder is no store of prepared volumes; nothing was deleted", where=place,
                        got=f"no {TAG}" if found is None else f"the {TAG} of another program",
                        expected=f"the {TAG} that a training writes into its store",
                        hint="name the store itself, as `data store list` shows it")  # fmt: skip


def chains(place: Path) -> list[Path]:
    """Folders of a store that hold the entries, or at least the description, of a chain."""
    return [f for f in _folders(place) if entries(f) or _is_description(f / CHAIN)]


def entries(folder: Path) -> list[Path]:
    """The complete entries in a chain's folder."""
    return [f for f in _folders(folder) if _is_file(f / TEXT)]


def remove_chain(folder: Path) -> None:
    """Delete a chain's entries and description; whatever else lies there stays, and so do the folders around it."""
    for entry in _folders(folder):
        _remove_files(entry, _ENTRY_FILE)
    if _is_description(folder / CHAIN):
        (folder / CHAIN).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def remove_unfinished(folder: Path, alive: Callable[[int], bool]) -> None:
    """Delete what killed writers left in a chain's folder; entries of living processes and other hosts stay."""
    for aside in _inside(folder):
        if _is_left(aside.name, _HASH, alive) and _is_folder(aside):
            _remove_files(aside, _ENTRY_FILE)


def remove_all_unfinished(place: Path, alive: Callable[[int], bool]) -> None:
    """The same in each folder that a chain may have, and the folder where nothing else is in it."""
    for folder in _folders(place):
        remove_unfinished(folder, alive)
        with contextlib.suppress(OSError):
            folder.rmdir()


def remove_memories(place: Path, alive: Callable[[int], bool]) -> None:
    """Delete what a store remembers beside its volumes, and the store when nothing is left but its mark."""
    _remove_files(place / FACTS, _FACT, alive)
    _remove_files(place / LOCKS, _LOCK)
    for file in _inside(place):
        if (file.name == MEMORY or _is_left(file.name, re.compile(re.escape(MEMORY)), alive)) and _is_file(file):
            file.unlink(missing_ok=True)
    if [f.name for f in _inside(place)] == [TAG]:
        (place / TAG).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            place.rmdir()


def _remove_files(folder: Path, names: re.Pattern[str], alive: Callable[[int], bool] | None = None) -> None:
    """Delete regular files of our names, what says that the others are complete first, and an empty folder."""
    for file in sorted(_inside(folder), key=lambda f: f.name != TEXT):
        left = alive is not None and _is_left(file.name, names, alive)
        if (names.fullmatch(file.name) or left) and _is_file(file):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
    if _is_folder(folder):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _is_left(name: str, names: re.Pattern[str], alive: Callable[[int], bool]) -> bool:
    """Whether something was being written under a name of ours by a process of this host that is gone."""
    found = re.fullmatch(rf"\.({names.pattern})\.{re.escape(socket.gethostname())}\.([0-9]{{1,9}})\.tmp", name)
    return found is not None and not alive(int(found[found.re.groups]))


def _is_description(file: Path) -> bool:
    with contextlib.suppress(DataError):
        return _is_file(file) and read_object(file, error=DataError).keys() >= _KEYS
    return False


def _folders(folder: Path) -> list[Path]:
    """Those with a name of ours."""
    return [f for f in _inside(folder) if _HASH.fullmatch(f.name) and _is_folder(f)]


def _inside(folder: Path) -> Iterable[Path]:
    return sorted(_listed(folder))


def _listed(folder: Path) -> Iterator[Path]:
    if _is_folder(folder):
        with contextlib.suppress(OSError):
            yield from folder.iterdir()


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
