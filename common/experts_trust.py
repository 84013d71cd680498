"""A MONAI bundle is code: it is opened as an expert only after somebody has agreed to run exactly this code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from .errors import ExpertError

__all__ = ["check_trusted", "code_hash"]

_CODE = (".py", ".pyc", ".so", ".pyd", ".dll", ".json", ".yaml", ".yml", ".conf", ".cfg", ".ini", ".toml", ".sh")
_RESULTS = ("__pycache__", "eval", ".git")  # what running a bundle leaves in its folder


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
