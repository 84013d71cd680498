"""One prepared case on disk: a folder that is complete or absent, whose arrays are read crop by crop."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DataError
from ...literals import odd_in
from ...plain_json import read_object
from .content import decoded, encoded, in_kind
from .layout import Reading, pieces
from .quantised import pack, unpack

__all__ = ["DamagedEntryError", "StoredArray", "box_of", "read_entry", "write_entry"]

TEXT = "entry.json"
# of the machine and its disks at this moment: the entry is what it was
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.ESTALE, errno.EIO}
_MAPPED = {} if os.name == "nt" else {"mmap_mode": "r"}


class DamagedEntryError(DataError):
    """A prepared case is not what was written; it is made again."""


class StoredArray:
    """An array on disk that is read in parts; nothing is kept in memory or open between two reads.

    Args:
        path: the ``.b2nd`` file.
        how: as :func:`.quantised.pack` gave it, with ``shape``.
        found: what the array was: array, tensor or tensor with metadata.
        source: path of the file that it was made of, for messages and metadata.
    """

    def __init__(self, path: Path, how: Mapping[str, Any], found: Mapping[str, Any], source: str | None = None) -> None:
        self.path, self.how, self.found, self.source = path, how, found, source

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return tuple(int(n) for n in self.how["shape"])

    @property
    def meta(self) -> dict[Any, Any]:
        """What the array's metadata were, without reading it; nothing where it had none."""
        return dict(decoded(self.found["meta"], _nothing)) if "meta" in self.found else {}

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.how["shape"])

    def __len__(self) -> int:
        """Length of the first axis."""
        return self.shape[0]

    def __getitem__(self, index: int) -> NDArray[Any]:
        """Row ``index`` of the first axis."""
        index = range(len(self))[int(index)]
        found: NDArray[Any] = self.read((slice(index, index + 1),)).numpy()[0]
        return found

    def read(self, part: Sequence[slice] = ()) -> Tensor:
        """A part of the array as a plain tensor.

        Args:
            part: one slice with step 1 for each leading axis; the others are read whole.

        Raises:
            DamagedEntryError: when the file is not what was written.
            DataError: when the machine does not let it be read now.
        """
        try:
            array = blosc2.open(str(self.path), mode="r", dparams={"nthreads": 1}, **_MAPPED)
            whole = [*part, *[slice(None)] * (self.ndim - len(part))]
            kept = np.asarray(array[tuple(whole)])
        except (RuntimeError, ValueError, OSError) as error:
            _refuse_passing(self.path, error)
            raise DamagedEntryError(
                "a prepared volume cannot be read", where=self.path, got=str(error)[:200]
            ) from error
        return unpack(kept, self.how, whole[0])

    def select(self, axis: int, index: int) -> Tensor:
        """The slice ``x[..., index, ...]`` along an axis, without that axis."""
        index = range(self.shape[axis])[int(index)]
        return self.read([*[slice(None)] * axis, slice(index, index + 1)]).squeeze(axis)

    def box(self, low: Sequence[int], high: Sequence[int], fill: float = 0.0) -> Tensor:
        """The crop ``x[:, low:high]`` over the spatial axes, filled up where it leaves the array.

        Args:
            low: first index along each spatial axis; may be negative.
            high: one past the last.
            fill: value outside.
        """
        return _filled(self.read, self.shape[1:], low, high, fill)

    def whole(self) -> Any:
        """The array as the chain made it: array, tensor, or tensor with its metadata and history."""
        found = in_kind(self.read(), self.found, _nothing)
        meta = getattr(found, "meta", None)
        if self.source is not None and isinstance(meta, dict) and "filename_or_obj" in meta:
            meta["filename_or_obj"] = self.source
        return found


def box_of(image: Any, low: Sequence[int], high: Sequence[int], fill: float = 0.0) -> Tensor:
    """The same crop of a prepared array or of one in memory, of which it is never a part.

    Args:
        image: ``[C, ...]``, a :class:`StoredArray` or anything that is a tensor.
        low: as of :meth:`StoredArray.box`.
        high: one past the last.
        fill: value outside.
    """
    if isinstance(image, StoredArray):
        return image.box(low, high, fill)
    plain = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
    return _filled(lambda part: plain[tuple(part)].clone(), plain.shape[1:], low, high, fill)


def _filled(
    read: Callable[[Sequence[slice]], Tensor],
    shape: Sequence[int],
    low: Sequence[int],
    high: Sequence[int],
    fill: float,
) -> Tensor:
    inner = [slice(min(max(0, a), n), max(0, min(b, n))) for a, b, n in zip(low, high, shape, strict=True)]
    part = read([slice(None), *inner])
    pad: list[int] = []
    for a, b, s in zip(reversed(list(low)), reversed(list(high)), reversed(inner), strict=True):
        pad += [s.start - a, b - max(s.stop, s.start)]
    if not any(pad):
        return part
    full = torch.full((part.shape[0], *(b - a for a, b in zip(low, high, strict=True))), fill, dtype=part.dtype)
    if part.numel():
        full[(slice(None), *(slice(s.start - a, s.stop - a) for s, a in zip(inner, low, strict=True)))] = part
    return full


