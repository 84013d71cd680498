"""What a training set is: modalities, intensities, spacing, what it teaches, licences and hashes of its cases."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import nibabel
import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from ..atomic import atomic_write
from ..errors import AmalgamationError
from ..geometry import Grid
from ..intensity_range import Range, range_of
from ..modalities import kind_of
from ..name_words import meant_together
from ..paths import is_there
from ..synonyms import says_same
from .datasets.datalist import Collection, read_collection
from .datasets.dataset import Dataset
from .datasets.dataset_json import SPLITS, Case, read_json
from .datasets.known_cases import case_hash
from .datasets.naming import check_names, name_doubts
from .datasets.verify_contents import other_than_called
from .io import read_volume
from .slices.unlabelled import is_collection, unlabelled_images

__all__ = ["doubted", "survey"]

logger = logging.getLogger(__name__)

FILE = "contract.json"
_FORMAT = 1
_READ = 2  # what is kept in a run's folder was found in this way
_SCANS = 10
_HASHED = 1000
_VOXELS = 20_000
_LABELS = 200
_Any = TypeVar("_Any")


class _Member(NamedTuple):
    task: str
    modality: str
    channels: tuple[str, ...]
    images: tuple[Path, ...]
    dim: int


def survey(
    dataset_dir: str | Path | Sequence[str | Path] | Collection,
    *,
    splits: Sequence[str] = ("training",),
    modality: str | None = None,
    taught: bool | Mapping[str, Sequence[str]] = True,
    structures: Sequence[str] | None = None,
    folder: str | Path | None = None,
    scans: int = _SCANS,
    ignore_card: bool = False,
) -> dict[str, Any]:
    """Describe what a model learns from, in plain values for its card.

    Nothing here is random, and no generator is touched: a run that is continued has the same numbers. Of each modality
    ``scans`` scans are read, evenly spread over the sorted names; a scan that cannot be read is left to the training.

    Args:
        dataset_dir: anything that ``read_collection`` reads, or a plain folder of images with ``modality``.
        splits: what the training learns from.
        modality: it learns from this one only.
        taught: whether label maps are learned from; or what is learned, by modality, where not label maps alone teach.
        structures: the structures that are learned, where it is not all.
        folder: the run's folder; what was found is kept there as ``contract.json`` while the data do not change.
        scans: how many scans of each modality are read.
        ignore_card: go on where names contradict each other; the sentences that say so are kept as ``ignored``, which
            is there, and perhaps empty, wherever this was asked.

    Returns:
        ``{"format", "modalities": {name: {"kind", "channels", "dim", "scans", "intensities", "spacing",
        "orientation"}},
        "taught": {name: [structures]}, "data": [{"name", "cases": {split: {"number", "sha256", "hashes"}}, ...}]}``.
        Intensities are of voxels that are not 0: ``mean``, ``std``, ``min``, ``max``, ``percentile_00_5``,
        ``percentile_50``, ``percentile_99_5``; ``lows`` and ``highs`` are the extremes over scans of the 0.5th and
        99.5th percentile of all voxels. Spacing (mm) has ``median``, ``lowest`` and ``highest`` per axis on disk.
        A modality of other channels in two tasks has ``taught`` of its own: ``[{"channels", "structures"}, ...]``.

    Raises:
        DataError: for data whose names contradict each other, see :func:`doubted`.
    """
    plain = not isinstance(dataset_dir, Collection) and not is_collection(dataset_dir)
    datasets = () if plain else read_collection(dataset_dir).datasets
    ignored = doubted(dataset_dir, ignore=ignore_card)
    if plain:
        members = _plain_members(Path(str(dataset_dir)), modality)
    else:
        members = [m for d in datasets for s in splits for m in _members(d, d.cases(s), modality)]
    told = taught if isinstance(taught, bool) else {str(m): list(names) for m, names in taught.items()}
    options = [_FORMAT, _READ, "label maps", list(splits), modality, told, list(structures or ()), scans, *ignored]
    options += ["ignore card"] if ignore_card else []
    key = _key(options, datasets, members)
    kept = _kept(folder, key)
    if kept is not None:
        return kept
    logger.info("looking at the training data once: %d cases", len(members))
    found: dict[str, Any] = {"format": _FORMAT, "modalities": _modalities(members, scans)}
    if isinstance(told, dict):
        found["taught"] = told
    elif told:
        found["taught"], apart = _taught(datasets, splits, modality, structures)
        for name, parts in apart.items():
            found["modalities"][name]["taught"] = parts
    if ignored or ignore_card:
        found["ignored"] = ignored
    found["data"] = [_described(d) for d in datasets] if datasets else [_plain_described(members)]
    if folder is not None and Path(folder).is_dir():
        with atomic_write(Path(folder) / FILE) as temporary:
            temporary.write_text(json.dumps({"key": key, "contract": found}, indent=1) + "\n", encoding="utf-8")
    return found


def doubted(dataset_dir: str | Path | Sequence[str | Path] | Collection, *, ignore: bool = False) -> list[str]:
    """Warn of names that may not mean what they seem to, and say which contradictions are ignored.

    Args:
        dataset_dir: as of :func:`survey`.
        ignore: go on where names contradict each other.

    Raises:
        DataError: when they do: channels in other orders, a modality that is none of what its channels are, a name of
            several tasks that nobody gave.
    """
    if not isinstance(dataset_dir, Collection) and not is_collection(dataset_dir):
        return []
    collection = read_collection(dataset_dir)
    doubts = name_doubts(collection.datasets)
    for sentence in check_names(collection, doubts, ignore=ignore):
        logger.warning(sentence)
    serious = [d for d in doubts if d.severity == "error"]
    return [f"{', '.join(d.tasks)}: {d.problem}: {d.got}" for d in serious]


def _members(dataset: Dataset, cases: Iterable[Case], modality: str | None) -> list[_Member]:
    return [
        _Member(dataset.name, dataset.modality_of(c), dataset.channels, c.images, dataset.dim)
        for c in cases
        if modality in (None, dataset.modality_of(c))
    ]


def _plain_members(folder: Path, modality: str | None) -> list[_Member]:
    window = (-1000.0, 1000.0)  # only what lies there is asked for
    images = unlabelled_images(folder, modality=modality, ct_window=window)
    return [_Member(folder.name, i["modality"], images.channels, (Path(i["image"]),), images.dim) for i in images.items]


def _key(options: Sequence[Any], datasets: Sequence[Dataset], members: Sequence[_Member]) -> str:
    text = [json.dumps(options)]
    text += [repr((d.name, d.channels, d.labels, d.modality, sorted(d.about.items()))) for d in datasets]
    text += [f"{s} {c.modality} {c.label is None} {c.images}" for d in datasets for s in SPLITS for c in d.cases(s)]
    files = {p for d in datasets for c in d.cases() for p in c.images} | {p for m in members for p in m.images}
    files |= {c.label for d in datasets for c in d.cases() if c.label is not None}
    for path in sorted(files):
        state = path.stat() if is_there(path) else None
        text.append(f"{os.path.realpath(path)} {state and (state.st_size, state.st_mtime_ns)}")
    return hashlib.sha256("\n".join(text).encode("utf-8", "surrogateescape")).hexdigest()


def _kept(folder: str | Path | None, key: str) -> dict[str, Any] | None:
    file = Path(folder) / FILE if folder is not None else None
    if file is None or not file.is_file():
        return None
    try:
        data = read_json(file)
    except AmalgamationError:
        return None
    found = data.get("contract")
    return found if data.get("key") == key and isinstance(found, dict) else None


def _modalities(members: Sequence[_Member], scans: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in dict.fromkeys(m.modality for m in members):
        own = sorted((m for m in members if m.modality == name), key=lambda m: [str(p) for p in m.images])
        width = len(own[0].channels)
        columns = zip(*dict.fromkeys(m.channels for m in own if len(m.channels) == width), strict=True)
        channels = [" | ".join(dict.fromkeys(c)) for c in columns]
        kind = kind_of(name) or (kind_of(channels[0]) if width == 1 else "")
        both = [(m, image) for m in _spread(own, scans) if (image := _read(m)) is not None]
        for sentence in other_than_called(name, [(m.task, m.channels, m.images, image) for m, image in both]):
            logger.warning("%s; what learns from them lets others like them pass (data check names all)", sentence)
        read = [image for _, image in both]
        entry: dict[str, Any] = {"kind": kind, "channels": channels, "dim": own[0].dim, "cases": len(own),
                                 "scans": len(read)}  # fmt: skip
        if read:
            entry["intensities"] = [_statistics([image[i].numpy() for image in read]) for i in range(width)]
        result[name] = entry | _grids(own, read)
    return result


def _spread(members: Sequence[_Any], count: int) -> list[_Any]:
    if len(members) <= count:
        return list(members)
    return [members[i] for i in np.unique(np.linspace(0, len(members) - 1, count).round().astype(int))]


def _read(member: _Member) -> MetaTensor | None:
    try:
        return read_volume(member.images, dim=member.dim, channels=member.channels)
    except AmalgamationError as error:
        logger.warning("left out of the training data's statistics: %s", str(error).splitlines()[0])
        return None


def _statistics(scans: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
    ranges: list[Range] = [r for r in map(range_of, scans) if r is not None]
    drawn = []
    for scan in scans:
        values = scan[scan != 0]
        values = values if values.size else scan.reshape(-1)
        drawn.append(values[:: max(1, values.size // _VOXELS)].astype(np.float64))
    values = np.concatenate(drawn)
    low, middle, high = np.percentile(values, (0.5, 50, 99.5))
    numbers = {
        "mean": values.mean(), "std": values.std(), "min": min(r.smallest for r in ranges),
        "max": max(r.largest for r in ranges), "percentile_00_5": low, "percentile_50": middle, "percentile_99_5": high,
    }  # fmt: skip
    spans = {"lows": [r.low for r in ranges], "highs": [r.high for r in ranges]}
    rounded = {k: _rounded(v) for k, v in numbers.items()}
    return {**rounded, **{k: [_rounded(min(v)), _rounded(max(v))] for k, v in spans.items()}}


def _rounded(value: Any) -> float:
    return float(f"{float(value):.6g}")


def _grids(members: Sequence[_Member], read: Sequence[MetaTensor]) -> dict[str, Any]:
    """Spacing and orientation, of all NIfTI files by their headers, else of the scans that were read."""
    if members[0].dim == len((0, 0)):
        return {}
    grids: list[Grid] = []
    for member in members:
        try:
            header: Any = nibabel.load(member.images[0])
            grids.append(Grid(tuple(int(n) for n in header.shape[:3]), np.asarray(header.affine, float)))
        except Exception:  # whatever it is, the training says what is wrong with it
            continue
    grids = grids or [Grid.of(image) for image in read]
    if not grids:
        return {}
    table = np.array([np.linalg.norm(g.affine[:3, :3], axis=0) for g in grids])
    spacing = {"median": np.median(table, 0), "lowest": table.min(0), "highest": table.max(0)}
    codes = Counter("".join(map(str, nibabel.orientations.aff2axcodes(g.affine))) for g in grids)
    return {"spacing": {k: [_rounded(x) for x in v] for k, v in spacing.items()},
            "orientation": dict(sorted(codes.items()))}  # fmt: skip


def _taught(
    datasets: Sequence[Dataset], splits: Sequence[str], modality: str | None, structures: Sequence[str] | None
) -> tuple[dict[str, list[str]], dict[str, list[dict[str, Any]]]]:
    """By modality the structures that its label maps hold: what none of them has was declared, and never learned.

    Where tasks of one modality have other channels (``MR`` is T1 in one, T2 in the other), what each of these taught
    is told beside it.
    """
    apart: dict[str, dict[tuple[str, ...], dict[str, None]]] = {}
    result: dict[str, dict[str, None]] = {}
    declared: dict[str, dict[str, None]] = {}
    for dataset in datasets:
        cases = [c for s in splits for c in dataset.cases(s) if c.label is not None]
        for name in dict.fromkeys(map(dataset.modality_of, cases)):
            if modality in (None, name):
                kept = [n for n in dataset.labels.names if structures is None or n in structures]
                own = [c for c in cases if dataset.modality_of(c) == name]
                there = dict.fromkeys(_occurring(dataset, own, kept))
                result.setdefault(name, {}).update(there)
                apart.setdefault(name, {}).setdefault(_as_said(dataset, apart[name]), {}).update(there)
                declared.setdefault(name, {}).update(dict.fromkeys(kept))
    for name, found in result.items():
        never = [n for n in declared[name] if n not in found]
        if never:
            logger.warning(
                "no label map of %s has %s: the card says that it was not taught there", name, ", ".join(never)
            )
    taught = {name: [n for n in declared[name] if n in found] for name, found in result.items()}
    parts = {name: [{"channels": list(c), "structures": list(s)} for c, s in by.items()] for name, by in apart.items()}
    return taught, {n: p for n, p in parts.items() if len(p) > 1}


def _as_said(dataset: Dataset, known: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The channels of a task, as one before it spells them where both say the same."""
    own = dataset.channels
    alike = (k for k in known if len(k) == len(own) and all(map(says_same, meant_together(k), meant_together(own))))
    return next(alike, own)


