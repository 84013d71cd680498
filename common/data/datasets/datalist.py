"""Datasets (one task each) and collections (several tasks with one united label space)."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import DataError, LabelError, few
from ...labels import LabelSpace, union
from ...literals import check_name, same_on_disk
from ...paths import check_path, is_path, is_there
from .dataset import PHANTOM_HINT, Dataset, read_dataset
from .dataset_json import read_json

__all__ = [
    "Collection",
    "channels",
    "items",
    "label_space",
    "modalities",
    "places",
    "read_collection",
    "structures",
    "task_channels",
    "task_modalities",
    "tasks",
]

DEEPEST = 20


@dataclass(frozen=True)
class Collection:
    """Several datasets on which one network is trained.

    Args:
        name: of the collection.
        root: its folder.
        datasets: one per task.
        further: structures that the network learns and no task annotates: experts know them.
    """

    name: str
    root: Path
    datasets: tuple[Dataset, ...]
    further: tuple[str, ...] = ()

    @property
    def labels(self) -> LabelSpace:
        """Union of the datasets' label spaces, matched by name, and the structures that only experts know."""
        spaces = [d.labels for d in self.datasets]
        spaces += [LabelSpace(self.further, exclusive=spaces[0].exclusive)] if self.further else []
        return union(*spaces)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the datasets, in order; a task's id is its position."""
        return tuple(d.name for d in self.datasets)

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names, position by position; names that differ between datasets are joined by `` | ``."""
        columns = zip(*(d.channels for d in self.datasets), strict=True)
        return tuple(" | ".join(dict.fromkeys(column)) for column in columns)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that can be trained on, in order of the datasets; a modality's id is its position."""
        splits = ("training", "unlabelled")
        return tuple(dict.fromkeys(d.modality_of(c) for d in self.datasets for s in splits for c in d.cases(s)))

    def dataset(self, name: str) -> Dataset:
        """The dataset of a task.

        Raises:
            DataError: when there is none of that name.
        """
        for dataset in self.datasets:
            if dataset.name == name:
                return dataset
        close = difflib.get_close_matches(name, self.tasks, n=1)
        raise DataError(
            f"the collection has no task {name!r}",
            where=self.root,
            got=name,
            expected=", ".join(self.tasks),
            hint=f"did you mean {close[0]!r}?" if close else None,
        )


def read_collection(path: str | Path | Sequence[str | Path] | Collection) -> Collection:
    """Read one or several datasets as a collection.

    Args:
        path: a folder with ``dataset.json`` (collection of one), a folder of such folders, a folder with (or a file)
            ``collection.json`` ``{"name", "datasets": [paths], "tasks": {name: {"labels": {name: new name},
            "modality": new name}}, "structures": [names that experts know and no task annotates]}``, a list of folders,
            or the same separated by commas. ``<path>::<task>`` is that task of a collection alone, with the names that
            the collection gives it. What is there as it stands, commas and all, is not taken apart; nor are the entries
            of a list.

    Raises:
        DataError: when there is nothing to read, names repeat or channel counts differ.
    """
    if isinstance(path, int):
        path = str(path)  # what a command line makes of a folder called 2024
    return path if isinstance(path, Collection) else _read(path)


def _read(path: str | Path | Sequence[str | Path], within: tuple[Path, ...] = ()) -> Collection:
    """As :func:`read_collection`, for what the listings ``within``, outer first, name."""
    if isinstance(path, str):
        path = places(path)
    if not isinstance(path, (str, Path)):
        found = [d for p in path for d in (p.datasets if isinstance(p, Collection) else _read(Path(str(p))).datasets)]
        return _collection("+".join(d.name for d in found), Path(str(path[0])).parent if path else Path(), found)
    path = check_path(path, what="data folder", where=within[-1] if within else None)
    place, sign, task = str(path).rpartition("::")
    if sign and not path.exists():
        whole = _read(Path(place), within)
        return _collection(whole.name, whole.root, [whole.dataset(task)])
    if not path.exists():
        raise DataError("the data folder does not exist", where=path, hint=PHANTOM_HINT)
    listing = path if path.is_file() else path / "collection.json"
    if (path.name == "dataset.json" and path.is_file()) or (path / "dataset.json").is_file():
        dataset = read_dataset(path)
        return _collection(dataset.name, dataset.root, [dataset])
    if listing.is_file():
        return _read_listing(listing, within)
    folders = sorted(p.parent for p in path.glob("*/dataset.json"))
    if not folders:
        raise DataError(
            "no dataset here",
            where=path,
            expected="a dataset.json, a collection.json, or folders that hold a dataset.json",
            hint=PHANTOM_HINT,
        )
    return _collection(path.resolve().name, path, [read_dataset(f) for f in folders])


