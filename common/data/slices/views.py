"""2-D slices of 3-D volumes, cut on the fly."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor
from torch.utils.data import Dataset

from ...errors import ConfigError, DataError
from ..datasets.dataset_json import case_name
from ..store.cases import StoredCases, prepared, whole
from ..store.entry import StoredArray
from ..store.layout import Reading
from ..store.place import Store

__all__ = ["SliceViews", "StoredSlices"]


class SliceViews(Dataset[dict[Hashable, Any]]):
    """A data set of slices ``x[..., k]`` over a sequence of volumes; every volume is loaded once to count its slices.

    The last volume is kept in memory, so that a sampler that stays within a volume loads it once.

    Args:
        volumes: items (for example a MONAI ``Dataset``) whose ``keys`` are ``[C, X, Y, Z]``.
        keys: entries to slice; the others pass through.
        axis: spatial axis to cut along, 0, 1 or 2.
        transform: applied to each slice's dictionary.
        annotated_only: keep slices with a label > 0 only; a volume without any keeps its middle slice.
        label_key: the entry that ``annotated_only`` looks at.

    Raises:
        ConfigError: for an axis outside 0..2.
        DataError: when an item's entries are no volumes of one size.
    """

    def __init__(
        self,
        volumes: Sequence[Mapping[Hashable, Any]] | Dataset[Any],
        keys: Sequence[str] = ("image", "label"),
        axis: int = 2,
        transform: Callable[[dict[Hashable, Any]], Any] | None = None,
        annotated_only: bool = False,
        label_key: str = "label",
    ) -> None:
        if axis not in (0, 1, 2):
            raise ConfigError("slices are cut along axis 0, 1 or 2", got=axis)
        self.volumes, self.keys, self.axis, self.transform = volumes, tuple(keys), axis, transform
        self._kept: tuple[int, Mapping[Hashable, Any]] | None = None
        self.index: list[tuple[int, int]] = []
        for i in range(len(volumes)):  # type: ignore[arg-type]
            volume = self._volume(i)
            self.index += [(i, k) for k in self._slices(volume, label_key if annotated_only else None)]
        self._kept = None

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.index)

    def __getitem__(self, position: int) -> Any:
        """The slice's dictionary: sliced entries ``[C, X, Y]``, ``slice`` (its number), all else of its volume."""
        i, k = self.index[position]
        cut = partial(self._cut, k=k)
        stored = isinstance(self.volumes, StoredCases)
        item = self.volumes.read(i, cut) if stored else cut(self._volume(i))  # type: ignore[union-attr]
        # not its truth value: a Compose asked for its length seeds its parts again
        return item if self.transform is None else self.transform(item)

    def _cut(self, volume: Mapping[Hashable, Any], k: int) -> dict[Hashable, Any]:
        item: dict[Hashable, Any] = {**volume, "slice": k}
        for key in self.keys:
            if key in volume:
                item[key] = _selected(volume[key], self.axis + 1, k)
        return item

    def __getstate__(self) -> dict[str, Any]:
        """Without the volume kept in memory, so that workers start light."""
        return {**self.__dict__, "_kept": None}

    def _volume(self, i: int) -> Mapping[Hashable, Any]:
        if self._kept is None or self._kept[0] != i:
            volume: Mapping[Hashable, Any] = self.volumes[i]
            shapes = {tuple(volume[k].shape[1:]) for k in self.keys if k in volume}
            if len(shapes) != 1 or len(next(iter(shapes))) != 3:
                raise DataError(
                    "slices are cut from volumes of one size",
                    where=f"case {case_name(volume)}",
                    got=shapes,
                    expected=f"[C, X, Y, Z] in {', '.join(self.keys)}",
                )
            self._kept = (i, volume)
        return self._kept[1]

    def _slices(self, volume: Mapping[Hashable, Any], label_key: str | None) -> list[int]:
        first = next(volume[k] for k in self.keys if k in volume)
        count = int(first.shape[self.axis + 1])
        if label_key is None or label_key not in volume:
            return list(range(count))
        label = torch.as_tensor(whole({label_key: volume[label_key]})[label_key])
        others = [d for d in range(label.ndim) if d != self.axis + 1]
        present = (label > 0).sum(dim=others)
        return [k for k in range(count) if int(present[k])] or [count // 2]


class StoredSlices(SliceViews):
    """Slices of volumes that are given as files, prepared once and read from disk slice by slice.

    Args:
        data: dictionaries of files, as :func:`~common.data.datasets.datalist.items` lists them.
        preprocessing: of whole volumes, without random parts.
        transform: applied to each slice's dictionary.
        keys: entries to slice; the others pass through.
        store: where prepared volumes lie; None keeps them in memory.
        axis: spatial axis to cut along, 0, 1 or 2.
        annotated_only: keep slices with a label > 0 only; a volume without any keeps its middle slice.

    Raises:
        DataError: when there is nothing to cut.
    """

    def __init__(
        self,
        data: Sequence[Mapping[Hashable, Any]],
        preprocessing: Callable[..., Any],
        transform: Callable[[dict[Hashable, Any]], Any] | None = None,
        keys: Sequence[str] = ("image", "label"),
        store: Store | None = None,
        axis: int = 2,
        annotated_only: bool = False,
    ) -> None:
        if not data:
            raise DataError("there are no volumes to cut into slices", got="an empty list", expected="training cases")
        self.data = list(data)
        volumes = prepared(self.data, preprocessing, store, Reading(axis=axis))
        super().__init__(volumes, keys=keys, axis=axis, transform=transform, annotated_only=annotated_only)

    def item_of(self, position: int) -> Mapping[Hashable, Any]:
        """A slice's own entries: paths, task, modality of its case."""
        return self.data[self.index[position][0]]


def _selected(image: Any, axis: int, k: int) -> Tensor:
    if isinstance(image, StoredArray):
        return image.select(axis, k)
    plain = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
    return plain.select(axis, k).clone()
