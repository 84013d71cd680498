"""Whether a data set is one that a model learned from: by its cases' files, as a name alone may be anybody's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .dataset import Dataset

__all__ = ["case_hash", "is_known_data", "short_hash"]

_LOOKED = 5
_SHORT = 16


def is_known_data(dataset: Dataset, data: Sequence[Mapping[str, Any]]) -> bool | None:
    """Whether a data set is one of a card's: one of that name that has some of its cases.

    Args:
        dataset: what is compared; a few of its cases' files are read, evenly spread over each split.
        data: the card's data sets, with ``name`` and, by split, ``hashes`` of their ``cases``.

    Returns:
        None where the name is one of the card's and the card, or the disk, has no files to compare.
    """
    named = [d for d in data if d.get("name") == dataset.name]
    if not named:
        return False
    known = {h for d in named for split in _entries(d.get("cases")).values() for h in _hashes(split)}
    if not known:
        return None
    compared = False
    for cases in dataset.splits.values():
        for case in cases[:: max(1, len(cases) // _LOOKED)]:
            if not all(p.exists() for p in case.images):
                continue
            compared = True
            if short_hash(case.images) in known:
                return True
    return False if compared else None


def short_hash(images: Iterable[Path]) -> str:
    """As a card lists a case."""
    return case_hash(images)[:_SHORT]


def case_hash(images: Iterable[Path]) -> str:
    """Sha256 of a case's files, in order; of a folder all in it.

    Args:
        images: files, or folders of slices.
    """
    digest = hashlib.sha256()
    for image in images:
        for path in sorted(image.iterdir()) if image.is_dir() else [image]:
            if path.is_file():
                with path.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _entries(said: Any) -> Mapping[Any, Any]:
    return said if isinstance(said, Mapping) else {}


def _hashes(split: Any) -> list[str]:
    found = _entries(split).get("hashes")
    return [h for h in found if isinstance(h, str)] if isinstance(found, list | tuple) else []
