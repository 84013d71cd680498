"""Several datasets as one, with structures matched by name."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import ConfigError, DataError, LabelError
from ...geometry import Grid
from ...labels import LabelSpace, union
from ..io import read_volume, write_label_map
from .convert import write_dataset
from .datalist import read_collection
from .dataset import Dataset
from .dataset_json import SPLITS, Case
from .naming import check_names

__all__ = ["merge_datasets", "relabelled"]

logger = logging.getLogger(__name__)


def merge_datasets(
    datasets: Sequence[str | Path], out: str | Path, *, name: str, names: str = "intersection"
) -> Dataset:
    """Write one dataset of the cases of several: images are referred to, label maps are rewritten to new values.

    With ``names="intersection"`` only the structures that every dataset annotates remain, so that each case is fully
    annotated. ``"union"`` keeps all: a structure that a dataset does not annotate is background there, which is right
    only where it is truly absent; a collection says so honestly instead. Names that may mean different things are told.

    Args:
        datasets: dataset or collection folders.
        out: folder of the new dataset; label maps go to ``out/labels``.
        name: its name.
        names: ``"intersection"`` or ``"union"``.

    Raises:
        ConfigError: for another value of ``names``.
        DataError: when channels or dimensions differ, or data sets share a name of a structure that nobody gave.
        LabelError: when no structure is shared.
    """
    if names not in ("intersection", "union"):
        raise ConfigError("names must be 'intersection' or 'union'", got=names)
    collection = read_collection([str(d) for d in datasets])
    parts = collection.datasets
    for sentence in check_names(collection, override=""):
        logger.warning(sentence)
    labels = _common_space([p.labels for p in parts], names)
    out = Path(out)
    splits: dict[str, list[Case]] = {s: [] for s in SPLITS}
    for part in parts:
        for split in SPLITS:
            splits[split] += [_rewritten(c, part, labels, out / "labels" / part.name) for c in part.splits[split]]
    _refuse_shared_ids(splits, out)
    merged = {s: tuple(cases) for s, cases in splits.items()}
    return write_dataset(Dataset(name, out, collection.channels, labels, merged, parts[0].dim), out)


def _common_space(spaces: Sequence[LabelSpace], names: str) -> LabelSpace:
    whole = union(*spaces)
    if names == "union":
        return whole
    shared = [n for n in whole.names if all(n in s.names for s in spaces)]
    if not shared:
        raise LabelError(
            "the datasets share no structure",
            got="; ".join(", ".join(s.names) for s in spaces),
            hint="use --names union, or a collection",
        )
    return whole.subset(shared)


def _rewritten(case: Case, part: Dataset, labels: LabelSpace, folder: Path) -> Case:
    modality = part.modality_of(case)
    case = replace(case, id=f"{part.name}_{case.id}", subject=f"{part.name}_{case.subject}", modality=modality)
    if case.label is None:
        return case
    path = folder / f"{case.id}{'.png' if part.dim == 2 else '.nii.gz'}"
    return replace(case, label=relabelled(case, part, labels, path))


def relabelled(case: Case, part: Dataset, labels: LabelSpace, path: Path) -> Path:
    """Write a case's label map with other values: 1 to K of ``labels``; what these do not have is background.

    Args:
        case: with a label map.
        part: its dataset.
        labels: the structures that are kept.
        path: of the new file.

    Raises:
        LabelError: for values that the dataset does not declare.
    """
    label = read_volume(str(case.label), dim=part.dim)
    table = {v: labels.index(n) if n in labels.names else 0 for n, v in zip(part.labels.names, part.labels.values)}
    values = label.numpy()[0]
    unknown = sorted(set(np.unique(values).tolist()) - {0, *table})
    if unknown:
        raise LabelError("undeclared label values", where=case.label, got=unknown[:6], expected=part.labels.to_json())
    new = np.zeros(values.shape, dtype=np.uint8 if len(labels) < 256 else np.uint16)
    for old, index in table.items():
        new[values == old] = index
    return write_label_map(new, Grid.of(label), path, str(new.dtype))


def _refuse_shared_ids(splits: dict[str, list[Case]], out: Path) -> None:
    ids = [c.id for cases in splits.values() for c in cases]
    repeated = sorted({i for i in ids if ids.count(i) > 1})
    if repeated:
        raise DataError("case ids repeat after merging", where=out, got=", ".join(repeated[:5]))
