"""The entries of a ``dataset.json``: which files, in which channel order, of which subject."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...channel_order import contradict, order_of
from ...errors import DataError
from ...literals import check_channel, check_file_name, check_name
from ...modalities import meanings, same
from ...paths import check_path, is_path
from ...plain_json import read_object

__all__ = [
    "SPLITS",
    "VOLUME_SUFFIXES",
    "Case",
    "about",
    "base_name",
    "case_id",
    "case_name",
    "channel_groups",
    "channel_names",
    "channel_number",
    "read_case",
    "read_json",
]

SPLITS = ("training", "validation", "test", "unlabelled")
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".bmp", ".tif",
                   ".tiff", ".dcm")  # fmt: skip
_CHANNEL_SUFFIX = re.compile(r"(?<=.)_([0-9]{4})$")
_WORD = re.compile(r"[^\W_]+(?:[+-](?![^\W_]))?")
_INDEX = re.compile(r"[0-9]{1,4}")
_BIDS_SUBJECT = re.compile(r"(?:^|[_/])(sub-[A-Za-z0-9]+)")


@dataclass(frozen=True)
class Case:
    """One scan: its channel files in the dataset's channel order, its label map and the person it shows.

    ``modality`` is set where the entry names one of its own, in a dataset of several.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None
    subject: str
    modality: str | None = None


def base_name(path: str | Path) -> str:
    """File name without its volume suffix (``.nii.gz`` counts as one)."""
    name = Path(path).name
    return next((name[: -len(s)] for s in VOLUME_SUFFIXES if name.lower().endswith(s)), name)


def channel_number(path: str | Path) -> int | None:
    """The number at the end of ``<name>_dddd.<suffix>``: nnU-Net's channel, or what others number their cases with."""
    match = _CHANNEL_SUFFIX.search(base_name(path))
    return int(match.group(1)) if match else None


def case_id(path: str | Path) -> str:
    """What a case is called after its first (or only) file: the base name without nnU-Net's ``_0000``.

    Other numbers stay: ``amos_0001.nii.gz`` and ``amos_0002.nii.gz`` are two cases.
    """
    return base_name(path).removesuffix("_0000") or base_name(path)


def channel_groups(files: Iterable[Path], count: int | None = None) -> dict[str, tuple[Path, ...]]:
    """Files of one folder that are the channels of one case: ``<case>_0000`` to ``<case>_{count - 1}``, none missing.

    Every other file, also one that is numbered in another way, is a case of its own.

    Args:
        files: what the folder holds.
        count: channels >= 1 of the dataset or the network; any number from two on when None.

    Returns:
        ``{case: files in channel order}``; a case whose name is that of another file is left out.
    """
    files = sorted(files)
    taken = {base_name(p) for p in files}
    numbered: dict[str, list[Path]] = {}
    for path in files:
        if channel_number(path) is not None:
            numbered.setdefault(_CHANNEL_SUFFIX.sub("", base_name(path)), []).append(path)
    return {
        name: tuple(paths)
        for name, paths in numbered.items()
        if name not in taken and [channel_number(p) for p in paths] == list(range(count or max(2, len(paths))))
    }


