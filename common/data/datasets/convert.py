"""Other layouts to datasets of ours; scans stay where they are and are referred to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...command_words import shown_option, shown_place
from ...errors import DataError, few
from ...labels import BACKGROUND, LabelSpace
from ...paths import check_new
from ..io import read_volume
from ..pictures import is_picture
from .convert_channels import check_single, scans_of, told_channels
from .convert_seg import seg_cases
from .dataset import Dataset, read_dataset
from .dataset_json import SPLITS, Case, about, channel_names, channel_number, read_json
from .pairs import label_maps, listed, paired
from .splits import hashed_split

__all__ = ["convert_nnunet", "convert_pairs", "split_dataset", "write_collection", "write_dataset", "write_json"]

_IGNORE = "ignore"


def write_json(path: str | Path, data: Mapping[str, Any]) -> Path:
    """Write a JSON object; the file appears under its name only when it is complete."""
    path = check_new(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(data, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot write the file: {error.strerror or error}", where=path) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def write_dataset(dataset: Dataset, folder: str | Path) -> Dataset:
    """Write ``folder/dataset.json`` with paths relative to the folder, and read it back.

    Args:
        dataset: what to write; its files are referred to, not copied.
        folder: where the ``dataset.json`` goes; made when needed.

    Raises:
        DataError: when what was written is no valid dataset; an earlier file is then back in its place.
    """
    folder = check_new(folder, what="folder")
    file = folder / "dataset.json"
    folder.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {
        "name": dataset.name,
        **dataset.about,
        "dim": dataset.dim,
        "modality": {str(i): c for i, c in enumerate(dataset.channels)},
        "labels": dataset.labels.to_json(),
    }
    if not dataset.labels.exclusive:
        data["exclusive"] = False
    for split in SPLITS:
        data[split] = [_entry(case, folder) for case in dataset.splits[split]]
        data[f"num{split.capitalize()}"] = len(data[split])
    before = file.read_bytes() if file.is_file() else None
    write_json(file, data)
    try:
        return read_dataset(folder)
    except DataError:
        if before is None:
            file.unlink()
        else:
            file.write_bytes(before)
        raise


def convert_nnunet(
    raw: str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    rename: Mapping[str, str] | None = None,
    val: float = 0.2,
) -> Dataset:
    """Make a dataset of an nnU-Net raw folder (``dataset.json``, ``imagesTr``, ``labelsTr``, perhaps ``imagesTs``).

    Where its ``dataset.json`` has a key ``dataset``, the cases for training are those that it names, as for nnU-Net.

    Args:
        raw: folder ``DatasetXXX_Name``.
        out: folder of the new dataset.
        name: its name; the raw folder's when None.
        rename: other names of structures and channels, ``{name in the raw folder: name in the dataset}``.
        val: fraction of subjects for validation, by hash.

    Raises:
        DataError: when something is to be renamed that is not there, folders or channel files are missing, a scan of
            ``imagesTr`` has no label map, or the labels tell to ignore voxels.
    """
    raw, name = Path(raw), name or Path(raw).resolve().name
    data = _renamed(read_json(raw / "dataset.json"), rename or {}, raw / "dataset.json")
    channels = check_single(channel_names(data, raw / "dataset.json"), raw / "dataset.json", "rename")
    labels = LabelSpace.from_json(data.get("labels", {}), where=raw / "dataset.json")
    if _IGNORE in labels.names:
        value = dict(zip(labels.names, labels.values, strict=True))[_IGNORE]
        hint = (f"take {_IGNORE!r} out of its labels, and move the cases whose maps hold {value} to another folder or "
                "annotate them: python -m tools data check <dataset> then names those that are left")  # fmt: skip
        problem = "voxels without annotation, nnU-Net's ignore label, cannot be left out"
        raise DataError(problem, hint=hint, where=raw / "dataset.json", got=f'"{_IGNORE}": {value}')
    if "dataset" in data:
        training = listed(data["dataset"], raw, channels)
    else:
        training = paired(raw / "imagesTr", label_maps(raw / "labelsTr"), channels)
    bare = [c.id for c in training if c.label is None]
    if bare:
        raise DataError(
            "scans for training have no label map",
            where=raw / "labelsTr",
            got=f"none of the names {few(bare)}",
            expected=f"one file per case, such as {bare[0]}.nii.gz",
            hint="correct the names, or convert with --labels: python -m tools data convert "
            f"{shown_place(raw / 'imagesTr')} {shown_place(out)} {shown_option('labels', raw / 'labelsTr')}",
        )
    held_maps = label_maps(raw / "labelsTs") if (raw / "labelsTs").is_dir() else {}
    held = paired(raw / "imagesTs", held_maps, channels) if (raw / "imagesTs").is_dir() else []
    trained = {p.resolve() for c in training for p in c.images}
    held = [c for c in held if not trained & {p.resolve() for p in c.images}]
    told = about(data)
    return _with_split(name, Path(out), channels, labels, training, held, val, dim=_dim(training[0]), told=told)


def _renamed(data: dict[str, Any], names: Mapping[str, str], where: Path) -> dict[str, Any]:
    """The description with other names of structures and channels; names that nobody has are refused."""
    used: set[str] = set()

    def other(value: Any) -> Any:
        if isinstance(value, str) and value in names:
            used.add(value)
            return names[value]
        return value

    changed = dict(data)
    for key in ("labels", "channel_names", "modality"):
        if isinstance(data.get(key), Mapping):
            changed[key] = {other(k): other(v) for k, v in data[key].items()}
    unknown = sorted(set(names) - used)
    if unknown:
        got = few([ascii(n) for n in unknown])
        expected = "a name of its labels or channels"
        raise DataError("there is nothing of this name to rename", where=where, got=got, expected=expected)
    return changed


def convert_pairs(
    images: str | Path,
    labels: str | Path,
    out: str | Path,
    *,
    name: str,
    structures: Mapping[str, int] | None = None,
    channels: Sequence[str] | None = None,
    option: str = "channels",
    val: float = 0.2,
) -> Dataset:
    """Make a dataset of a folder of scans and a folder of label maps with the same base names.

    Scans without a label map go to the split ``unlabelled``; label maps that match no scan are logged.

    Args:
        images: files ``<case>.<suffix>``, folders ``<case>`` of DICOM series, or ``<case>_0000`` ... for exactly the
            channels of ``channels``.
        labels: files ``<case>.<suffix>``; endings such as ``_seg`` and ``_mask`` are ignored. DICOM SEGs of series in
            ``images/<case>/`` are written as NIfTI below ``out``.
        out: folder of the new dataset.
        name: its name.
        structures: ``{name: value}``; when None, a SEG's segments, or the values found in the maps, named after the
            data set (``<name> structure v``), so that tasks which nobody named are not taken for one.
        channels: channel names; None takes DICOM's tag, and refuses other scans, which do not say what they are. Of
            a ``dataset.json`` beside the scans and these the more telling names are taken.
        option: by which a user says them, for messages.
        val: fraction of subjects for validation, by hash.

    Raises:
        DataError: when a folder is missing, a case lacks a channel file, no scan has a label map, nobody says what the
            scans are, or DICOM or a ``dataset.json`` beside them says something else.
    """
    maps = label_maps(Path(labels))
    given, channels = channels, ("image",) if channels is None else tuple(channels)
    cases = scans_of(paired(Path(images), maps, channels), given, images)
    training = [c for c in cases if c.label is not None]
    if not training:
        scans, numbered = [c.id for c in cases], any(channel_number(c.images[0]) is not None for c in cases)
        raise DataError(
            "no scan has a label map of its name",
            where=labels,
            got=f"label maps {few([p.name for p in maps.values()])}; scans {few(scans)}",
            expected=f"{scans[0]}.nii.gz or {scans[0]}_seg.nii.gz",
            hint="when _0000, _0001 are channels of one case, name as many: --channels T1,FLAIR" if numbered else None,
        )
    channels = told_channels(given, cases, images, option=option, written=Path(out) / "dataset.json")
    dim = _dim(training[0])
    training, structures = seg_cases(training, out, structures)
    found = structures or _found_structures(training, dim, name)
    space = LabelSpace.from_json({BACKGROUND: 0, **found}, where=labels)
    unlabelled = [c for c in cases if c.label is None]
    return _with_split(name, Path(out), channels, space, training, unlabelled, val, dim=dim)


def split_dataset(path: str | Path, *, val: float = 0.2, test: float = 0.0, out: str | Path | None = None) -> Dataset:
    """Split all labelled cases anew by hashed subject.

    Args:
        path: dataset folder.
        val: fraction of subjects for validation, in [0, 1).
        test: fraction of subjects for testing, in [0, 1).
        out: folder of the new ``dataset.json``; ``path`` itself when None.
    """
    problems: list[DataError] = []
    dataset = read_dataset(path, problems.append)
    fatal = [p for p in problems if "two splits" not in p.problem]
    if fatal:
        raise fatal[0]
    labelled = [c for c in dataset.cases() if c.label is not None]
    splits = _hashed(dataset.name, labelled, {"training": 0.0, "validation": val, "test": test})
    splits["unlabelled"] = tuple(c for c in dataset.cases() if c.label is None)
    return write_dataset(replace(dataset, splits=splits), out or dataset.root)


def write_collection(
    out: str | Path, datasets: Sequence[str | Path], *, name: str | None = None, structures: Sequence[str] = ()
) -> Path:
    """Write ``out/collection.json`` that refers to dataset folders, after reading each of them.

    Args:
        out: folder of the collection.
        datasets: folders.
        name: of the collection; its folder's when None.
        structures: what is learned and no data set annotates.

    Raises:
        DataError: when one cannot be read.
    """
    from .datalist import read_collection

    out = Path(out)
    for folder in datasets:
        read_collection(folder)
    listed = [Path(os.path.relpath(Path(f).resolve(), out.resolve())).as_posix() for f in datasets]
    content: dict[str, Any] = {"name": name or out.resolve().name, "datasets": listed}
    path = write_json(out / "collection.json", {**content, **({"structures": list(structures)} if structures else {})})
    read_collection(out)
    return path


def _entry(case: Case, folder: Path) -> dict[str, Any]:
    images = [_relative(p, folder) for p in case.images]
    entry: dict[str, Any] = {"id": case.id, "image": images[0] if len(images) == 1 else images}
    if case.label is not None:
        entry["label"] = _relative(case.label, folder)
    if case.subject != case.id:
        entry["subject"] = case.subject
    if case.modality is not None:
        entry["modality"] = case.modality
    return entry


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()


def _found_structures(cases: Sequence[Case], dim: int, name: str) -> dict[str, int]:
    values: set[int] = set()
    for case in cases:
        if case.label is not None:
            values |= {int(v) for v in np.unique(read_volume(case.label, dim=dim).numpy())}
    return {f"{name} structure {v}": v for v in sorted(values) if v > 0}


def _dim(case: Case) -> int:
    return 2 if is_picture(case.images[0]) else 3


def _hashed(name: str, cases: Sequence[Case], fractions: dict[str, float]) -> dict[str, tuple[Case, ...]]:
    place = hashed_split(name, (c.subject for c in cases), fractions)
    return {s: tuple(c for c in cases if place[c.subject] == s) for s in fractions}


def _with_split(
    name: str,
    out: Path,
    channels: tuple[str, ...],
    labels: LabelSpace,
    training: Sequence[Case],
    held: Sequence[Case],
    val: float,
    *,
    dim: int,
    told: Mapping[str, str] | None = None,
) -> Dataset:
    """Write a dataset: labelled cases split by hash, further labelled ones for testing, bare ones unlabelled."""
    splits: dict[str, tuple[Case, ...]] = _hashed(name, training, {"training": 0.0, "validation": val})
    splits["test"] = tuple(c for c in held if c.label is not None)
    splits["unlabelled"] = tuple(c for c in held if c.label is None)
    return write_dataset(Dataset(name, out, channels, labels, splits, dim, about=told or {}), out)
