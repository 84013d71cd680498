"""Files that are either complete or absent, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from .errors import CheckpointError
from .paths import check_new
from .whole_numbers import whole_number

__all__ = ["atomic_write", "free_bytes", "process_alive", "remove_stale", "require_space", "usable_cores"]

_LONGEST_NAME = 250  # bytes; disks take 255
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# torch's zip writer turns a failed write into a RuntimeError that no longer carries the errno.
_TORCH_WRITE_FAILURES = ("file write failed", "unexpected pos", "iostream error")


def free_bytes(folder: Path | str) -> int:
    """Free bytes of the file system that holds ``folder`` (or its nearest existing parent)."""
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def process_alive(pid: int) -> bool:
    """Whether a process of this host exists and is not a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def usable_cores() -> int:
    """Cores that this process may keep busy: those of its share, of which each process of a launch here has one."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def require_space(folder: Path | str, needed: int, purpose: str = "the files of this run") -> None:
    """Refuse to start what could not be saved.

    Args:
        folder: where the files will be written.
        needed: bytes that must be free.
        purpose: what the bytes are for, for the message.

    Raises:
        CheckpointError: when fewer than ``needed`` bytes are free.
    """
    free = free_bytes(folder)
    if free < needed:
        raise CheckpointError(
            f"not enough free disk space for {purpose}",
            where=folder,
            got=f"{_size(free)} free",
            expected=f"{_size(needed)}",
            hint="free some space, or choose another --output_dir",
        )


@contextlib.contextmanager
def atomic_write(path: Path | str, needed: int | None = None) -> Iterator[Path]:
    """Yield a temporary name in the target's folder and rename it to ``path`` once it is safely on disk.

    The previous file stays as it was until the new one is complete; after any failure the temporary file is gone.

    Args:
        path: the file to write; its folder is created.
        needed: expected size in bytes, for the message when the disk is full.

    Raises:
        CheckpointError: when the disk is full, or no file can have this name; the previous file is intact.
    """
    path = check_new(path, error=CheckpointError)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except Exception as error:
        written = temporary.stat().st_size if temporary.exists() else 0
        temporary.unlink(missing_ok=True)
        if _disk_is_full(error):
            raise CheckpointError(
                "the disk is full; nothing was written" + (", the previous file is intact" if path.exists() else ""),
                where=path,
                got=f"{_size(free_bytes(path.parent))} free after {_size(written)} were written",
                expected="more space" if needed is None else f"{_size(needed)} for this file",
                hint="free some space and run the same command again: it continues from the last checkpoint",
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """A hidden name beside a file, which ends with who writes it; as much of the file's own as there is room for."""
    writer = f".{socket.gethostname()}.{os.getpid()}.tmp"
    name = path.name
    while len(os.fsencode(name)) + len(os.fsencode(writer)) > _LONGEST_NAME:
        name = name[:-1]
    return path.with_name(f".{name}{writer}")


def remove_stale(folder: Path | str) -> list[Path]:
    """Delete what killed writers left behind in ``folder``; files of living processes or other hosts stay."""
    removed = []
    for temporary in Path(folder).glob(".*.tmp"):
        host, _, pid = temporary.stem.rpartition(".")
        writer = whole_number(pid) if host.endswith(f".{socket.gethostname()}") else None
        if writer is not None and not process_alive(writer):
            temporary.unlink(missing_ok=True)
            removed.append(temporary)
    return removed


def _disk_is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TORCH_WRITE_FAILURES)


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk; folders cannot be synced on every system."""
    with contextlib.suppress(PermissionError, IsADirectoryError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.3g} {unit} ({count} bytes)"
