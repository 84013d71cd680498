"""What a training learns from when only a part of the label maps, or none, is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from .datalist import Collection, items, read_collection
from .dataset import Dataset
from .splits import labelled

__all__ = ["part_labelled", "with_used"]


def part_labelled(
    dataset_dir: str | Path | Sequence[str | Path] | Collection,
    *,
    labels_used: str | int = "all",
    unlabelled: bool = True,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The training cases, those whose label is not used without its path, and the unlabelled ones.

    Args:
        dataset_dir: anything that ``read_collection`` reads.
        labels_used: ``all``, ``none``, or how many label maps of each task, which are those whose names have the
            smallest hash (:func:`.splits.labelled`): more of them contain fewer.
        unlabelled: whether the scans of the split ``unlabelled`` take part.
        seed: another one takes other label maps.

    Raises:
        ConfigError: for another ``labels_used``.
    """
    used = with_used(dataset_dir, labels_used=labels_used, seed=seed)
    return items(used, "training") + (items(used, "unlabelled") if unlabelled else [])


def with_used(
    dataset_dir: str | Path | Sequence[str | Path] | Collection, *, labels_used: str | int = "all", seed: int = 0
) -> Collection:
    """A collection without the label maps that do not teach: those that are not used, and all of ``unlabelled``.

    Unless ``all`` are used, those of scans for validation and tests are not in it either.

    Args:
        dataset_dir: as of :func:`part_labelled`.
        labels_used: also.
        seed: also.

    Raises:
        ConfigError: for another ``labels_used``.
    """
    whole = isinstance(labels_used, int) and not isinstance(labels_used, bool)
    if labels_used not in ("all", "none") and not (whole and int(labels_used) >= 0):
        raise ConfigError("a part of the label maps", where="labels_used", got=labels_used,
                          expected="all, none, or a number of them for each task")  # fmt: skip
    collection = read_collection(dataset_dir)
    return replace(collection, datasets=tuple(_used(d, labels_used, seed) for d in collection.datasets))


def _used(dataset: Dataset, labels_used: str | int, seed: int) -> Dataset:
    names = [c.id for c in dataset.cases("training") if c.label is not None]
    kept = set(names)
    if labels_used != "all":
        count = min(len(names), 0 if labels_used == "none" else int(labels_used))
        kept = {names[i] for i in labelled(names, count=count, seed=seed)} if count else set()
    training = tuple(c if c.id in kept else replace(c, label=None) for c in dataset.cases("training"))
    bare = ["unlabelled"] if labels_used == "all" else [s for s in dataset.splits if s != "training"]
    others = {s: tuple(replace(c, label=None) for c in dataset.splits[s]) for s in bare}
    return replace(dataset, splits={**dataset.splits, "training": training, **others})
