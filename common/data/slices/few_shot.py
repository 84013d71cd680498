"""Training on a part of the labels: which scans or slices are used depends on their names and a seed only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...atomic import atomic_write
from ...errors import ConfigError
from ..datasets.dataset_json import case_name
from ..datasets.splits import labelled
from ..store.place import Store
from .views import StoredSlices

__all__ = ["LabelledSlices"]


class LabelledSlices(StoredSlices):
    """Slices of volumes, of which only a part may be used for training.

    What was chosen is in ``chosen`` and, with ``output_dir``, in ``labelled.json`` there.

    Args:
        data: dictionaries of files, as :func:`~common.data.datasets.datalist.items` lists them.
        preprocessing: of whole volumes, without random parts.
        transform: applied to each slice's dictionary.
        keys: entries to slice; the others pass through.
        store: where prepared volumes lie; None keeps them in memory.
        axis: spatial axis to cut along, 0, 1 or 2.
        labelled_fraction: see :func:`~common.data.datasets.splits.labelled`.
        labelled_count: how many slices or scans (of each task) instead of a share.
        labelled_by: ``slices``: a part of all slices of all scans; ``scans``: all slices of a part of the scans, taken
            for each task on its own.
        labelled_seed: another one chooses another part.
        annotated_only: leave slices without any structure out before choosing.
        output_dir: where the choice is written.

    Raises:
        ConfigError: for another ``labelled_by``, or an impossible fraction.
        DataError: when there is nothing to cut.

    Reference:
        SAMora, section 4: a tenth of Synapse are 221 slices of all 18 scans, of the atria and prostates whole scans.
    """

    def __init__(
        self,
        data: Sequence[Mapping[Hashable, Any]],
        preprocessing: Callable[..., Any],
        transform: Callable[[dict[Hashable, Any]], Any] | None = None,
        keys: Sequence[str] = ("image", "label"),
        store: Store | None = None,
        axis: int = 2,
        labelled_fraction: float = 1.0,
        labelled_count: int | None = None,
        labelled_by: str = "slices",
        labelled_seed: int = 0,
        annotated_only: bool = False,
        output_dir: str | Path | None = None,
    ) -> None:
        if labelled_by not in ("slices", "scans"):
            raise ConfigError("unknown kind of part", where="labelled_by", got=labelled_by, expected="slices or scans")
        choose = partial(labelled, fraction=labelled_fraction, count=labelled_count, seed=labelled_seed)
        if labelled_by == "scans":
            data = _scans(data, choose)
        super().__init__(data, preprocessing, transform, keys, store, axis, annotated_only)
        total = len(self.index)
        if labelled_by == "slices":
            self.index = [self.index[p] for p in choose([f"{_name(self.data[i])}/{k}" for i, k in self.index])]
        self.chosen: dict[str, list[int]] = {}
        for i, k in self.index:
            self.chosen.setdefault(_name(self.data[i]), []).append(k)
        self.settings = {"fraction": labelled_fraction, "count": labelled_count, "by": labelled_by}
        self.settings |= {"seed": labelled_seed, "annotated_only": annotated_only}
        if output_dir is not None:
            self._write(Path(output_dir) / "labelled.json", total)

    @property
    def digest(self) -> str:
        """Hash of the choice: 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.chosen, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def card(self) -> dict[str, Any]:
        """Plain values for a model's card: what was asked for, how many slices and scans were taken, their hash."""
        return {**self.settings, "slices": len(self.index), "scans": len(self.chosen), "digest": self.digest}

    def _write(self, path: Path, total: int) -> None:
        with atomic_write(path) as temporary:
            text = json.dumps({**self.card, "of_slices": total, "chosen": self.chosen}, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")


def _name(item: Mapping[Hashable, Any]) -> str:
    return f"{item.get('task', '')}/{case_name(item)}"


def _scans(
    data: Sequence[Mapping[Hashable, Any]], choose: Callable[[Sequence[str]], list[int]]
) -> list[Mapping[Hashable, Any]]:
    tasks: dict[Any, list[Mapping[Hashable, Any]]] = {}
    for item in data:
        tasks.setdefault(item.get("task"), []).append(item)
    return [own[i] for own in tasks.values() for i in choose([_name(c) for c in own])]
