"""What is known about an expert's code before it runs.

A MONAI bundle is Python: it is opened only after somebody has agreed to run exactly this code. A TorchScript file is a
program without Python, which can still name PyTorch's operators that read and write files: one that does is refused.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from .errors import ExpertError

__all__ = ["check_script", "check_trusted", "code_hash"]

_CODE = (".py", ".pyc", ".so", ".pyd", ".dll", ".json", ".yaml", ".yml", ".conf", ".cfg", ".ini", ".toml", ".sh")
_RESULTS = ("__pycache__", "eval", ".git")  # what running a bundle leaves in its folder
_CALL = re.compile(rb"\b(?:torch|ops(?:\s*\.\s*\w+)+)\s*\.\s*(\w+)\s*\(")
_FILES = frozenset(("save", "load", "file", "files", "read", "write", "open", "path"))
_LARGEST = 200_000_000  # bytes of code in a TorchScript file


def code_hash(bundle: str | Path) -> str:
    """SHA-256 over the names and contents of everything in a bundle's folder that can be code or configuration.

    Args:
        bundle: folder.

    Raises:
        ExpertError: when a file cannot be read, or is a link that leads out of the folder.
    """
    root, digest = Path(bundle), hashlib.sha256()
    for path in _code_files(root):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ExpertError("a file of the bundle cannot be read", where=path, got=error.strerror) from error
        for part in (path.relative_to(root).as_posix().encode("utf-8", "surrogateescape"), content):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _code_files(root: Path) -> Iterator[Path]:
    inside = root.resolve()
    for path in sorted(root.rglob("*")):
        if not path.resolve().is_relative_to(inside):
            raise ExpertError("a link leads out of the bundle", where=path, hint="copy the bundle without links")
        parts = path.relative_to(root).parts
        if path.is_file() and path.suffix.lower() in _CODE and not set(parts[:-1]) & set(_RESULTS):
            yield path


def check_trusted(bundle: str | Path, trusted: str, *, where: object) -> None:
    """Refuse to run a bundle's code that nobody has agreed to.

    Args:
        bundle: folder.
        trusted: the :func:`code_hash` of what was agreed to; empty when nothing was.
        where: the expert, for the message.

    Raises:
        ExpertError: when it is not this code.
    """
    found = code_hash(bundle)
    if found != trusted:
        told = "nobody has agreed to it" if not trusted else "it is not the code that was agreed to"
        raise ExpertError(
            f"opening a MONAI bundle runs its code, and {told}",
            where=where,
            got=f"code {found[:12]}...",
            expected=f"code {trusted[:12]}..." if trusted else None,
            hint=f"look at it with python -m tools bundle check {str(bundle)!a}, then describe it (again): "
            "python -m tools experts describe",
        )


def check_script(path: str | Path) -> None:
    """Refuse a TorchScript file whose code names an operator that reads or writes files.

    Raises:
        ExpertError: for such a file, or one that is no TorchScript.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".py")]
            if sum(entry.file_size for entry in entries) > _LARGEST:
                raise ExpertError("the file holds too much code", where=path, expected=f"at most {_LARGEST} bytes")
            called = {name.decode() for entry in entries for name in _CALL.findall(archive.read(entry))}
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ExpertError("cannot read this TorchScript file", where=path, got=ascii(error)[:200]) from error
    wrong = sorted(name for name in called if _FILES & set(name.split("_")))
    if wrong:
        raise ExpertError("this TorchScript file reads or writes files when it runs", where=path, got=", ".join(wrong),
                          expected="a network that computes from its input alone")  # fmt: skip
