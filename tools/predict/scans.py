"""Finds the scans that a user points at: a file, a folder of files, a DICOM series or a folder of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from monai.data import MetaTensor

from common.data.datasets.dataset_json import channel_groups
from common.data.datasets.pairs import check_one_channel
from common.data.dicom.series import SeriesOptions, read_dicom
from common.data.dicom.slices import is_dicom, scan_files
from common.data.io import check_volume, read_volume
from common.data.pictures import PICTURES, is_picture, read_picture
from common.errors import DataError
from common.literals import disk_name
from common.paths import check_path, check_regular

from .dicom_results import Source

__all__ = ["Scan", "find_scans", "readable"]

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", *PICTURES)


@dataclass(frozen=True)
class Scan:
    """One thing to segment.

    Args:
        name: base name, also of the result.
        files: its file, one file per channel, or the folder (or multi-frame file) of its DICOM series.
    """

    name: str
    files: tuple[Path, ...]

    @property
    def dicom(self) -> bool:
        """Whether it is a DICOM series."""
        return self.files[0].is_dir() or _stem(self.files[0]) is None

    @property
    def flat(self) -> bool:
        """Whether it is a 2-D picture."""
        return is_picture(self.files[0])


def _stem(path: Path) -> str | None:
    """The file name without its image suffix, None for other files."""
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return None


def find_scans(source: str | Path, channels: int | None = None) -> list[Scan]:
    """All scans at a path, sorted by name.

    Files ``name_0000`` to ``name_{channels - 1}``, none missing, are the channels of one scan (nnU-Net's naming); files
    that are numbered in another way are scans of their own.

    Args:
        source: file or folder.
        channels: what the network reads, >= 1; any number from two on when None.

    Raises:
        DataError: when nothing is there, nothing is an image, two scans have one base name, or files are numbered as
            the channels of several scans where the network reads one.
    """
    path = check_path(source, what="scan")
    if not path.exists():
        raise DataError("there is no such file or folder", where=path)
    if path.is_file():
        stem = _stem(path)
        if stem is None and not is_dicom(path):
            raise DataError("not an image that can be read", where=path, expected=", ".join(SUFFIXES) + " or DICOM")
        if stem is None and len(scan_files(path)[0]) == 1:
            raise DataError("one DICOM slice is not a scan", where=path, hint=f"give the series' folder: {path.parent}")
        return [Scan(path.stem if stem is None else stem, (path,))]
    scans = _in_folder(path, channels)
    if not scans:
        raise DataError("the folder holds no scan", where=path, expected=", ".join(SUFFIXES) + " or DICOM series")
    _refuse_twins(scans)
    return sorted(scans, key=_name)


def _name(scan: Scan) -> str:
    return scan.name


def _in_folder(folder: Path, channels: int | None) -> list[Scan]:
    files = sorted(p for p in folder.iterdir() if not p.is_dir() and not p.name.startswith("."))
    images = [check_regular(p, what="scan") for p in files if _stem(p) is not None]
    if not images and any(p.is_file() and is_dicom(p) for p in files):
        return [Scan(folder.resolve().name, (folder,))]
    several = channel_groups(images, channels) if channels != 1 else {}
    if channels == 1:
        check_one_channel(images, {}, folder)
    taken = {p for paths in several.values() for p in paths}
    scans = [Scan(name, paths) for name, paths in several.items()]
    scans += [Scan(_stem(p) or p.name, (p,)) for p in images if p not in taken]
    if not scans:
        for sub in sorted(p for p in folder.iterdir() if p.is_dir()):
            scans += [s for s in _in_folder(sub, channels) if s.dicom]
    return scans


def _refuse_twins(scans: list[Scan]) -> None:
    """Names that differ in capitals or in the spelling of one sign alone are one file on some systems."""
    seen: dict[str, Scan] = {}
    for scan in scans:
        twin = seen.setdefault(disk_name(scan.name), scan)
        if twin is not scan:
            raise DataError(
                "two scans have one base name, their results would overwrite each other",
                where=scan.files[0].parent,
                got=f"{twin.files[0].name}, {scan.files[0].name}",
                hint="rename one of them or put it into another folder",
            )


def readable(
    scan: Scan,
    folder: Path,
    options: SeriesOptions | None = None,
    seen: Callable[[Scan, MetaTensor], None] | None = None,
) -> tuple[list[str], Source | None]:
    """Check that a scan can be read and return the paths to hand on; a DICOM series is written as NIfTI first.

    Args:
        scan: what to check.
        folder: where converted files go.
        options: which series to take and which faults to accept.
        seen: is called with each volume that was read.

    Returns:
        the paths, and for DICOM the slices.

    Raises:
        DataError: for what cannot be read correctly, with the file's name.
    """
    if scan.dicom:
        return _converted(scan, folder, options, seen)
    if scan.flat and len(scan.files) == 1:  # grey or coloured, as the bundle may want it
        picture = read_picture(scan.files[0])
        if seen is not None:
            seen(scan, picture)
        return [str(scan.files[0].resolve())], None
    image = read_volume(scan.files[0] if len(scan.files) == 1 else scan.files, dim=2 if scan.flat else 3)
    if seen is not None:
        seen(scan, image)
    return [str(p.resolve()) for p in scan.files], None


def _converted(
    scan: Scan, folder: Path, options: SeriesOptions | None, seen: Callable[[Scan, MetaTensor], None] | None
) -> tuple[list[str], Source]:
    volume = read_dicom(scan.files[0], options)
    check_volume(volume.image, scan.files[0])
    if seen is not None:
        seen(scan, volume.image)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{scan.name}.nii.gz"
    voxels, affine = np.asarray(volume.image)[0].astype(np.float32), np.asarray(volume.image.affine, dtype=np.float64)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return [str(path.resolve())], Source.of(volume)