def _occurring(dataset: Dataset, cases: Sequence[Case], names: Sequence[str]) -> list[str]:
    """Which structures occur in label maps; all where that cannot be judged, or too many would have to be read."""
    missing = {v: n for n, v in zip(dataset.labels.names, dataset.labels.values, strict=True) if n in names}
    if not dataset.labels.exclusive:
        return list(names)
    looked = _spread(cases, _LABELS)
    for case in looked:
        if not missing:
            break
        try:
            label = read_volume(str(case.label), dim=dataset.dim).numpy()
        except (AmalgamationError, OSError):  # the training says what is wrong with it
            return list(names)
        missing = {v: n for v, n in missing.items() if not (label == v).any()}
    if missing and len(looked) < len(cases):
        told = ", ".join(missing.values())
        logger.warning("%s: none of %d label maps that were looked at has %s", dataset.name, len(looked), told)
        return list(names)
    return [n for n in names if n not in missing.values()]


def _described(dataset: Dataset) -> dict[str, Any]:
    names = list(dict.fromkeys(map(dataset.modality_of, dataset.cases())))
    cases = {s: _hashes([c.images for c in dataset.cases(s)]) for s in SPLITS if dataset.cases(s)}
    about = {("licence" if k == "license" else k): v for k, v in dataset.about.items()}
    return {"name": dataset.name, **about, "modalities": names, "cases": cases}


def _plain_described(members: Sequence[_Member]) -> dict[str, Any]:
    cases = {"training": _hashes([m.images for m in members])}
    return {"name": members[0].task, "modalities": [members[0].modality], "cases": cases}


def _hashes(cases: Sequence[Sequence[Path]]) -> dict[str, Any]:
    """Number of the cases and hashes of their images' files; none where a split has very many."""
    if len(cases) > _HASHED:
        return {"number": len(cases)}
    single = sorted(case_hash(images) for images in cases)
    whole = hashlib.sha256("".join(single).encode()).hexdigest()
    return {"number": len(cases), "sha256": whole, "hashes": [h[:16] for h in single]}
