"""What the files of a case hold: hashes of their content, remembered so that a start does not read everything."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...atomic import atomic_write
from ...errors import AmalgamationError, DataError
from ...integrity import file_hash
from ...plain_json import read_object
from ..datasets.dataset_json import case_name

__all__ = ["Sources"]

_SETTLED_NS = 2_000_000_000  # clocks of file systems are coarse: a younger file may change without another time


class Sources:
    """Hashes of source files, kept in ``sources.json`` under their path, size and times.

    A file with another size, time of writing or time of change is read again; so is one that was written in the last
    two seconds before it was read. The list is a memory only: losing it costs time, nothing else.

    Args:
        folder: where the list lies; None remembers within this process alone.
    """

    def __init__(self, folder: Path | None) -> None:
        self.file = None if folder is None else folder / "sources.json"
        self.known: dict[str, list[Any]] = _listed(self.file)
        self.found: dict[str, list[Any]] = {}
        self.bytes_of: dict[str, int] = {}

    def content(self, item: Mapping[Any, Any], keys: Sequence[str]) -> dict[str, Any]:
        """The item with hashes in the place of paths.

        Args:
            item: a case as :func:`~common.data.datasets.datalist.items` lists it.
            keys: entries that hold a path, a list of paths or the folder of a DICOM series.

        Raises:
            DataError: for a file that cannot be read.
        """
        result = {str(k): v for k, v in item.items()}
        for key in keys:
            value = result.get(key)
            if isinstance(value, (str, Path)):
                result[key] = self._of(Path(value), f"case {case_name(item)}")
            elif isinstance(value, (list, tuple)):
                result[key] = [self._of(Path(v), f"case {case_name(item)}") for v in value]
        return result

    def size(self, item: Mapping[Any, Any], keys: Sequence[str]) -> int:
        """Bytes of an item's files."""
        values = [item.get(k) for k in keys]
        paths = [p for v in values for p in (v if isinstance(v, (list, tuple)) else [v]) if isinstance(p, (str, Path))]
        return sum(f.stat().st_size for p in paths for f in _files(Path(p)))

    def save(self) -> None:
        """Add what was found to the list on disk, together with what others found meanwhile."""
        if self.file is None or not self.found:
            return
        with contextlib.suppress(OSError, AmalgamationError):  # a memory that cannot be kept is no reason to stop
            with atomic_write(self.file) as temporary:
                temporary.write_text(json.dumps({**_listed(self.file), **self.found}), encoding="utf-8")
            self.found = {}

    def _of(self, path: Path, where: str) -> str:
        try:
            if not path.is_dir():
                return self._hash(path)
            parts = [[f.relative_to(path).as_posix(), self._hash(f)] for f in _files(path)]
        except OSError as error:
            problem = f"the file cannot be read ({error.strerror or error})"
            hint = "list all such cases with: python -m tools data check"
            raise DataError(problem, where=f"{where}, {path}", hint=hint) from error
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _hash(self, path: Path) -> str:
        name, state = str(path.absolute()), _state(path)
        known = self.known.get(name)
        if known is not None and known[:-1] == state:
            return str(known[-1])
        found = file_hash(path)
        if state == _state(path) and time.time_ns() - max(state[1:]) > _SETTLED_NS:
            self.known[name] = self.found[name] = [*state, found]
        return found


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _files(path: Path) -> list[Path]:
    return sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]


def _listed(file: Path | None) -> dict[str, list[Any]]:
    if file is None:
        return {}
    with contextlib.suppress(DataError):
        found = read_object(file, error=DataError)
        return {k: v for k, v in found.items() if isinstance(v, list) and len(v) == 4 and isinstance(v[3], str)}
    return {}
