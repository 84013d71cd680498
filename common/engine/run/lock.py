"""One run per output folder.

Of the package ``filelock`` neither lock does what this one does. ``FileLock`` knows nothing of another machine where
flock ends at the machine (it falls back to a file only where there is no flock at all). ``SoftFileLock`` refuses for
ever after a kill between making and writing the file, refuses after one whose parent has not waited for it (a zombie,
as in a container without an init process), and does not say since when and, for its own host, by whom.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from ...atomic import process_alive
from ...errors import ConfigError
from ...paths import check_new
from ...plain_json import parse_object

__all__ = ["RunLock"]


class RunLock:
    """A file ``run.lock`` with host, process and start time, so that a second run in the same folder refuses.

    The lock of a process that no longer exists (on this host) is taken over; one of another host is respected, because
    nothing can be known about that process.

    Args:
        folder: the output folder; created.
        name: the lock file; a chain locks its folder under another name than the runs inside.
    """

    def __init__(self, folder: Path | str, name: str = "run.lock") -> None:
        self.path = Path(folder) / name
        self._mine: str | None = None
        self._owner: int | None = None

    def acquire(self) -> RunLock:
        """Take the lock; it is released when the process ends.

        Raises:
            ConfigError: when another living run holds it.
        """
        if self._mine is not None and os.getpid() == self._owner:
            return self
        check_new(self.path, what="folder", error=ConfigError).parent.mkdir(parents=True, exist_ok=True)
        mine = json.dumps(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": _start_time(os.getpid()),
                "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            }
        )
        for _ in range(5):
            try:
                descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                self._remove_if_stale()
                continue
            with os.fdopen(descriptor, "w") as file:
                file.write(mine)
            self._mine, self._owner = mine, os.getpid()
            atexit.register(self.release)
            return self
        raise ConfigError("the run lock is being contended", where=self.path, hint="start the run again")

    def release(self) -> None:
        """Remove the lock if this process holds it; forked workers do not."""
        if self._mine is not None and self._owner == os.getpid():
            if self.path.exists() and self.path.read_text() == self._mine:
                self.path.unlink(missing_ok=True)
            self._mine = None

    def __enter__(self) -> RunLock:
        """Acquire."""
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release."""
        self.release()

    def _remove_if_stale(self) -> None:
        """Remove the lock of a process that is gone; of several that try it, one at a time, and only that very file."""
        try:
            file = self.path.open(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        with file:
            with contextlib.suppress(OSError):  # a disk without flock
                fcntl.flock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    self._judge(_holder(file.read(4096), self.path))

    def _judge(self, holder: _Holder | None) -> None:
        if holder is None:
            # A kill between creation and writing leaves an empty file; a living writer needs no second for it.
            if time.time() - self.path.stat().st_mtime < 2:
                time.sleep(0.5)
                return
        else:
            here = holder.host == socket.gethostname()
            if not here or (holder.pid != os.getpid() and _same_process(holder)):
                raise ConfigError(
                    "another run is using this output folder",
                    where=self.path.parent,
                    got=f"process {holder.pid} on {holder.host} since {holder.since}",
                    hint="wait for it or choose another --output_dir"
                    + ("" if here else f"; if that machine is gone, delete {self.path.name}"),
                )
        self.path.unlink()


class _Holder(NamedTuple):
    """Who has the lock; ``started`` is None where the system does not tell."""

    host: str
    pid: int
    started: int | None
    since: str


def _holder(text: str, path: Path) -> _Holder | None:
    """What a lock says; None for an empty one, and for one that a crash of the machine left without content."""
    if not text.strip("\0 \n"):
        return None
    entry: dict[str, Any] = {}
    with contextlib.suppress(ConfigError):
        entry = parse_object(text, error=ConfigError)
    host, pid, started = entry.get("host"), entry.get("pid"), entry.get("started")
    if not isinstance(host, str) or type(pid) is not int or not 0 < pid < 2**31:
        raise ConfigError(
            "this is not the lock of a run",
            where=path,
            got=text[:80],
            expected="host and process as JSON",
            hint=f"if nothing is at work in the folder, delete {path.name}",
        )
    return _Holder(host, pid, started if isinstance(started, int) else None, str(entry.get("since")))


def _same_process(holder: _Holder) -> bool:
    """A process number may have been given to another process since: compare the start times too."""
    alive = process_alive(holder.pid)
    return alive and (holder.started is None or _start_time(holder.pid) in (None, holder.started))


def _start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot, None where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None
