"""Processes of their own for tests of the store, and a disk that refuses every write."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# what Python says before it changes something: which of its words are paths, and the open folder each is relative to
_CHANGES: dict[str, list[tuple[int, int | None]]] = {
    "os.remove": [(0, 1)],
    "os.rmdir": [(0, 1)],
    "os.rename": [(0, 2), (1, 3)],
    "os.mkdir": [(0, 2)],
    "os.utime": [(0, 3)],
    "os.chmod": [(0, 2)],
    "os.symlink": [(1, 2)],
    "os.link": [(1, 3)],
    "os.truncate": [(0, None)],
}
_MAKING = {"os.mkdir", "os.symlink", "os.link"}


def begun(function: Callable[[], Any]) -> int:
    """The number of a forked process that runs a function and then ends."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def ended(pid: int) -> int:
    """Exit status of such a process; negative: killed by that signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forked(function: Callable[[], Any]) -> int:
    """Exit status of a function in a process of its own."""
    return ended(begun(function))


def read_only(*folders: Path) -> None:
    """From now on this process (a forked one: there is no way back) finds these folders on a read-only disk.

    What Python changes below them is refused with the error of such a disk, whatever the rights are. As there, what is
    absent and shall go, or is there and shall be made, is told instead.
    """

    def found(path: Any, folder: int = -1) -> str | None:
        if not isinstance(path, (str, bytes)):
            return None
        start = f"/proc/self/fd/{folder}" if folder >= 0 else "."
        whole = Path(os.path.normpath(Path(os.path.realpath(start), os.fsdecode(path))))
        return str(whole) if any(whole.is_relative_to(f) for f in folders) else None

    def refuse(event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            path, flags = found(given[0]), given[2]
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            told = flags & os.O_EXCL and path is not None and os.path.lexists(path)
            refused = [path] if writes and not told else []
        elif event in _CHANGES:
            paths = [found(given[p], -1 if at is None else given[at]) for p, at in _CHANGES[event]]
            told = os.path.lexists(paths[0] or given[0]) == (event in _MAKING)
            refused = [] if told else paths
        else:
            return
        for path in refused:
            if path is not None:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    sys.addaudithook(refuse)
