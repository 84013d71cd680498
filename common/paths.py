"""Paths that a file, a description or a command names: refused by name where no file system can have or follow them.

``Path.exists`` and its like raise for a name of 300 characters and a folder that may not be entered, ``resolve`` for a
loop of links and half a character. So whoever takes a path from a text asks here first, and may look at it afterwards.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import AmalgamationError, DataError

__all__ = ["check_new", "check_path", "check_regular", "is_path", "is_there", "special"]

_LONGEST, _LONGEST_NAME = 4096, 256
_SPECIAL = {
    stat.S_ISFIFO: "a pipe (FIFO), and reading it may never end",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def is_path(value: Any) -> bool:
    """Whether a value is text that a file system takes for a path."""
    try:
        return isinstance(value, str) and 0 < len(os.fsencode(value)) < _LONGEST and "\0" not in value and all(
            len(os.fsencode(part)) < _LONGEST_NAME for part in Path(value).parts)  # fmt: skip
    except UnicodeEncodeError:  # half a character
        return False


def is_there(path: str | Path) -> bool:
    """Whether something lies at a path; no for one that cannot be followed, as for words that are none."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def special(path: str | Path) -> str | None:
    """What lies at a path where it is neither a file nor a folder, in words; opening that may wait for ever."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return None
    return next((words for kind, words in _SPECIAL.items() if kind(mode)), None)


def check_regular(path: Path, *, what: str = "file", error: type[AmalgamationError] = DataError) -> Path:
    """The gate for what the listing of a folder gave and will be opened: a file, or a link to one.

    Args:
        path: of the folder's entry.
        what: of which thing, for the message.
        error: class of the refusal.

    Returns:
        the path.

    Raises:
        AmalgamationError: of the class ``error``, for a pipe, a socket, a device, a folder, and a link to nothing.
    """
    if not check_path(path, what=what, error=error).is_file():
        got = "a folder" if path.is_dir() else "a link to nothing" if path.is_symlink() else "nothing"
        raise error(f"this {what} is no file", where=path, got=got, expected="a file, or a link to one",
                    hint="take it out of the folder")  # fmt: skip
    return path


def _can_be_written(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half a character
        return False


def check_path(
    path: str | Path,
    *,
    where: object | None = None,
    what: str = "path",
    error: type[AmalgamationError] = DataError,
    hint: str | None = None,
) -> Path:
    """The gate for paths that somebody wrote: whether something lies there is another question.

    Args:
        path: absolute, or relative to the working folder.
        where: the file and the entry that name it; the path itself when None.
        what: of which thing, for the message.
        error: class of the refusal.
        hint: what to do next.

    Returns:
        the path; to look at it, and to resolve it, raises nothing any more.

    Raises:
        AmalgamationError: of the class ``error``, for a name that is too long or holds what no name does, a loop of
            links, a place that may not be looked at, and what is neither a file nor a folder.
    """
    try:
        Path(path).resolve()
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, RuntimeError, ValueError) as wrong:  # RuntimeError: a loop; ValueError: NUL, half a character
        told = {RuntimeError: "a link that leads to itself", ValueError: "a character that no name has"}
        reason = next((text for kind, text in told.items() if isinstance(wrong, kind)), None)
        shown = f"{str(path)!a:.200}"
        raise error(f"this {what} cannot be followed: {reason or getattr(wrong, 'strerror', None) or wrong}",
                    where=shown if where is None else where, got=None if where is None else shown,
                    expected="a file or folder that can be reached", hint=hint) from wrong  # fmt: skip
    if found := special(path):
        raise error(f"this {what} is no file and no folder: {found}", where=path if where is None else where,
                    got=None if where is None else f"{str(path)!a:.200}", expected="a file, or a folder of files",
                    hint=hint or "take it away, or copy what it gives into a file")  # fmt: skip
    return Path(path)


def check_new(
    path: str | Path,
    endings: Iterable[str] = ("",),
    *,
    what: str = "file",
    error: type[AmalgamationError] = DataError,
    hint: str | None = "give a shorter name",
) -> Path:
    """The gate for what will be written, before the work that it holds is done: no disk must refuse its name later.

    Args:
        path: of the file or folder.
        endings: what else is put behind its name, for the files beside it.
        what: of which thing, for the message.
        error: class of the refusal.
        hint: what to do next.

    Returns:
        the path.

    Raises:
        AmalgamationError: of the class ``error``, as :func:`check_path`, for names that are too long, and for none.
    """
    found = Path(path)
    if not _can_be_written(str(found)):
        problem = f"no {what} can have this name: it holds a character that no name has"
        raise error(problem, where=f"{str(found)!a:.200}", hint="give another name")
    for ending in endings:
        if ending and not found.name:
            raise error(f"this is no name of a {what}", where=f"{str(path)!a:.200}", expected="a name in a folder",
                        hint="give a name")  # fmt: skip
        place = found.with_name(f"{found.name}{ending}") if ending else found
        if not is_path(str(place.absolute())):
            name = place.name if len(os.fsencode(place.name)) >= _LONGEST_NAME else str(place)
            raise error(f"no {what} can have this name: it is too long", where=f"{name!a:.200}",
                        got=f"{len(os.fsencode(name))} bytes", hint=hint,
                        expected=f"names of at most {_LONGEST_NAME - 1} bytes, {_LONGEST - 1} with their folders",
                        )  # fmt: skip
        check_path(place, what=what, error=error, hint=hint)
    return found
