"""What a training learns from when only a part of the label maps, or none, is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import ConfigError
from .datalist import Collection, items, read_collection
from .splits import labelled

__all__ = ["part_labelled"]


def part_labelled(
    dataset_dir: str | Path | list[str | Path] | Collection,
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
    whole = isinstance(labels_used, int) and not isinstance(labels_used, bool)
    if labels_used not in ("all", "none") and not (whole and int(labels_used) >= 0):
        raise ConfigError("a part of the label maps", where="labels_used", got=labels_used,
                          expected="all, none, or a number of them for each task")  # fmt: skip
    collection = read_collection(dataset_dir)
    found: list[dict[str, Any]] = []
    for task in collection.tasks:
        own = items(collection, "training", task)
        drawn = [i for i, case in enumerate(own) if "label" in case]
        if labels_used != "all":
            count = min(len(drawn), 0 if labels_used == "none" else int(labels_used))
            names = [own[i]["case"] for i in drawn]
            drawn = [drawn[i] for i in labelled(names, count=count, seed=seed)] if count else []
        found += [case if i in drawn else _bare(case) for i, case in enumerate(own)]
    if unlabelled:
        found += [_bare(case) for case in items(collection, "unlabelled")]
    return found


def _bare(case: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in case.items() if k != "label"}