def case_name(data: Mapping[Hashable, Any], key: Hashable = "image") -> str:
    """The case's id: its ``case`` entry, else :func:`case_id` of the image file, else ``"unknown case"``."""
    if isinstance(data.get("case"), str):
        return str(data["case"])
    image = data.get(key, data.get("image"))
    if hasattr(image, "meta"):
        image = image.meta.get("filename_or_obj")
    if isinstance(image, (list, tuple)) and image:
        image = image[0]
    if not isinstance(image, (str, Path)):
        image = data.get(f"{key}_path")
    return case_id(image) if isinstance(image, (str, Path)) and str(image) else "unknown case"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: when the file cannot be read, is no JSON or no object.
    """
    return read_object(path, error=DataError)


def about(data: Mapping[str, Any]) -> dict[str, str]:
    """What a ``dataset.json`` says in words: licence (in any spelling), description, reference and the like."""
    keys = ("description", "licence", "license", "reference", "source", "release", "citation")
    return {k: str(data[k]) for k in keys if isinstance(data.get(k), (str, int, float)) and str(data[k]).strip()}


def channel_names(data: Mapping[str, Any], where: Path) -> tuple[str, ...]:
    """Channel names in channel order from ``channel_names`` or ``modality`` (a mapping by index, a list or a name).

    Raises:
        DataError: when there are none, or when both are there and say different things.
    """
    keys = [k for k in ("channel_names", "modality") if data.get(k) is not None]
    names = _names_of(data.get(keys[0]) if keys else None, where)
    if len(keys) > 1:
        others = _names_of(data["modality"], where)
        if contradict(names, others):
            raise DataError("channel_names and modality say different things of the same channels", where=where,
                            got=f"channel_names: {', '.join(names)}; modality: {', '.join(others)}",
                            expected="one of them, or both alike",
                            hint="look at the scans, and delete the one that is wrong")  # fmt: skip
    return names if len(set(names)) == len(names) else tuple(f"{n} {i}" for i, n in enumerate(names))


def _names_of(found: Any, where: Path) -> tuple[str, ...]:
    expected = '"channel_names": {"0": "CT"} or "modality": {"0": "CT"}'
    if isinstance(found, str):
        found = [found]
    if isinstance(found, Mapping):
        numbers = {k: int(k) for k in found if _INDEX.fullmatch(str(k))}
        if len(set(numbers.values())) != len(found):
            problem = "the channels are not numbered, each by its own number"
            raise DataError(problem, where=where, got=", ".join(map(ascii, found)), expected=expected)
        found = [found[k] for k in sorted(numbers, key=numbers.__getitem__)]
    if not isinstance(found, Sequence) or not found:
        raise DataError("the dataset names no channels", where=where, got=f"{found!a:.100}", expected=expected)
    return tuple(check_channel(n, where=where) for n in found)


def read_case(entry: Any, root: Path, channels: tuple[str, ...], where: object) -> Case:
    """One entry of a split: ``{"image": ..., "label": ..., "id": ..., "subject": ...}`` or an image path alone.

    Args:
        entry: ``image`` is a path, a list of paths in channel order or ``{channel name: path}``; paths are relative
            to ``root``; ``subject`` (or ``patient``) defaults to a BIDS ``sub-x`` in the path, else to the id;
            ``modality`` where it is not the dataset's.
        root: the dataset's folder.
        channels: the dataset's channel names.
        where: dataset and split for messages.

    Raises:
        DataError: when the entry has no image, several label files, or not exactly the dataset's channels.
    """
    entry = {"image": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, Mapping) or not entry.get("image"):
        raise DataError(
            "an entry names no image", where=where, got=f"{entry!a:.200}", expected='{"image": path, "label": path}'
        )
    image = entry["image"]
    files = [image] if isinstance(image, str) else list(image.values() if isinstance(image, Mapping) else _list(image))
    if not files or not all(is_path(f) for f in files):
        problem = "an entry's image is a path, a list of paths or paths by channel"
        expected = '"image": path, [path, ...] or {"CT": path}'
        raise DataError(problem, where=where, got=f"{image!a:.200}", expected=expected)
    first = str(files[0])
    name = check_file_name(_text(entry, "id", where) or case_id(first), "case", where=where)
    place = f"{where}, case {name}"
    images = _channel_files(image, root, channels, place)
    label = entry.get("label")
    if label is not None and label != "" and not is_path(label):
        raise DataError(
            "an entry must have one integer label map",
            where=place,
            got=f"{label!a:.200}",
            expected="one file",
            hint="merge single-structure masks into one integer map first",
        )
    bids = _BIDS_SUBJECT.search(first)
    subject = _text(entry, "subject", place) or _text(entry, "patient", place) or (bids.group(1) if bids else name)
    modality = entry.get("modality")
    if modality is not None and not isinstance(modality, str):
        raise DataError("a case has one modality", where=place, got=modality, expected="its name")
    if modality is not None:
        check_name(modality, "modality", where=place)
    return Case(name, images, root / label if label else None, subject, modality)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(entry: Mapping[str, Any], key: str, where: object) -> str:
    """An entry's id or person: text or a whole number; empty when it is not given."""
    value = entry.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise DataError(f'the "{key}" of an entry is text or a whole number', where=where, got=f"{value!a:.100}")
    return str(value)


