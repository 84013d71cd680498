"""Whether a file is still what was saved: its sha256 lies beside it, as ``sha256sum -c`` reads it, and is compared."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from .atomic import atomic_write
from .command_words import shown_place
from .errors import CheckpointError, WeightError
from .paths import check_new, check_path, special

__all__ = [
    "SUFFIX",
    "copy_sealed",
    "file_hash",
    "keep_previous",
    "remove_seal",
    "seal",
    "seal_of",
    "sealed_hash",
    "sealed_write",
    "verify",
]

SUFFIX = ".sha256"
_HASH = re.compile(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])")
_ATTEMPTS = 20
_SETTLED_NS = 2_000_000_000  # clocks of file systems are coarse: a younger file may change without another time
_known: dict[Path, tuple[tuple[int, ...], str]] = {}


def file_hash(path: Path | str) -> str:
    """sha256 of a file's content; a file that did not change is read once in a process.

    Raises:
        OSError: when it cannot be read.
    """
    path = Path(path).absolute()
    state = _state(path)
    if path in _known and _known[path][0] == state:
        return _known[path][1]
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if state == _state(path) and time.time_ns() - max(state[2:]) > _SETTLED_NS:
        _known[path] = (state, found)
    else:
        _known.pop(path, None)
    return found


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    if found := special(path):
        raise OSError(errno.EINVAL, f"no file but {found}", str(path))
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def seal_of(path: Path | str) -> Path:
    """The file that holds another one's hash: ``model.pt.sha256`` for ``model.pt``."""
    path = Path(path)
    return path.with_name(path.name + SUFFIX)


def seal(path: Path | str, digest: str | None = None) -> str:
    """Write a file's hash beside it.

    Args:
        path: the file.
        digest: its sha256 where it is known already.

    Raises:
        CheckpointError: when the disk is full.
    """
    path = Path(path)
    digest = digest or file_hash(path)
    with atomic_write(seal_of(path)) as temporary:
        temporary.write_text(f"{digest}  {path.name}\n", encoding="utf-8", errors="surrogateescape")
    return digest


def remove_seal(path: Path | str) -> None:
    """Take a file's hash away, before the file itself is."""
    seal_of(path).unlink(missing_ok=True)


def sealed_hash(path: Path | str) -> str | None:
    """The hash that lies beside a file, None where there is none.

    Raises:
        WeightError: when there is something for it that holds no sha256.
    """
    beside = check_path(seal_of(path), what="weights' sha256", error=WeightError)
    try:
        text = beside.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WeightError(f"the weights' sha256 cannot be read: {error.strerror or error}", where=beside,
                          expected=f"a file with <64 digits>  {Path(path).name}") from error  # fmt: skip
    lines = [line.strip() for line in text.splitlines() if _HASH.search(line)]
    own = [line for line in lines if line.split(maxsplit=1)[-1].lstrip("*") == Path(path).name] or lines
    found = next((m.group().lower() for m in map(_HASH.search, own) if m), None)
    if found is None:
        raise WeightError("the file that should hold the weights' sha256 holds none", where=beside, got=repr(text[:80]),
                          expected=f"<64 digits>  {Path(path).name}", hint=_hint(Path(path)))  # fmt: skip
    return found


@contextlib.contextmanager
def sealed_write(path: Path | str, needed: int | None = None) -> Iterator[Path]:
    """As :func:`~common.atomic.atomic_write`, with the file's hash beside it.

    The earlier hash goes before the file is replaced and the new one comes after: whoever is killed between leaves a
    file without a hash, which is read as it is, and never one with a wrong hash.

    Args:
        path: the file to write.
        needed: expected size in bytes, for the message when the disk is full.

    Raises:
        CheckpointError: when the disk is full, or no file can have this name; the previous file is intact.
    """
    path = check_new(path, ("", SUFFIX), error=CheckpointError)
    with atomic_write(path, needed) as temporary:
        yield temporary
        digest = file_hash(temporary)
        remove_seal(path)
    seal(path, digest)


def verify(path: Path | str) -> str | None:
    """Compare a file with the hash beside it; None, and nothing is read, where there is none.

    A file that is being replaced meanwhile is looked at again.

    Raises:
        WeightError: when they differ.
    """
    path = Path(path)
    expected, found = sealed_hash(path), ""
    for _ in range(_ATTEMPTS):
        if expected is None:
            return None
        state, found = _state(path), file_hash(path)
        if found == expected:
            return found
        before, expected = expected, sealed_hash(path)
        if before == expected and state == _state(path):
            break
    size = path.stat().st_size
    raise WeightError(
        "the weights are not those that were saved: the file was damaged, or replaced by hand",
        where=path,
        got=f"sha256 {found} ({size} bytes)" if size else "an empty file",
        expected=f"sha256 {expected}, as {seal_of(path).name} says",
        hint=_hint(path),
    )


def _hint(path: Path) -> str:
    kept = path.parent / "previous"
    earlier = f"an earlier one may be in {kept}; " if kept.is_dir() else ""
    own = " ".join(["cd", shown_place(path.parent), "&&", "sha256sum", shown_place(path.name), ">",
                    shown_place(seal_of(path).name)])  # fmt: skip
    return f"copy it again from where it came from, or train it again; {earlier}if you put it there yourself: {own}"


def copy_sealed(source: Path | str, target: Path | str) -> Path:
    """Copy a file atomically, with its hash.

    Raises:
        WeightError: when the source is not what its own hash says.
        CheckpointError: when the disk is full; what lay at ``target`` is intact.
    """
    source, target = Path(source), Path(target)
    verify(source)
    with sealed_write(target, needed=source.stat().st_size) as temporary:
        shutil.copyfile(source, temporary)
    return target


def keep_previous(path: Path | str) -> Path | None:
    """Give a weights file a second name, ``previous/model_<hash>.pth``, so that another can take its first.

    It is ``.pth`` so that no server offers it as a model. The first name stays until the new file takes it, as somebody
    may be reading.

    Returns:
        the second name; None when there is no file.
    """
    path = Path(path)
    if not path.exists():
        return None
    digest = file_hash(path)
    folder = path.parent / "previous"
    folder.mkdir(exist_ok=True)
    names = [folder / f"{path.stem}_{digest[:n]}.pth" for n in (8, 16, 64)]
    target = next((n for n in names if not n.exists() or file_hash(n) == digest), names[-1])
    if not target.exists():
        _second_name(path, target)
    with contextlib.suppress(WeightError):
        said = sealed_hash(path)  # that of the file as it was saved, also where it was damaged since
        if said is not None:
            seal(target, said)
    return target


def _second_name(path: Path, target: Path) -> None:
    try:
        target.hardlink_to(path)
    except OSError:  # a file system without links
        with atomic_write(target, needed=path.stat().st_size) as temporary:
            shutil.copyfile(path, temporary)
