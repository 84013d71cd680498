"""One run per output folder."""

from __future__ import annotations

import atexit
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType

from ...atomic import process_alive
from ...errors import ConfigError
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
        self.path.parent.mkdir(parents=True, exist_ok=True)
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
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
            holder = parse_object(text, error=ConfigError, where=self.path)
            if not (isinstance(holder.get("pid"), int) and isinstance(holder.get("host"), str)):
                raise ConfigError("this is the lock of no run", where=self.path)
        except FileNotFoundError:
            return
        except ConfigError:
            # A kill between creation and writing leaves an empty file; a living writer needs no second for it.
            if time.time() - self.path.stat().st_mtime < 2:
                time.sleep(0.5)
                return
            self.path.unlink(missing_ok=True)
            return
        here = holder["host"] == socket.gethostname()
        if here and (holder["pid"] == os.getpid() or not _same_process(holder["pid"], holder.get("started"))):
            if self.path.read_text() == text:
                self.path.unlink(missing_ok=True)
            return
        raise ConfigError(
            "another run is using this output folder",
            where=self.path.parent,
            got=f"process {holder['pid']} on {holder['host']} since {holder.get('since')}",
            hint="wait for it or choose another --output_dir"
            + ("" if here else f"; if that machine is gone, delete {self.path.name}"),
        )


def _same_process(pid: int, started: int | None) -> bool:
    """A process number may have been given to another process since: compare the start times too."""
    return process_alive(pid) and (started is None or _start_time(pid) in (None, started))


def _start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot, None where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None
