"""Where prepared volumes lie, how much room they may take, and what is there."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...atomic import atomic_write, free_bytes, process_alive
from ...command_words import shown_option
from ...errors import ConfigError, DataError
from ...literals import file_name
from ...plain_json import read_object
from ..datasets.datalist import places as named_places
from .chain import names
from .entry import TEXT
from .owned import (
    CHAIN,
    FACTS,
    LOCKS,
    MEMORY,
    chains,
    entries,
    need_tag,
    refuse_link,
    refuse_links_below,
    remove_all_unfinished,
    remove_chain,
    remove_memories,
    write_tag,
)
from .sources import Sources

__all__ = ["VARIABLE", "Kept", "Store", "clear", "listed", "places", "size_text"]

VARIABLE = "AMALGAM_STORE"
FOLDER = ".prepared"
_GB = 10**9
_OWNER = "delete them as the user who owns the folder, and where its disk can be written"
_RESERVE = _GB  # is left free on the disk


class Store:
    """The place of prepared volumes.

    ``store_dir`` decides, then the environment variable ``AMALGAM_STORE``; otherwise they lie beside the data they were
    made of, in ``<data folder>/.prepared``, with that folder's owner, disk and access rights. Where nobody may write,
    what is there already is read, and what is new goes to a folder of its own in ``~/.cache/amalgam/prepared``.

    Args:
        dataset_dir: the data; a folder, or several.
        store_dir: another place.
        limit_gb: most that the place may hold, in 10^9 bytes; None: what the disk has, but for one gigabyte.
        workers: processes that prepare volumes; None: one per core, at most 8.
        quiet: no progress bar.

    Raises:
        ConfigError: for an impossible limit or number of processes.
        DataError: when there is no place that can be written, or one is a link.
    """

    def __init__(
        self,
        dataset_dir: Any = None,
        *,
        store_dir: str | Path | None = None,
        limit_gb: float | None = None,
        workers: int | None = None,
        quiet: bool = False,
    ) -> None:
        if limit_gb is not None and not float(limit_gb) > 0:
            raise ConfigError("the limit of the store is a number of gigabytes above 0", where="store_gb", got=limit_gb)
        if workers is not None and workers < 0:
            raise ConfigError("prepared by 0 or more processes", where="store_workers", got=workers)
        self.readable = places(dataset_dir, store_dir)
        refuse_link(*self.readable)
        self.limit_gb, self.workers, self.quiet = limit_gb, workers, quiet

    def writable(self) -> Path:
        """The place for new volumes, which is made when needed.

        Raises:
            DataError: when none can be written, or one is or holds a link.
        """
        problems = []
        for place in self.readable:
            problem = _unwritable(place)
            if problem is None:
                return place
            problems.append(f"{place}: {problem}")
        got = "; ".join(problems)
        hint = f"name a folder that can be written with --store_dir or {VARIABLE}"
        raise DataError("prepared volumes cannot be kept anywhere", where=self.readable[0], got=got, hint=hint)

    def sources(self) -> Sources:
        """Hashes of source files as they are remembered beside the volumes."""
        with contextlib.suppress(DataError):
            return Sources(self.writable())
        return Sources(None)

    def find(self, chain: str, key: str, *, but: Container[Path] = ()) -> Path | None:
        """An entry's folder where there is one that is none of ``but``."""
        found = (place / chain / key for place in self.readable)
        return next((f for f in found if f not in but and (f / TEXT).is_file() and not _linked(f)), None)

    def used(self, chain: str, described: Mapping[str, Any]) -> None:
        """Note that a chain's entries are used now, and what the chain is."""
        for place in self.readable:
            file = place / chain / CHAIN
            with contextlib.suppress(OSError, DataError):
                refuse_link(file.parent, file)
                if file.is_file():
                    os.utime(file)
                elif file.parent.is_dir():
                    with atomic_write(file) as temporary:
                        temporary.write_text(json.dumps(described, sort_keys=True), encoding="utf-8")

    def room(self, needed: int, *, more: str = "") -> None:
        """Refuse what would not fit.

        Args:
            needed: bytes that will be written.
            more: how that number came about.

        Raises:
            DataError: above the limit, or when the disk has not that much.
        """
        place = self.writable()
        hint = f"see what is there with: python -m tools data store list {shown_option('store_dir', place)}"
        if self.limit_gb is not None:
            there = folder_bytes(place)
            if there + needed > self.limit_gb * _GB:
                raise DataError("the prepared volumes would be larger than allowed", where=place,
                                got=f"{size_text(needed)} more{more}, {size_text(there)} there",
                                expected=f"at most {self.limit_gb:g} GB (--store_gb)",
                                hint=f"raise --store_gb; or {hint}, and then clear it")  # fmt: skip
        free = free_bytes(place)
        if needed + min(_RESERVE, needed) > free:
            raise DataError("the disk has no room for the prepared volumes", where=place,
                            got=f"{size_text(free)} free", expected=f"{size_text(needed)}{more}",
                            hint=f"name a folder on a larger disk with --store_dir or {VARIABLE}; {hint}")  # fmt: skip