def _refuse_passing(path: Path, error: Exception) -> None:
    """Refuse to take for damage what is none, as what is damaged is deleted and made again.

    Raises:
        DataError: when the machine does not let the file be read.
    """
    reason: BaseException | None = error if isinstance(error, OSError) else error.__cause__
    if isinstance(error, RuntimeError):  # blosc2 does not say why
        try:
            path.open("rb").close()
        except OSError as found:
            reason = found
    if isinstance(reason, OSError) and reason.errno in _PASSING:
        raise DataError("a prepared volume cannot be read now, and was left as it is", where=path,
                        got=reason.strerror, hint="run the same command again; if it stays so, delete the entry's "
                        "folder, or name another --store_dir") from error  # fmt: skip


def _nothing(number: int, found: Mapping[str, Any]) -> Any:
    raise DamagedEntryError("metadata hold no arrays", got=number)


def write_entry(folder: Path, content: Mapping[Any, Any], reading: Reading, about: Mapping[str, Any]) -> int:
    """Write a prepared case; whoever comes second leaves what is there.

    Args:
        folder: the entry's; made aside and renamed when it is safely on disk.
        content: what the chain made.
        reading: how it will be read.
        about: further plain values, for listings.

    Returns:
        Bytes on disk.

    Raises:
        OSError: when the disk refuses (the folder is then absent).
        DataError: when something cannot be kept.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        arrays: list[dict[str, Any]] = []

        def keep(values: NDArray[Any]) -> int:
            arrays.append(_write_array(aside / f"{len(arrays)}.b2nd", values, reading))
            return len(arrays) - 1

        text = {"content": encoded(dict(content), keep, f"case {about.get('case', folder.name)}"), "arrays": arrays}
        _synced(aside / TEXT, json.dumps({**text, "about": dict(about)}).encode())
        size = sum(f.stat().st_size for f in aside.iterdir())
        _put(aside, folder)
        return size
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _put(aside: Path, folder: Path) -> None:
    """Give a finished entry its name; an entry that lost what says that it is complete gets its files again."""
    with contextlib.suppress(OSError):
        if not folder.exists():
            aside.replace(folder)
    if not folder.exists():
        aside.replace(folder)
    elif aside.exists() and not folder.is_symlink() and not (folder / TEXT).is_file():
        for file in sorted(aside.iterdir(), key=lambda f: f.name == TEXT):  # what says so comes last
            file.replace(folder / file.name)


def _write_array(path: Path, values: NDArray[Any], reading: Reading) -> dict[str, Any]:
    kept, how = pack(np.ascontiguousarray(values))
    options: dict[str, Any] = {}
    if kept.ndim > 1:
        cut = pieces(kept.shape, reading) if kept.ndim > 2 else None
        options = {} if cut is None else {"blocks": cut.block, "chunks": cut.chunk}
    whole = kept.dtype.kind in "iub" and "step" not in how
    kind = blosc2.Filter.BITSHUFFLE if whole else blosc2.Filter.SHUFFLE
    packed = {"codec": blosc2.Codec.LZ4HC, "clevel": 5, "nthreads": 1, "filters": [kind]}
    # made in memory and written by us: a full disk is then an OSError and no half-written array
    frame = blosc2.asarray(kept, cparams=packed, **options).to_cframe()
    _synced(path, frame)
    return {**how, "shape": list(kept.shape), "bytes": len(frame), "name": path.name}


def _synced(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def read_entry(folder: Path, sources: Mapping[str, str] | None = None) -> dict[Any, Any]:
    """A prepared case, its large arrays as :class:`StoredArray`.

    Args:
        folder: the entry's.
        sources: paths of the source files, by entry.

    Raises:
        DamagedEntryError: when a file is missing or shorter than it was.
        DataError: when the machine does not let it be read now.
        FileNotFoundError: when there is no such entry.
    """
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    try:
        file = (folder / TEXT).stat()
        text = _text(folder / TEXT, file.st_ino, file.st_mtime_ns, file.st_size)
        for array in text["arrays"]:
            if odd_in(array["name"], file_name=True):
                raise DamagedEntryError("a prepared volume lies elsewhere", where=folder, got=ascii(array["name"]))
            size = (folder / array["name"]).stat().st_size
            if size != array["bytes"]:
                problem = "a prepared volume was cut off"
                expected = f"{array['bytes']} bytes"
                raise DamagedEntryError(problem, where=folder / array["name"], got=f"{size} bytes", expected=expected)

        def find(number: int, found: Mapping[str, Any]) -> StoredArray:
            return StoredArray(folder / text["arrays"][number]["name"], text["arrays"][number], found)

        content: dict[Any, Any] = decoded(text["content"], find)
    except (DamagedEntryError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        _refuse_passing(folder, error)
        if isinstance(error, DamagedEntryError):
            raise
        raise DamagedEntryError("a prepared case cannot be read", where=folder, got=repr(error)[:200]) from error
    for key, source in (sources or {}).items():
        if isinstance(content.get(key), StoredArray):
            content[key].source = source
    return content


@lru_cache(maxsize=256)
def _text(path: Path, *stamp: int) -> dict[str, Any]:
    """What an entry says, parsed once while its file is the same one; what is made of it shares nothing with it."""
    return read_object(path, error=DamagedEntryError, finite=False)