def places(text: str) -> Path | list[Path]:
    """The place that a text names, or those that it names with commas between them.

    Raises:
        DataError: when the text stands for a task of a collection that cannot be read.
    """
    whole = Path(text)
    place, sign, task = text.rpartition("::")
    if "," not in text or is_there(whole):
        return whole
    if sign and is_there(place) and ("," not in task or task in _read(Path(place)).tasks):
        return whole
    return [Path(p.strip()) for p in text.split(",") if p.strip()]


def items(
    dataset_dir: str | Path | Sequence[str | Path] | Collection,
    split: str,
    tasks: str | Sequence[str] | None = None,
    limit: int | None = None,
    modality: str | None = None,
) -> list[dict[str, Any]]:
    """The dictionaries that MONAI datasets take: ``{"image", "label", "case", "task", "modality"}``, paths as strings.

    Args:
        dataset_dir: anything that :func:`read_collection` reads.
        split: ``training``, ``validation``, ``test`` or ``unlabelled``.
        tasks: names of the tasks to keep (one name, several, or comma separated); all when None.
        limit: at most this many cases per task.
        modality: keep the cases of this modality only; all when None.

    Raises:
        DataError: for a task or a modality that the collection does not have.
    """
    collection = read_collection(dataset_dir)
    if modality is not None and modality not in collection.modalities:
        expected = ", ".join(collection.modalities)
        raise DataError("the collection has no such modality", where=collection.root, got=modality, expected=expected)
    if isinstance(tasks, str):
        tasks = [tasks] if tasks in collection.tasks else [t.strip() for t in tasks.split(",")]
    wanted = tasks
    result: list[dict[str, Any]] = []
    for dataset in collection.datasets if wanted is None else [collection.dataset(t) for t in wanted]:
        own = [c for c in dataset.cases(split) if modality in (None, dataset.modality_of(c))]
        for case in own[:limit]:
            image = [str(p) for p in case.images]
            entry: dict[str, Any] = {"image": image[0] if len(image) == 1 else image}
            if case.label is not None:
                entry["label"] = str(case.label)
            result.append({**entry, "case": case.id, "task": dataset.name, "modality": dataset.modality_of(case)})
    return result


def label_space(dataset_dir: str | Path | Sequence[str | Path] | Collection) -> LabelSpace:
    """The united label space of a collection."""
    return read_collection(dataset_dir).labels


def structures(dataset_dir: str | Path | Sequence[str | Path] | Collection) -> dict[str, tuple[str, ...]]:
    """The structures that each task of a collection annotates, by name."""
    return {d.name: d.labels.names for d in read_collection(dataset_dir).datasets}


def tasks(dataset_dir: str | Path | Sequence[str | Path] | Collection) -> tuple[str, ...]:
    """The names of a collection's tasks."""
    return read_collection(dataset_dir).tasks


def modalities(dataset_dir: str | Path | Sequence[str | Path] | Collection) -> tuple[str, ...]:
    """The names of a collection's modalities."""
    return read_collection(dataset_dir).modalities


def channels(dataset_dir: str | Path | Sequence[str | Path] | Collection) -> tuple[str, ...]:
    """The channel names of a collection."""
    return read_collection(dataset_dir).channels


def task_channels(dataset_dir: str | Path | Sequence[str | Path] | Collection) -> dict[str, tuple[str, ...]]:
    """The channel names of each task of a collection."""
    return {d.name: d.channels for d in read_collection(dataset_dir).datasets}


def task_modalities(dataset_dir: str | Path | Sequence[str | Path] | Collection) -> dict[str, tuple[str, ...]]:
    """The names of the modalities that each task's cases are of."""
    collection = read_collection(dataset_dir)
    return {d.name: tuple(dict.fromkeys(map(d.modality_of, d.cases()))) for d in collection.datasets}


