"""What every phantom dataset folder looks like: its splits, file names and ``dataset.json``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...labels import LabelSpace
from .files import write_json
from .tasks import FORMAT

__all__ = ["FOLDERS", "counts", "numbered", "paths", "write_dataset"]

FOLDERS = {"training": "Tr", "validation": "Va", "test": "Ts", "unlabelled": "Un"}
Entries = dict[str, list[dict[str, str]]]


def counts(cases: int) -> dict[str, int]:
    """Cases per split for ``cases`` training cases; test and validation are smaller, at least one each."""
    if cases < 1:
        raise ConfigError("a phantom needs at least one training case", where="cases", got=cases, expected=">= 1")
    part = max(1, cases // 3)
    return {"training": cases, "validation": part, "test": max(1, cases // 2), "unlabelled": part}


def numbered(name: str, cases: int) -> Iterator[tuple[str, int, str]]:
    """``(split, index, case id)`` over all splits of a dataset; the index runs through."""
    index = 0
    for split, number in counts(cases).items():
        for _ in range(number):
            yield split, index, f"{name}_{index:03d}"
            index += 1


def paths(root: Path, case: str, split: str, ending: str, *, channel: str = "") -> dict[str, str]:
    """A new entry's ``image`` and, unless unlabelled, ``label``; their folders are made."""
    end = FOLDERS[split]
    entry = {"image": f"./images{end}/{case}{channel}{ending}"}
    if split != "unlabelled":
        entry["label"] = f"./labels{end}/{case}{ending}"
    for path in entry.values():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
    return entry


def write_dataset(
    root: Path,
    entries: Entries,
    *,
    name: str,
    description: str,
    channels: tuple[str, ...],
    labels: tuple[str, ...],
    dim: int,
) -> None:
    """Write ``dataset.json``, readable as MSD's and as nnU-Net's."""
    named = {str(i): c for i, c in enumerate(channels)}
    head: dict[str, Any] = {
        "name": name,
        "description": description,
        "dim": dim,
        "tensorImageSize": f"{dim}D",
        "modality": named,
        "channel_names": named,
        "labels": LabelSpace(labels).to_json(),
        "file_ending": ".nii.gz" if dim == 3 else ".png",
        "licence": "CC0-1.0",
        "source": "computed by: python -m tools phantom",
        "release": f"{FORMAT}.0",
    }
    numbers = {f"num{split.capitalize()}": len(found) for split, found in entries.items()}
    write_json(root / "dataset.json", {**head, **numbers, **entries})
