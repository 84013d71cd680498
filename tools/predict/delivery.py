"""Where results go: what is there is judged before anything is computed, and replaced by complete files alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from common.atomic import atomic_write
from common.errors import DataError
from common.literals import disk_name, file_name
from common.overridden import RECORD
from common.paths import check_new

from .scans import Scan

__all__ = ["Target", "check_apart", "deliver", "pages_of", "seg_beside", "stale", "suffix_of", "targets_of"]

RESULTS = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".dcm")


class Target(NamedTuple):
    """Where a scan's result will lie.

    Args:
        path: a file, or without its suffix inside a folder: the scan's name, whatever that ends with.
        named: whether the user named the file.
    """

    path: Path
    named: bool

    def of(self, suffix: str) -> Path:
        """The result as a file of this kind."""
        return self.path if self.named else self.path.with_name(self.path.name + suffix)

    @property
    def seg(self) -> Path:
        """The DICOM SEG that lies beside a volume file."""
        return seg_beside(self.of(".nii.gz"))

    def all(self, *, both: bool) -> list[Path]:
        """Every file that the result may become, or that looks like an earlier one."""
        found = [self.path] if self.named else [self.of(s) for s in RESULTS]
        return found + ([self.seg] if both and self.named else [])


def suffix_of(path: Path) -> str:
    """The ending that tells a kind of result; empty for none."""
    return next((s for s in RESULTS if path.name.lower().endswith(s)), "")


def seg_beside(volume: Path) -> Path:
    """The DICOM SEG that lies beside a volume file."""
    return volume.with_name(volume.name[: len(volume.name) - len(suffix_of(volume))] + ".dcm")


def targets_of(
    scans: Sequence[Scan], source: Path, output: Path, overwrite: bool, kind: str, *, recorded: bool = False
) -> dict[str, Target]:
    """Where each result will lie (without suffix inside a folder), by scan; nothing is touched.

    Args:
        scans: what is segmented.
        source: where they come from.
        output: a folder, or a file's name when there is one scan.
        overwrite: results that are there already may be replaced.
        kind: ``dicom_seg``, ``nifti`` or ``both``.
        recorded: each result gets a record beside it.

    Raises:
        DataError: for several scans and one file, for a result that is there already or would be a scan, and for
            folders and files where the other is needed, and names that are too long.
    """
    if suffix_of(output):
        if len(scans) > 1:
            raise DataError("several scans need a folder for their results", where=output, got=f"{len(scans)} scans")
        targets = {scans[0].name: Target(output, named=True)}
    else:
        targets = {s.name: Target(output / s.name, named=False) for s in scans}
    for scan in scans:  # its volume, as a bundle writes it
        check_new(output.parent / scan.name, [".nii.gz"], what="volume", hint="rename the scan")
    inputs = {f.resolve() for s in scans for f in s.files} | {source.resolve()}
    for target in targets.values():
        _check_folder(target.path.parent)
        for path in target.all(both=kind == "both"):
            _check_place(path, overwrite, inputs)
        _check_names(target, kind, recorded)
    return targets


def check_apart(targets: Mapping[str, Target], pages: Mapping[str, Path], kind: str) -> None:
    """Refuse results and pages of which a disk would take two for one, or one for another's folder.

    Raises:
        DataError: naming both.
    """
    files = list(pages.values())
    for target in targets.values():
        files += [target.of(".dcm" if kind == "dicom_seg" else ".nii.gz"), *([target.seg] if kind == "both" else [])]
    spelt: dict[tuple[str, ...], Path] = {}
    for file in files:
        key = tuple(map(disk_name, file.absolute().parts))
        twin = spelt.setdefault(key, file)
        if twin is not file:
            raise DataError("two files of this command would have one name", where=file, got=f"{twin} and {file}",
                            hint="choose another output, or another --page")  # fmt: skip
    for key, file in spelt.items():
        inner = next((f for k, f in spelt.items() if len(k) > len(key) and k[: len(key)] == key), None)
        if inner is not None:
            raise DataError("a file of this command would have the name of another's folder", where=file,
                            got=f"{file} and {inner}", hint="choose another output, or another --page")  # fmt: skip


def _check_names(target: Target, kind: str, recorded: bool) -> None:
    """Refuse names that no disk takes, those of the files beside a result included."""
    suffix = ".dcm" if kind == "dicom_seg" else ".nii.gz"
    hint = "choose another output" if target.named else "rename the scan"
    check_new(target.of(suffix), ["", *([RECORD] if recorded else [])], what="result", hint=hint)
    if kind == "both":
        check_new(target.seg, what="result", hint=hint)


def pages_of(scans: Sequence[Scan], page: Path, overwrite: bool) -> dict[str, Path]:
    """Where each scan's page will lie; nothing is touched.

    Raises:
        DataError: as :func:`targets_of`.
    """
    if page.suffix.lower() != ".html":
        pages = {s.name: page / f"{file_name(s.name)}.html" for s in scans}
    elif len(scans) > 1:
        raise DataError("several scans need a folder for their pages", where=page, got=f"{len(scans)} scans")
    else:
        pages = {scans[0].name: page}
    for path in pages.values():
        check_new(path, what="page")
        _check_folder(path.parent)
        _check_place(path, overwrite, {f.resolve() for s in scans for f in s.files})
    return pages


def _check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be made, since a file has its name."""
    taken = next((p for p in (folder, *folder.parents) if p.exists()), None)
    if taken is not None and not taken.is_dir():
        raise DataError(
            "a file lies where the folder of the results would be", where=taken, hint="choose another output folder"
        )


def _check_place(path: Path, overwrite: bool, inputs: set[Path]) -> None:
    if not os.path.lexists(path):
        return
    if path.resolve() in inputs:
        raise DataError("a result would overwrite its scan", where=path, hint="choose another output folder")
    if path.is_dir():
        raise DataError(
            "a folder lies where a result would be written", where=path, hint="choose another output folder"
        )
    if not overwrite:
        hint = "choose another output folder, or add --overwrite True"
        raise DataError("there is a result of this name already", where=path, hint=hint)


def deliver(
    results: Mapping[str, Path],
    targets: Mapping[str, Target],
    beside: Mapping[str, Path],
    pages: Mapping[str, Path],
    hidden: Path,
) -> dict[str, Path]:
    """Give complete files their final names, in the place of what had them.

    Args:
        results: files by scan.
        targets: their places.
        beside: DICOM SEGs that lie beside volume files.
        pages: places of pages, by scan.
        hidden: the folder in which pages were written.

    Returns:
        The results by scan.
    """
    delivered = {name: targets[name].of(suffix_of(path)) for name, path in results.items()}
    for name, path in beside.items():
        path.replace(targets[name].seg)
    for name, path in results.items():
        path.replace(delivered[name])
    for name, path in pages.items():
        with atomic_write(path) as temporary:
            shutil.copyfile(hidden / "pages" / f"{file_name(name)}.html", temporary)
    return delivered


def stale(delivered: Mapping[str, Path], targets: Mapping[str, Target], *, both: bool) -> list[str]:
    """A line for each file beside a result that looks like one of the same scan and was not written now."""
    found = []
    for name, path in delivered.items():
        own = {path, targets[name].seg} if both else {path}
        others = [p for p in targets[name].all(both=both) if p not in own and os.path.lexists(p)]
        found += [f"{p}: stays, but is not of this run, whose result is {path.name}" for p in others]
    return found
