"""How an expert's training scans lay in their files: nnU-Net's default readers take the axes as they are stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib

from ..command_words import shown_option
from ..data.datasets.described import told_and_described
from ..data.io import check_file, read_volume
from ..data.volumes.contents import VOLUMES
from ..data.volumes.nifti import is_nifti, open_nifti
from ..errors import ExpertError, few
from ..geometry import Grid
from ..paths import check_regular, is_there

__all__ = ["orientation_of", "said_beside"]


def orientation_of(folder: str | Path) -> str:
    """The one orientation of the volumes in a folder, from their headers.

    Args:
        folder: the scans themselves, or nnU-Net's raw folder, whose ``imagesTr`` is looked at.

    Returns:
        axis codes such as ``LPS``.

    Raises:
        ExpertError: without a volume, or for volumes of several orientations, with what was found.
        DataError: for a file that cannot be read.
    """
    place = Path(folder)
    inner = place / "imagesTr"
    place = inner if inner.is_dir() else place
    listed = sorted(place.iterdir()) if place.is_dir() else [place]
    named = [p for p in listed if p.name.lower().endswith(VOLUMES) and not p.is_dir()]
    files = [check_regular(p, what="volume", error=ExpertError) for p in named if is_there(p) or p.is_symlink()]
    if not files:
        raise ExpertError("here are no volumes that the expert could have learned from", where=place,
                          got="none" if place.is_dir() else "no folder", expected=", ".join(VOLUMES),
                          hint="give nnU-Net's raw folder of the data set, or --orientation LPS")  # fmt: skip
    found: dict[str, list[str]] = defaultdict(list)
    for file in files:
        found[_axcodes(file)].append(file.name)
    if len(found) == 1:
        return next(iter(found))
    most = sorted(found.items(), key=lambda entry: -len(entry[1]))
    told = [f"{codes} ({len(names)}, such as {few(names[:1])})" for codes, names in most]
    hint = f"{shown_option('orientation', most[0][0])} asks it as most of them; check it then: experts check"
    raise ExpertError("the expert learned from files of several orientations, and nnU-Net's reader did not turn them",
                      where=place, got=", ".join(told), expected="one orientation",
                      hint=hint)  # fmt: skip


def said_beside(folder: str | Path, channels: Sequence[str]) -> tuple[str, ...]:
    """What a user should know of an expert's channels beside what the ``dataset.json`` of its training files says.

    Args:
        folder: as of :func:`orientation_of`.
        channels: the expert's, in its order.

    Raises:
        DataError: when both cannot be true: these are no files that it learned from.
    """
    files = {"": (Path(folder) / "imagesTr" / "any",)}  # of the raw folder, and of imagesTr itself
    return told_and_described(channels, files, where=folder).notes


def _axcodes(file: Path) -> str:
    if not is_nifti(file):
        return Grid.of(read_volume(file)).axcodes
    check_file(file)
    return "".join(nib.orientations.aff2axcodes(open_nifti(file).affine))
