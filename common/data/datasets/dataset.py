"""One dataset: a folder with a ``dataset.json``, one task, one label space."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import DataError, LabelError, few
from ...labels import LabelSpace
from ...literals import check_name, odd_in, same_on_disk
from ...paths import check_path
from .dataset_json import SPLITS, Case, about, channel_names, read_case, read_json
from .splits import hashed_split

__all__ = ["PHANTOM_HINT", "Dataset", "read_dataset"]

PHANTOM_HINT = "make the synthetic collection with: python -m tools phantom"
_SPELLINGS = {
    "training": ("training", "train"),
    "validation": ("validation", "val"),
    "test": ("test", "testing"),
    "unlabelled": ("unlabelled", "unlabeled"),
}
_VALIDATION_FRACTION = 0.2


@dataclass(frozen=True)
class Dataset:
    """The cases of one task.

    Args:
        name: the task's name.
        root: folder with the ``dataset.json``.
        channels: channel names in order.
        labels: names and file values of the annotated structures.
        splits: cases of ``training``, ``validation``, ``test`` and ``unlabelled``.
        dim: 2 or 3 spatial dimensions.
        modality: of the cases that name none of their own; the channels when empty.
        about: further text of the ``dataset.json``: licence, description, reference and the like.
    """

    name: str
    root: Path
    channels: tuple[str, ...]
    labels: LabelSpace
    splits: Mapping[str, tuple[Case, ...]]
    dim: int = 3
    modality: str = ""
    about: Mapping[str, str] = field(default_factory=dict)

    def modality_of(self, case: Case) -> str:
        """The name of a case's modality."""
        return case.modality or self.modality or " + ".join(self.channels)

    def cases(self, split: str | None = None) -> tuple[Case, ...]:
        """Cases of one split, or of all."""
        return self.splits[_split(split)] if split else tuple(c for s in SPLITS for c in self.splits[s])


def read_dataset(path: str | Path, report: Callable[[DataError], None] | None = None) -> Dataset:
    """Read a folder with an MSD-style ``dataset.json`` (or that file itself).

    Without a validation list a fifth of the training subjects is taken by hash (:func:`.splits.hashed_split`).

    Args:
        path: folder or file.
        report: receives the problems of single entries, which are then left out, instead of raising them.

    Raises:
        DataError: when the file is missing or malformed, ids repeat or a subject is in two splits.
    """
    path = check_path(path, what="data folder")
    file = path if path.is_file() else path / "dataset.json"
    if not file.is_file():
        raise DataError("no dataset here", where=path, expected=f"a file {file.name}", hint=PHANTOM_HINT)
    data, root = read_json(file), file.parent
    given, folder = data.get("name"), root.resolve().name
    if given in (None, "") and odd_in(folder):
        hint = 'give the task a name there: "name": "liver_ct"'
        raise DataError("the folder's name cannot be that of its task", where=file, got=ascii(folder), hint=hint)
    name = check_name(folder if given in (None, "") else given, "task", where=file)
    if not isinstance(data.get("labels"), Mapping):
        raise LabelError("the dataset names no labels", where=file, expected='"labels": {"background": 0, "liver": 1}')
    labels = LabelSpace.from_json(data["labels"], where=file, exclusive=data.get("exclusive", True))
    dim = data.get("dim", 3)
    if isinstance(dim, bool) or dim not in (2, 3):
        raise DataError("a dataset has 2 or 3 dimensions", where=file, got=f'"dim": {dim!a:.50}', expected="2 or 3")
    names = channel_names(data, file)
    report = report or _raise
    splits = {s: _read_split(data, s, root, names, f"dataset {name}, {s}", report) for s in SPLITS}
    if not any(splits.values()):
        raise DataError(
            "the dataset lists no cases",
            where=file,
            expected="training, validation, test or unlabelled lists",
            hint="an nnU-Net raw folder or plain folders become a dataset with: python -m tools data convert",
        )
    if not splits["validation"]:
        splits = _with_hashed_validation(name, splits)
    dataset = Dataset(name, root, names, labels, splits, dim, about=about(data))
    _report_joined(dataset, file, report)
    _report_repeats(dataset, file, report)
    _report_leakage(dataset, file, report)
    return dataset


def _report_joined(dataset: Dataset, file: Path, report: Callable[[DataError], None]) -> None:
    """A channel with several names is one whose cases differ, as ``data merge`` writes it: each says what it is."""
    joined = [name for name in dataset.channels if " | " in name]
    bare = [case.id for case in dataset.cases() if case.modality is None] if joined else []
    if bare:
        report(DataError("a channel has several names, joined by '|', and cases do not say which they are", where=file,
                         got=f"{joined[0]!a}; {few(bare)}", expected='one name, or "modality" in each entry',
                         hint="call it by one name there, or write the modality into each case's entry"))  # fmt: skip


def _split(name: str) -> str:
    for split, spellings in _SPELLINGS.items():
        if name in spellings:
            return split
    raise DataError("no such split", got=name, expected=", ".join(SPLITS))


def _raise(error: DataError) -> None:
    raise error


def _read_split(
    data: Mapping[str, Any],
    split: str,
    root: Path,
    names: tuple[str, ...],
    where: str,
    report: Callable[[DataError], None],
) -> tuple[Case, ...]:
    entries: Any = next((data[k] for k in _SPELLINGS[split] if k in data), [])
    if not isinstance(entries, list):
        raise DataError("a split must be a list", where=where, got=type(entries).__name__)
    cases = []
    for entry in entries:
        try:
            case = read_case(entry, root, names, where)
        except DataError as error:
            report(error)
            continue
        if case.label is None and split in ("training", "validation"):
            hint = 'move it to the list "unlabelled"'
            report(
                DataError("no label map", where=f"{where}, case {case.id}", expected='a "label" per case', hint=hint)
            )
        cases.append(case)
    return tuple(cases)


def _with_hashed_validation(name: str, splits: Mapping[str, tuple[Case, ...]]) -> dict[str, tuple[Case, ...]]:
    fractions = {"training": 0.0, "validation": _VALIDATION_FRACTION}
    place = hashed_split(name, (c.subject for c in splits["training"]), fractions)
    chosen = {s: tuple(c for c in splits["training"] if place[c.subject] == s) for s in fractions}
    return {**splits, **chosen}


def _report_repeats(dataset: Dataset, file: Path, report: Callable[[DataError], None]) -> None:
    for case_id, count in Counter(c.id for c in dataset.cases()).items():
        if count > 1:
            report(
                DataError(
                    "a case id repeats (predictions would overwrite each other)",
                    where=f"{file}, case {case_id}",
                    got=f"{count} entries",
                    hint='give every entry its own "id"',
                )
            )

    for group in same_on_disk(c.id for c in dataset.cases()):
        report(
            DataError(
                "case ids differ in capitals, in the spelling of one sign or in a last dot alone (on some disks"
                " predictions would overwrite each other)",
                where=f"{file}, case {group[-1]}",
                got=few([ascii(name) for name in group]),
                hint='give every entry its own "id"',
            )
        )


def _report_leakage(dataset: Dataset, file: Path, report: Callable[[DataError], None]) -> None:
    split_of: dict[str, str] = {}
    for split in SPLITS:
        for case in dataset.splits[split]:
            if split_of.setdefault(case.subject, split) != split:
                report(
                    DataError(
                        "a subject is in two splits, so that the evaluation would be on training data",
                        where=f"{file}, case {case.id}",
                        got=f"subject {case.subject} in {split_of[case.subject]} and {split}",
                        hint="split anew by subject with: python -m tools data split",
                    )
                )
