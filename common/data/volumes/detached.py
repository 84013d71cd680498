"""The bytes of a volume's voxels, in its file or in others that the header names: all there and undamaged."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...errors import DataError
from ...paths import check_path
from ...whole_numbers import whole_number
from .contents import AGAIN, cut_off

__all__ = ["Stored", "named_files", "refuse_damaged"]

_CHUNK = 2**20
_MOST_FILES = 100_000
_DEFLATE_AT_BEST = 1032  # voxels' bytes for one stored byte
_PATTERN = re.compile(r"[^%]*%0?\d{0,2}d[^%]*")


class Stored(NamedTuple):
    """Where the bytes of the voxels are.

    Args:
        files: in their order; the volume's own file when they are inside.
        start: where they begin in each file; None when nobody can tell beforehand.
        length: how many bytes of a file are meant; None for all to its end.
        packing: ``""``, ``"gzip"`` or ``"zlib"``.
        voxels: bytes of all voxels, unpacked.
    """

    files: tuple[Path, ...]
    start: int | None
    length: int | None
    packing: str
    voxels: int


def named_files(value: str, listed: Sequence[str], where: Path) -> tuple[Path, ...]:
    """The files that a header names; they lie in its folder or below it.

    Args:
        value: ``LIST``, one name, or ``slice%03d.raw 1 20 1``.
        listed: the lines below ``LIST``.
        where: the header's file.

    Raises:
        DataError: for a pattern of another kind, a name that leads out of the folder, and a file that is not there.
    """
    first, *rest = value.split() or [""]
    if first.upper() == "LIST":
        names = list(listed)
    else:
        names = _numbered(first, rest, where) if "%" in value else [value]
    if not 0 < len(names) <= _MOST_FILES or not all(names):
        raise DataError("the header names no file of voxels, or too many", where=where, got=f"{len(names)} names")
    folder, found = where.resolve().parent, []
    for name in names:
        path = check_path(where.parent / name, what="file of its voxels", where=where)
        if not path.resolve().is_relative_to(folder):
            raise DataError(
                "the header names a file outside its folder",
                where=where,
                got=name,
                expected=f"a file beside {where.name}",
                hint=f"put both into one folder and write the bare name into {where.name}",
            )
        if not path.is_file():
            raise DataError(
                "the file of its voxels is missing",
                where=where,
                got=f"there is no {name} in {where.parent}",
                hint=f"copy {name} to where {where.name} lies; the header alone holds no voxels",
            )
        found.append(path)
    return tuple(found)


def _numbered(pattern: str, numbers: Sequence[str], where: Path) -> list[str]:
    """The names of a pattern with one ``%d``; anything else that C's printf would obey is refused."""
    read = [whole_number(n, negative=True) for n in (*numbers[:2], *(numbers[2:3] or ["1"]))]
    first, last, step = (n or 0 for n in read) if len(read) == 3 else (0, 0, 0)
    count = 0 if None in read or not step else (last - first) // step + 1
    if not _PATTERN.fullmatch(pattern) or not 0 < count <= _MOST_FILES:
        raise DataError(
            "the header names its files by a pattern that is not understood",
            where=where,
            got=" ".join((pattern, *numbers)),
            expected="one %d, then the first and the last number and the step: slice%03d.raw 1 20 1",
        )
    return [pattern % number for number in range(first, first + count * step, step)]


def refuse_damaged(stored: Stored, where: Path) -> None:
    """Refuse voxels that end too early, or whose checksum is wrong; SimpleITK and nibabel return damaged ones.

    Raises:
        DataError: naming the file.
    """
    sizes = [path.stat().st_size - (stored.start or 0) for path in stored.files]
    if stored.length is not None and sizes[0] < stored.length:
        raise cut_off(where, f"{sizes[0]} bytes of voxels", f"{stored.length} bytes")
    if sum(sizes) * (_DEFLATE_AT_BEST if stored.packing else 1) < stored.voxels:
        raise cut_off(where, f"{sum(sizes)} bytes of voxels", f"{stored.voxels} bytes")
    if stored.packing and stored.start is not None:
        for path in stored.files:
            state = path.stat()
            _unpack(path, stored, (state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=4096)  # of a file that is read in every epoch, once
def _unpack(path: Path, stored: Stored, _state: tuple[int, int]) -> None:
    """Unpack to nowhere, in pieces, for the checksum at the end."""
    with path.open("rb") as handle:
        handle.seek(stored.start or 0)
        try:
            count = _gzip(handle) if stored.packing == "gzip" else _zlib(handle, stored.length)
        except (OSError, EOFError, zlib.error) as error:
            problem = f"the compressed voxels are cut off or damaged ({error})"
            raise DataError(problem, where=path, expected="a right checksum", hint=AGAIN) from error
    if len(stored.files) == 1 and count < stored.voxels:
        raise cut_off(path, f"{count} bytes of voxels", f"{stored.voxels} bytes")


def _gzip(handle: BinaryIO) -> int:
    with gzip.GzipFile(fileobj=handle) as stream:
        return sum(len(piece) for piece in iter(lambda: stream.read(_CHUNK), b""))


def _zlib(handle: BinaryIO, length: int | None) -> int:
    unpacker, count, left = zlib.decompressobj(), 0, length if length is not None else 2**62
    while left > 0 and not unpacker.eof and (piece := handle.read(min(_CHUNK, left))):
        left -= len(piece)
        while piece and not unpacker.eof:
            count += len(unpacker.decompress(piece, _CHUNK))
            piece = unpacker.unconsumed_tail
    while not unpacker.eof and (more := unpacker.decompress(unpacker.unconsumed_tail, _CHUNK)):
        count += len(more)
    if not unpacker.eof:
        raise EOFError("the stream has no end")
    return count
