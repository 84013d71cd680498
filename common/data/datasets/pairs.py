"""Which files of a folder of scans make a case, and which label map is whose."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError, few
from ...literals import disk_name, same_on_disk
from ...paths import check_path, check_regular, is_there
from ..dicom.slices import holds_dicom
from .dataset_json import VOLUME_SUFFIXES, Case, base_name, channel_groups, channel_number, read_case

__all__ = ["check_one_channel", "label_maps", "listed", "paired"]

logger = logging.getLogger(__name__)

_LABEL_ENDINGS = ("_seg", "_mask", "_label", "_labels", "_gt", "-seg", "-mask", "-label", "_segmentation")


def label_maps(folder: Path) -> dict[str, Path]:
    """Label maps by the name of their case: endings such as ``_seg`` and ``_mask`` are ignored.

    Args:
        folder: of files, DICOM SEGs among them.

    Raises:
        DataError: when there is no such folder, nothing in it, several maps of one case, or what is no file.
    """
    if not check_path(folder, what="folder").is_dir():
        raise DataError("there is no such folder of label maps", where=folder)
    found: dict[str, list[Path]] = {}
    for path in _files(folder):
        found.setdefault(_stem(path), []).append(path)
    several = {name: paths for name, paths in found.items() if len(paths) > 1}
    if several:
        raise DataError(
            "several label maps belong to one scan",
            where=folder,
            got="; ".join(f"{name}: {', '.join(p.name for p in paths)}" for name, paths in several.items()),
            expected="one file per scan",
            hint="keep the one that holds all structures, or merge them into one integer map first",
        )
    return {name: paths[0] for name, paths in found.items()}


def check_one_channel(files: Sequence[Path], maps: Mapping[str, Path], where: Path) -> None:
    """Refuse files that are numbered as channels are, where cases have one: each would be a case of its own.

    Two cases or more with the numbers 0000 to one and the same last one are channels, unless each file has its own
    label map. Of a single case's numbers nobody knows whether they are channels or cases, which is said.

    Args:
        files: what the folder holds.
        maps: label maps by name.
        where: the folder.

    Raises:
        DataError: naming files of a case.
    """
    groups = channel_groups(files)
    sizes = [len(paths) for paths in groups.values()]
    alike = [
        n for n, paths in groups.items() if sizes.count(len(paths)) > 1 and not {*map(base_name, paths)} <= {*maps}
    ]
    if alike:
        count = len(groups[alike[0]])
        raise DataError("the files are numbered as the channels of a case are, and one channel is named", where=where,
                        got=f"{', '.join(p.name for p in groups[alike[0]][:5])}; as many of {len(alike)} cases",
                        expected=f"a name for each of {count} channels, or one file a case",
                        hint="name every channel (--channels T1,FLAIR; --scans t1+flair=FOLDER), or move the files of "
                             "one channel to a folder of their own; cases that are numbered so need other names",
                        )  # fmt: skip
    for name, paths in groups.items():
        if not {*map(base_name, paths)} <= {*maps}:
            logger.warning("%s: %s are taken for cases of their own, not for channels of %s", where,
                           few([p.name for p in paths]), name)  # fmt: skip


def paired(images: Path, maps: Mapping[str, Path], channels: tuple[str, ...]) -> list[Case]:
    """Cases of a folder of scans with the label maps of the same names, where there are any.

    Label maps that match no scan are logged, unless none matches.

    Args:
        images: folder of files and of folders of DICOM series; ``<case>_0000`` ... are one case when there are exactly
            as many as channels.
        maps: what :func:`label_maps` found.
        channels: names, one or more.

    Raises:
        DataError: when there are no scans, two have one name, a case has not one file per channel, or files are
            numbered as channels where there is one.
    """
    files = _files(images)
    if len(channels) == 1:
        check_one_channel(files, maps, images)
    groups = channel_groups(files, len(channels))
    grouped = {p for paths in groups.values() for p in paths}
    for path in files:
        if path not in grouped:
            name = base_name(path)
            if name in groups:
                raise DataError("two scans have one name", where=images, got=f"{groups[name][0].name}, {path.name}")
            _refuse_incomplete(path, files, channels)
            groups[name] = (path,)
    if alike := same_on_disk(groups):
        raise DataError("names of scans differ in capitals or in the spelling of one sign alone, and some disks take "
                        "them for one", where=images, got=few([ascii(n) for n in alike[0]]),
                        hint="rename one of them")  # fmt: skip
    cases = []
    for name, paths in groups.items():
        label = maps.get(name) or maps.get(base_name(paths[0]))  # a map may be called as its scan, _0000 included
        cases.append(Case(name, paths, label, name))
    used = {c.label for c in cases}
    unused = [p.name for p in maps.values() if p not in used]
    _refuse_nearly_alike(
        images, [c.id for c in cases if c.label is None], [n for n, p in maps.items() if p not in used]
    )
    if unused and len(used - {None}):
        logger.warning("%s: label maps that match no scan: %s", next(iter(maps.values())).parent, ", ".join(unused))
    return cases


def listed(table: Any, raw: Path, channels: tuple[str, ...]) -> list[Case]:
    """The cases that nnU-Net's key ``dataset`` names: those, and no others that lie beside them.

    Args:
        table: ``{case: {"images": [path per channel], "label": path}}``; paths are relative to ``raw`` or absolute,
            and variables of the environment are not expanded.
        raw: the folder of the ``dataset.json``.
        channels: names, one or more.

    Raises:
        DataError: for another table, a case without a label map, or a file that is not there.
    """
    where = raw / "dataset.json"
    if not isinstance(table, Mapping) or not table:
        expected = '{"case": {"images": [path], "label": path}}'
        raise DataError('the key "dataset" names no cases', where=where, got=f"{table!a:.200}", expected=expected)
    cases = []
    for name, entry in table.items():
        found = entry if isinstance(entry, Mapping) else {}
        case = read_case({"id": name, "image": found.get("images"), "label": found.get("label")}, raw, channels, where)
        if case.label is None:
            raise DataError('a case of the key "dataset" has no label map', where=f"{where}, case {case.id}")
        absent = [p for p in (*case.images, case.label) if not is_there(p)]
        if absent:
            problem = 'the key "dataset" names a file that is not there'
            hint = "correct the path; $VARIABLES are not expanded"
            raise DataError(problem, where=f"{where}, case {case.id}", got=absent[0], hint=hint)
        cases.append(case)
    return cases


def _refuse_nearly_alike(images: Path, bare: Sequence[str], left: Sequence[str]) -> None:
    """Refuse a label map that some disk would have taken for a scan's that has none."""
    for scan, name in ((s, n) for s in bare for n in left if disk_name(s) == disk_name(n)):
        raise DataError(
            "a label map's name differs from its scan's in capitals or in the spelling of one sign alone",
            where=images,
            got=f"scan {scan!a}, label map {name!a}",
            expected="the same name",
            hint="rename one of them",
        )


