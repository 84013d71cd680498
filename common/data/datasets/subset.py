"""A part of a dataset: some of its structures, some of its cases."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import DataError, few
from ...labels import LabelSpace
from ...literals import file_names
from ...paths import check_new
from .convert import write_dataset
from .datalist import read_collection
from .dataset import Dataset
from .dataset_json import SPLITS, Case
from .merge import relabelled

__all__ = ["subset_dataset"]

_LABELS = "labels"


def subset_dataset(
    source: str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    structures: Sequence[str] | None = None,
    cases: Sequence[str] | None = None,
    splits: Mapping[str, str] | None = None,
) -> Dataset:
    """Write a dataset of a part of another: images are referred to, label maps with fewer structures written anew.

    What is left out is background, and the structures that are kept are numbered from 1 in the order of their values. A
    label map without any of them is kept: it says that they are not there.

    Args:
        source: dataset folder.
        out: folder of the new one; label maps go to ``out/labels``.
        name: its name; the folder's when None.
        structures: names of those that are kept; all when None.
        cases: ids of those that are kept; all when None.
        splits: ``{split: split that its cases go to}``; where none is left for validation, a fifth of those for
            training is, as in every dataset without such a list.

    Raises:
        DataError: for a collection of several tasks, names that are not there, with those nearest to them, or a folder
            that holds a dataset already, or is the source's own.
        LabelError: for a label map with values that the source does not declare.
    """
    dataset, out = _only(source), Path(out)
    kept = _chosen("structures", structures, dataset.labels.names, dataset.root)
    ids = _chosen("cases", cases, [c.id for c in dataset.cases()], dataset.root)
    moved = dict(splits or {})
    _chosen("splits", [*moved, *moved.values()], SPLITS, dataset.root)
    labels = dataset.labels if kept == dataset.labels.names else dataset.labels.subset(kept)
    _check_target(dataset, out)
    parts: dict[str, list[Case]] = {s: [] for s in SPLITS}
    for split in SPLITS:
        own = [c for c in dataset.splits[split] if c.id in ids]
        parts[moved.get(split, split)] += own if labels is dataset.labels else _relabelled(own, dataset, labels, out)
    chosen = {s: tuple(found) for s, found in parts.items()}
    return write_dataset(replace(dataset, name=name or out.resolve().name, labels=labels, splits=chosen), out)


def _only(source: str | Path) -> Dataset:
    """The dataset of a folder; of a collection with one task, that one."""
    found = read_collection(source).datasets
    if len(found) > 1:
        raise DataError("a part is taken of one dataset, and this is a collection", where=source,
                        got=few([d.name for d in found]), expected="one of its datasets",
                        hint=f"give the folder of one: {few([str(d.root) for d in found])}")  # fmt: skip
    return found[0]


def _chosen(what: str, wanted: Iterable[str] | None, known: Sequence[str], where: Path) -> tuple[str, ...]:
    """Those of the known names that are wanted, in their order; the others are refused with what is like them."""
    if wanted is None:
        return tuple(known)
    names = [str(n) for n in wanted]
    unknown = [n for n in dict.fromkeys(names) if n not in known]
    if unknown:
        folded = {k.casefold(): k for k in known}
        close = [folded[c] for n in unknown for c in difflib.get_close_matches(n.casefold(), folded, n=3, cutoff=0.5)]
        near = f"the nearest: {', '.join(dict.fromkeys(close))}" if close else None
        raise DataError(f"the dataset has no such {what}", where=where, got=few([ascii(n)[1:-1] for n in unknown]),
                        expected=few(list(known)), hint=near)  # fmt: skip
    if not names and what != "splits":
        raise DataError(f"no {what} are left", where=where, expected=few(list(known)))
    return tuple(n for n in known if n in names)


def _check_target(dataset: Dataset, out: Path) -> None:
    """Refuse a folder where something would be written over."""
    if (check_new(out, what="folder") / "dataset.json").exists():
        raise DataError("the folder holds a dataset already", where=out, hint="give the new one a folder of its own")
    mine = {out.resolve(), (out / _LABELS).resolve()}
    own = {dataset.root.resolve(), *(c.label.parent.resolve() for c in dataset.cases() if c.label is not None)}
    if mine & own:
        raise DataError("the new dataset would lie among the files of the old one", where=out,
                        got=few([str(p) for p in mine & own]), hint="give it a folder of its own")  # fmt: skip


def _relabelled(cases: Iterable[Case], dataset: Dataset, labels: LabelSpace, out: Path) -> list[Case]:
    suffix = ".png" if dataset.dim == 2 else ".nii.gz"
    names, found = file_names(c.id for c in dataset.cases()), []
    for case in cases:
        path = None if case.label is None else out / _LABELS / f"{names[case.id]}{suffix}"
        found.append(case if path is None else replace(case, label=relabelled(case, dataset, labels, path)))
    return found