def places(dataset_dir: Any = None, store_dir: str | Path | None = None) -> list[Path]:
    """Folders that may hold prepared volumes of a data set, best first."""
    given = store_dir if store_dir is not None else os.environ.get(VARIABLE) or None
    if given is not None:
        return [Path(str(given)).expanduser().absolute()]
    beside = _data_folder(dataset_dir)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "amalgam" / "prepared"
    return [cache] if beside is None else [beside / FOLDER, cache / file_name(str(beside.parent))]


class Kept(NamedTuple):
    """The entries of one chain.

    Args:
        folder: where they lie.
        chain: names of the chain's transforms.
        cases: how many.
        size: bytes.
        used: seconds since 1970 when a run last read them.
        tasks: whose cases they are.
    """

    folder: Path
    chain: list[str]
    cases: int
    size: int
    used: float
    tasks: list[str]


def listed(place: Path, *, unused_days: float = 0.0) -> list[Kept]:
    """What lies in a place, the last used first.

    Args:
        place: where prepared volumes lie.
        unused_days: only chains that no run has read for so long.
    """
    found = []
    for folder in chains(place):
        file, kept = folder / CHAIN, entries(folder)
        used = file.stat().st_mtime if file.is_file() else folder.stat().st_mtime
        described, abouts = _read(file), [_read(e / TEXT).get("about", {}) for e in kept]
        tasks = sorted({str(a.get("task") or "") for a in abouts if isinstance(a, Mapping)} - {""})
        chain = names(described) if isinstance(described.get("chain"), Mapping) else []
        found.append(Kept(folder, chain, len(kept), folder_bytes(folder), used, tasks))
    before = time.time() - unused_days * 86400 if unused_days else float("inf")  # a disk's clock may be ahead of ours
    return sorted((k for k in found if k.used <= before), key=lambda k: -k.used)


def clear(place: Path, *, unused_days: float = 0.0) -> tuple[int, int]:
    """Delete prepared volumes; sources are never touched, nor anything that a store did not write.

    Args:
        place: where they lie.
        unused_days: only chains that no run has read for so long.

    Returns:
        Cases and bytes that are gone.

    Raises:
        DataError: when the place is no store of ours, is or holds a link, or cannot be written; nothing is deleted
            then. Also when some of it could not be deleted.
    """
    refuse_link(place)
    if not place.is_dir() or not any(place.iterdir()):
        return 0, 0
    need_tag(place)
    refuse_links_below(place)
    if (problem := _unwritable(place)) is not None:
        raise DataError("prepared volumes cannot be deleted here; nothing was", where=place, got=problem, hint=_OWNER)
    cases = size = left = 0
    remove_all_unfinished(place, process_alive)
    for kept in listed(place, unused_days=unused_days):
        with contextlib.suppress(OSError):  # counted below
            remove_chain(kept.folder)
        stay = len(entries(kept.folder))
        cases, left = cases + kept.cases - stay, left + stay
        size += kept.size - folder_bytes(kept.folder)
    if left:
        got = f"{left} cases are left, {cases} are gone"
        raise DataError("some prepared volumes could not be deleted", where=place, got=got, hint=_OWNER)
    if not chains(place):
        remove_memories(place, process_alive)
    return cases, size


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += (Path(root) / name).stat().st_size
    return total


def size_text(size: float) -> str:
    """Bytes for people: ``3.2 GB``."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def _data_folder(dataset_dir: Any) -> Path | None:
    """The folder of a data set; of several, the one that holds the first."""
    if dataset_dir is None:
        return None
    if isinstance(dataset_dir, str):
        dataset_dir = named_places(dataset_dir)
    if isinstance(dataset_dir, Sequence):  # what is listed is not taken apart
        first = dataset_dir[0] if dataset_dir else None
        return _data_folder(Path(first) if isinstance(first, str) else first)
    path = dataset_dir if isinstance(dataset_dir, Path) else Path(str(getattr(dataset_dir, "root", dataset_dir)))
    if not path.exists():
        path = Path(str(path).rpartition("::")[0] or path)
    path = path.parent if path.is_file() else path
    return path.absolute() if path.is_dir() else None


def _unwritable(place: Path) -> str | None:
    """Why nothing can be written there, None when it can; the folder is made."""
    refuse_link(place, *(place / name for name in (LOCKS, FACTS, MEMORY)))
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
        write_tag(place)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _linked(entry: Path) -> bool:
    return entry.is_symlink() or entry.parent.is_symlink()


def _read(file: Path) -> dict[str, Any]:
    with contextlib.suppress(DataError):
        return read_object(file, error=DataError)
    return {}
