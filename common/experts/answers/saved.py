"""Answers about whole scans on their own grids, a file each, so that whoever needs them next asks nobody."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...atomic import atomic_write
from ...literals import file_name

__all__ = ["answer_file", "read_answer", "save_answer", "saved_size"]

_LEVEL = 1


def answer_file(folder: str | Path, expert: str, task: str, case: str) -> Path:
    """Where an expert's answer about a scan lies.

    Args:
        folder: of all answers.
        expert: its name.
        task: whose scan.
        case: its id.
    """
    return Path(folder) / f"{file_name(expert, task, case)}.npy.gz"


def save_answer(file: Path, answer: Tensor) -> None:
    """Write ``[S, X, Y, Z]`` uint8, complete or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary, gzip.open(temporary, "wb", compresslevel=_LEVEL) as stream:
        np.save(stream, answer.numpy(), allow_pickle=False)


def saved_size(answer: Iterable[Tensor | NDArray[np.uint8]]) -> int:
    """Bytes that :func:`save_answer` writes of an answer, but for a header.

    Args:
        answer: ``[S, X, Y, Z]`` uint8, or its rows one after another.
    """
    kept = io.BytesIO()
    with gzip.GzipFile(fileobj=kept, mode="wb", compresslevel=_LEVEL) as stream:
        for row in answer:
            stream.write(np.ascontiguousarray(row).tobytes())
    return kept.tell()


def read_answer(file: Path, shape: tuple[int, ...]) -> Tensor | None:
    """An answer on a grid of this shape; None where there is none that can be read."""
    try:
        with gzip.open(file, "rb") as stream:
            content = io.BytesIO(stream.read())  # to its end, where the checksum is compared
        found = np.load(content, allow_pickle=False)
    except (OSError, ValueError, EOFError, zlib.error):
        return None
    return torch.from_numpy(found) if found.dtype == np.uint8 and found.shape[1:] == shape else None