def _files(folder: Path) -> list[Path]:
    """Volume files and folders of DICOM series; other sub-folders, such as a label server's, are left out."""
    if not check_path(folder, what="folder").is_dir():
        raise DataError("the folder does not exist", where=folder)
    entries = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    found = [p for p in entries if (holds_dicom(p) if p.is_dir() else p.name.lower().endswith(VOLUME_SUFFIXES))]
    left = [p.name for p in entries if p.is_dir() and p not in found]
    for path in found:
        if not path.is_dir():
            check_regular(path, what="volume")
    if not found:
        raise DataError(
            "the folder holds no volumes",
            where=folder,
            got=f"folders without DICOM slices: {few(left)}" if left else None,
            expected=f"{', '.join(VOLUME_SUFFIXES)}, or one folder of DICOM slices per series",
        )
    if left:
        logger.warning("%s: folders without DICOM slices left out: %s", folder, ", ".join(left))
    return found


def _stem(path: Path) -> str:
    name = base_name(path)
    return next((name[: -len(e)] for e in _LABEL_ENDINGS if name.lower().endswith(e)), name)


def _refuse_incomplete(path: Path, files: Sequence[Path], channels: tuple[str, ...]) -> None:
    """Refuse a file whose number says that it is a channel of a case that lacks others, or has too many."""
    number, stem = channel_number(path), base_name(path)[:-5]
    if len(channels) == 1 or number is None:
        return
    siblings = [p for p in files if channel_number(p) is not None and base_name(p)[:-5] == stem]
    numbers = [channel_number(p) or 0 for p in siblings]
    if 0 in numbers or max(numbers) < len(channels):
        raise DataError(
            "a case has not one file per channel",
            where=f"{path.parent}, case {stem}",
            got=", ".join(p.name for p in siblings[:5]),
            expected=", ".join(f"{stem}_{i:04d} ({c})" for i, c in enumerate(channels)),
        )
