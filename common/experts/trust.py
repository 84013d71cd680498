"""What is known about an expert's code before it runs.

A MONAI bundle is Python: it is opened only after somebody has agreed to run exactly this code.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..command_words import shown_place
from ..errors import ExpertError
from ..paths import check_path

__all__ = ["WEIGHTS", "check_trusted", "code_hash"]

WEIGHTS = "models/model.pt"
# Where a bundle's weights lie unless the expert names another file.
_CHUNK = 1 << 20


def code_hash(bundle: str | Path, weights: str = WEIGHTS) -> str:
    """SHA-256 over the names and contents of every file in a bundle's folder but the expert's weights.

    Code can run, import or unpickle a file of any name, so that none is left out by its name. The weights have a hash
    of their own in the expert's description.

    Args:
        bundle: folder.
        weights: the expert's weights, relative to the folder.

    Raises:
        ExpertError: when a file cannot be read, or is a link that leads out of the folder.
    """
    root, digest = Path(bundle), hashlib.sha256()
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        if name == Path(weights).as_posix() and not path.is_symlink():
            continue
        try:
            target = path.readlink() if path.is_symlink() else ""
            content = hashlib.sha256()
            if path.is_file():
                with path.open("rb") as file:
                    while chunk := file.read(_CHUNK):
                        content.update(chunk)
        except OSError as error:
            raise ExpertError("a file of the bundle cannot be read", where=path, got=error.strerror) from error
        for part in (os.fsencode(name), os.fsencode(target), content.digest()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    inside = check_path(root, what="bundle", error=ExpertError).resolve()
    for path in sorted(root.rglob("*")):
        if not check_path(path, what="file of the bundle", error=ExpertError).resolve().is_relative_to(inside):
            raise ExpertError("a link leads out of the bundle", where=path, hint="copy the bundle without links")
        if path.is_symlink() or not path.is_dir():
            yield path


def check_trusted(bundle: str | Path, trusted: str, *, where: object, weights: str = WEIGHTS) -> None:
    """Refuse to run a bundle's code that nobody has agreed to.

    Args:
        bundle: folder.
        trusted: the :func:`code_hash` of what was agreed to; empty when nothing was.
        where: the expert, for the message.
        weights: the expert's weights, relative to the folder.

    Raises:
        ExpertError: when it is not this code.
    """
    found = code_hash(bundle, weights)
    if found != trusted:
        told = "nobody has agreed to it" if not trusted else "it is not the code that was agreed to"
        raise ExpertError(
            f"opening a MONAI bundle runs its code, and {told}",
            where=where,
            got=f"code {found[:12]}...",
            expected=f"code {trusted[:12]}..." if trusted else None,
            hint="files that running it left there (__pycache__, eval) count: remove them, or look at it with "
            f"python -m tools bundle check {shown_place(bundle)}, then describe it (again): "
            "python -m tools experts describe",
        )
