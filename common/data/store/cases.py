"""A data set over prepared cases."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import CacheDataset
from torch.utils.data import Dataset

from ...errors import DataError, cause_of
from ..datasets.dataset_json import case_name
from .chain import chain_json, digest
from .entry import DamagedEntryError, StoredArray, read_entry
from .fill import Job, fill
from .layout import Reading
from .place import Store
from .sources import Sources

__all__ = ["StoredCases", "WholeCases", "prepared", "whole"]

logger = logging.getLogger(__name__)

KEYS = ("image", "label")


class StoredCases(Dataset[Any]):
    """Cases as a deterministic chain makes them, prepared once and read from disk.

    An item is what the chain returns, its large arrays as
    :class:`~common.data.store.entry.StoredArray`; ``transform`` takes crops of them. Images lose what
    :func:`~common.data.store.quantised.pack` says, labels nothing.

    Args:
        data: dictionaries of files, as :func:`~common.data.datasets.datalist.items` lists them.
        preprocessing: without random parts.
        store: where the volumes lie.
        reading: the size of the crops that will be taken, or
            :class:`~common.data.store.layout.Reading`; slices when None.
        transform: random parts, of one item.
        keys: entries that hold paths.
        told: what these are, for listings, where the chain alone does not tell.

    Raises:
        DataError: when a case cannot be prepared, or there is no room for it.
    """

    def __init__(
        self,
        data: Sequence[Mapping[Hashable, Any]],
        preprocessing: Callable[..., Any],
        *,
        store: Store,
        reading: Reading | Sequence[int] | int | None = None,
        transform: Callable[..., Any] | None = None,
        keys: Sequence[str] = KEYS,
        told: str = "",
    ) -> None:
        self.data, self.preprocessing, self.store, self.transform = list(data), preprocessing, store, transform
        self.reading = _reading(reading)
        described = {**chain_json(preprocessing), "reading": list(self.reading)}
        self.chain, self.keys = digest(described), tuple(keys)
        sources = store.sources()
        self.spoilt: set[Path] = set()
        self.names = [self.key_of(item, sources) for item in self.data]
        missing = dict.fromkeys(n for n in self.names if store.find(self.chain, n) is None)
        first = dict(zip(reversed(self.names), reversed(self.data), strict=True))
        jobs = [Job(first[n], self.chain, n, sources.size(first[n], keys)) for n in missing]
        sources.save()  # reading all files is remembered, whatever becomes of the rest
        fill(jobs, preprocessing, store, self.reading)
        store.used(self.chain, {**described, "told": told} if told else described)

    def __len__(self) -> int:
        """Number of cases."""
        return len(self.data)

    def key_of(self, item: Mapping[Hashable, Any], sources: Sources) -> str:
        """The name of a case's entry, from the content of its files and all else that its item says."""
        return digest(sources.content(item, self.keys))

    def __getitem__(self, position: int) -> Any:
        """A case, its arrays on disk, after ``transform``."""
        # not its truth value: a Compose asked for its length seeds its parts again
        return self.case(position) if self.transform is None else self.read(position, self.transform)

    def item_of(self, position: int) -> Mapping[Hashable, Any]:
        """A case's own entries: paths, task, modality."""
        return self.data[position]

    def read(self, position: int, read: Callable[[dict[Hashable, Any]], Any]) -> Any:
        """What ``read`` makes of a case; once more when the case proves damaged and was prepared again."""
        try:
            return read(self.case(position))
        except (DamagedEntryError, RuntimeError) as error:
            damage, folder = cause_of(error, DamagedEntryError), self._folder(position)
            if damage is None or (isinstance(damage.where, Path) and not damage.where.is_relative_to(folder)):
                raise  # something else, or of another store, whose cases are read at the same time
            self._spoilt(folder, damage)
            return read(self.case(position))

    def case(self, position: int) -> dict[Hashable, Any]:
        """A case, its arrays on disk; made again when it was damaged or deleted meanwhile."""
        item = self.data[position]
        sources = {str(k): str(item[k]) for k in self.keys if isinstance(item.get(k), (str, Path))}
        for _ in range(3):
            folder = self._folder(position)
            try:
                return read_entry(folder, sources)
            except (DamagedEntryError, FileNotFoundError) as error:
                self._spoilt(folder, error)
        problem = "a prepared volume is damaged again and again"
        hint = "check the disk, or name another --store_dir"
        raise DataError(problem, where=self._folder(position), got=f"case {case_name(item)}", hint=hint)

    def _folder(self, position: int) -> Path:
        """Where a case lies; it is prepared when it is not there."""
        name = self.names[position]
        for _ in range(2):
            folder = self.store.find(self.chain, name, but=self.spoilt)
            if folder is not None:
                return folder
            fill([Job(self.data[position], self.chain, name, 1)], self.preprocessing, self.store, self.reading)
        folders = [place / self.chain / name for place in self.store.readable]
        raise DataError("a prepared volume cannot be found again", where=next(filter(Path.exists, folders), folders[0]),
                        got=f"case {case_name(self.data[position])}",
                        hint="delete that folder, or name another --store_dir")  # fmt: skip

    def _spoilt(self, folder: Path, error: Exception) -> None:
        """Remove a damaged entry, or pass it over where it cannot be removed."""
        logger.warning("preparing a volume again: %s", error)
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            self.spoilt.add(folder)


class WholeCases(StoredCases):
    """The same with whole arrays in memory, for validation: what the chain returns, but for the bits that are lost.

    Args:
        data: as for :class:`StoredCases`.
        preprocessing: as for :class:`StoredCases`.
        without: entries that are not read, such as the positions that training crops around.
        options: the further arguments of :class:`StoredCases`.
    """

    def __init__(
        self,
        data: Sequence[Mapping[Hashable, Any]],
        preprocessing: Callable[..., Any],
        *,
        without: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.without = frozenset(without)
        super().__init__(data, preprocessing, **options)

    def case(self, position: int) -> dict[Hashable, Any]:
        """A case as the chain makes it."""
        return whole({k: v for k, v in super().case(position).items() if k not in self.without})


def whole(case: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """A case with its arrays read from disk."""
    return {k: _read(v) for k, v in case.items()}


def prepared(
    data: Sequence[Mapping[Hashable, Any]],
    preprocessing: Callable[..., Any],
    store: Store | None,
    reading: Reading | Sequence[int] | int | None = None,
) -> Any:
    """Cases on disk; without a store in memory, for a handful of them.

    Args:
        data: dictionaries of files.
        preprocessing: without random parts.
        store: where the volumes lie.
        reading: as for :class:`StoredCases`.
    """
    if store is None:
        return CacheDataset(list(data), preprocessing, num_workers=1, progress=False)
    return StoredCases(data, preprocessing, store=store, reading=reading)


def _read(value: Any) -> Any:
    if isinstance(value, StoredArray):
        return value.whole()
    return {k: _read(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def _reading(given: Reading | Sequence[int] | int | None) -> Reading:
    if isinstance(given, Reading):
        return given
    return Reading() if given is None else Reading.crops(given)