def _read_listing(file: Path, within: tuple[Path, ...]) -> Collection:
    data = read_json(file)
    folders = data.get("datasets")
    if not isinstance(folders, list) or not folders or not all(is_path(f) for f in folders):
        got = f'"datasets": {folders!a:.100}'
        raise DataError("the collection lists no datasets", where=file, got=got, expected='"datasets": [folders]')
    inside = (*within, file.resolve())
    if file.resolve() in within or len(inside) > DEEPEST:
        problem = "a collection lists itself"
        expected = "folders of data sets"
        raise DataError(problem, where=file, got=" > ".join(str(p.parent) for p in inside[:5]), expected=expected)
    datasets = [d for f in folders for d in _read(file.parent / f, inside).datasets]
    options = _options(data.get("tasks"), datasets, file)
    renamed = [_renamed(d, options.get(d.name, {}).get("labels", {}), file) for d in datasets]
    renamed = [replace(d, modality=options.get(d.name, {}).get("modality", d.modality)) for d in renamed]
    title = data.get("name")
    told = file.parent.resolve().name if title is None else check_name(title, "collection", where=file)
    return replace(_collection(told, file.parent, renamed), further=_further(data.get("structures"), file))


def _further(given: Any, file: Path) -> tuple[str, ...]:
    """The entry ``structures`` of a listing: what experts know beyond the tasks."""
    if given is not None and not (isinstance(given, list) and given):
        raise DataError("the further structures are a list of names", where=file, got=f"{given!a:.100}",
                        expected='"structures": ["femur"]')  # fmt: skip
    names = tuple(check_name(n, "structure", where=file) for n in given or ())
    if len(set(names)) < len(names):
        raise DataError("a further structure is named twice", where=file, got=few(names))
    return names


def _options(given: Any, datasets: Sequence[Dataset], file: Path) -> dict[str, dict[str, Any]]:
    """The entry ``tasks`` of a listing, every name in it checked."""
    expected = '"tasks": {"liver_ct": {"labels": {"old name": "new name"}, "modality": "CT"}}'
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise DataError("the options of tasks are a mapping", where=file, got=f"{given!a:.100}", expected=expected)
    unknown = set(given) - {d.name for d in datasets}
    if unknown:
        raise DataError(
            "options for unknown tasks", where=file, got=sorted(unknown), expected=[d.name for d in datasets]
        )
    for task, option in given.items():
        where = f"{file}, task {task}"
        names = option.get("labels", {}) if isinstance(option, dict) else None
        if not isinstance(names, dict) or set(option) - {"labels", "modality"}:
            raise DataError(
                "the options of a task cannot be read", where=where, got=f"{option!a:.100}", expected=expected
            )
        for new in names.values():
            check_name(new, "structure", where=where)
        if "modality" in option:
            check_name(option["modality"], "modality", where=where, error=DataError)
    return given


def _renamed(dataset: Dataset, names: Mapping[str, str], file: Path) -> Dataset:
    for name in names:
        if name not in dataset.labels.names:
            raise LabelError(
                "a renamed structure does not exist",
                where=f"{file}, task {dataset.name}",
                got=name,
                expected=", ".join(dataset.labels.names),
            )
    labels = dataset.labels
    new = LabelSpace.of(tuple(names.get(n, n) for n in labels.names), labels.values, exclusive=labels.exclusive,
                        where=f"{file}, task {dataset.name}")  # fmt: skip
    return replace(dataset, labels=new)


def _collection(name: str, root: Path, datasets: Sequence[Dataset]) -> Collection:
    repeated = [n for n, count in Counter(d.name for d in datasets).items() if count > 1]
    if repeated:
        raise DataError("two datasets have one name", where=root, got=", ".join(repeated), hint='change "name"')
    alike = same_on_disk(d.name for d in datasets)
    if alike:
        raise DataError("names of datasets differ in capitals or in the spelling of one sign alone, and on some disks "
                        "their results would overwrite each other", where=root, got=few([ascii(n) for n in alike[0]]),
                        hint='change "name" in a dataset.json')  # fmt: skip
    if not datasets:
        raise DataError("the collection is empty", where=root, hint=PHANTOM_HINT)
    counts = {d.name: len(d.channels) for d in datasets}
    dims = {d.name: d.dim for d in datasets}
    if len(set(counts.values())) > 1:
        got = "; ".join(f"{d.name}: {', '.join(d.channels)}" for d in datasets)
        raise DataError("the datasets have different numbers of channels", where=root, got=got)
    if len(set(dims.values())) > 1:
        raise DataError("2-D and 3-D datasets cannot be in one collection", where=root, got=dims)
    return Collection(name, root, tuple(datasets))