def _channel_files(image: Any, root: Path, channels: tuple[str, ...], where: str) -> tuple[Path, ...]:
    """Files in channel order; missing, superfluous and swapped ones are refused by name."""
    if isinstance(image, Mapping):
        missing = [c for c in channels if c not in image]
        if missing or len(image) != len(channels):
            raise _wrong_channels(missing, list(image), channels, where)
        return tuple(root / str(image[c]) for c in channels)
    paths = [image] if isinstance(image, str) else [str(p) for p in image]
    if len(paths) == 1 and len(channels) > 1:
        return _siblings(root / paths[0], channels, where)
    numbers = [channel_number(p) for p in paths]
    numbered = len(paths) > 1 and None not in numbers
    if len(paths) != len(channels):
        present = set(numbers) if numbered else set(range(len(paths)))
        missing = [c for i, c in enumerate(channels) if i not in present]
        raise _wrong_channels(missing, paths, channels, where)
    if numbered and numbers != list(range(len(paths))):
        expected = ", ".join(f"_{i:04d} = {c}" for i, c in enumerate(channels))
        raise _other_order(paths, expected, where)
    if len(paths) > 1 and not _named_so(paths, channels):
        raise _other_order(paths, ", ".join(channels), where)
    return tuple(root / p for p in paths)


def _named_so(paths: Sequence[str], channels: tuple[str, ...]) -> bool:
    """Whether the words in which the files' names differ are those of the channels, where all of them tell something.

    ``x_flair``, ``x_t1`` and ``x_t2`` are no T1, T2 and FLAIR.
    """
    words = [_WORD.findall("/".join((*Path(p).parts[:-1], base_name(p)))) for p in paths]
    shared = next((i for i, column in enumerate(zip(*words, strict=False)) if len(set(column)) > 1), 0)
    tails = [w[shared:] for w in words]
    while all(len(t) > 1 for t in tails) and len({t[-1] for t in tails}) == 1:
        tails = [t[:-1] for t in tails]
    names = [" ".join(t) for t in tails]
    told = all(map(meanings, names))
    if not told:  # "_art" and "_pv" of "CT arterial" and "CT portal"
        own = [_WORD.findall(c) for c in channels]
        names = [" ".join([*(w for w in own[0] if all(w in o for o in own)), n]) for n in names]
    if len(set(names)) < len(names) or not all(map(meanings, names)):
        return True
    order = order_of(channels, names)
    surely = told and any(same(c, n) is False for c, n in zip(channels, names, strict=True))
    return not surely if order is None else order == tuple(range(len(order)))


def _other_order(paths: Sequence[str], expected: str, where: str) -> DataError:
    return DataError(
        "the channel files are not in the order of the channels",
        where=where,
        got=", ".join(Path(p).name for p in paths),
        expected=expected,
        hint='put the files in channel order, or name them: "image": {"FLAIR": path, ...}',
    )


def _siblings(path: Path, channels: tuple[str, ...], where: str) -> tuple[Path, ...]:
    """All channels of a file called ``*_0000``; another single file holds all channels itself (4-D)."""
    if channel_number(path) != 0:
        return (path,)
    head, tail = path.name.rsplit("_0000", 1)
    files = [check_path(path.with_name(f"{head}_{i:04d}{tail}"), where=where) for i in range(len(channels))]
    missing = [c for c, f in zip(channels, files, strict=True) if not f.exists()]
    if missing:
        raise _wrong_channels(missing, [path.name], channels, where)
    return tuple(files)


def _wrong_channels(missing: list[str], got: list[str], channels: tuple[str, ...], where: str) -> DataError:
    problem = f"missing channel {', '.join(missing)}" if missing else "too many channel files"
    return DataError(
        problem,
        where=where,
        got=", ".join(Path(g).name for g in got),
        expected=", ".join(channels),
        hint="list one file per channel, in this order, or leave the case out",
    )
