"""What lies in a folder of DICOM files: the modality of its scan, what it is called, and what is no scan."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pydicom

from ...dicom_tags import OF_THESE, is_scan
from ...errors import few
from .objects import no_scan, picture, text_of, told_tag
from .slices import dicom_files, headers

__all__ = ["left_out", "modality_tag", "no_image", "series_description"]


def modality_tag(place: Path) -> str:
    """What the first scan of a file or folder is by DICOM (:func:`.objects.told_tag`); empty when nothing says it.

    What is no scan counts only where there is none beside it: ``OT``, ``SC``. So do images of another type, such as a
    localizer before the slices.
    """
    others: list[str] = []
    typed: list[str] = []
    for data in headers(place):
        tag = "" if no_scan(data) is not None else told_tag(data)
        if is_scan(tag) and OF_THESE not in tag:
            return tag
        (typed if is_scan(tag) else others).append(tag)
    return next(filter(None, [*typed, *others]), "")


def series_description(place: Path) -> str:
    """What the first scan of a file or folder is called by who made it; empty when it is not."""
    scans = (d for d in headers(place) if no_scan(d) is None)
    return text_of(next(scans, pydicom.Dataset()), "SeriesDescription")


def no_image(place: Path) -> tuple[str, str] | None:
    """The modality of the first DICOM file that is no image, and what that is; None when there is none."""
    found = ((no_scan(d) or picture(d)) for d in headers(place))
    return next(filter(None, found), None)


def left_out(place: Path, read: Iterable[Path]) -> list[str]:
    """Sentences about the DICOM files of a folder that are no slices of a scan.

    Args:
        place: a folder, or a file.
        read: files that are slices, or were refused.
    """
    known, kinds = set(read), dict[str, list[str]]()
    for path in dicom_files(place):
        if path not in known:
            for data in headers(path):
                tag, words = no_scan(data) or picture(data) or (told_tag(data), "no image")
                kinds.setdefault(f"{words.partition(';')[0]} ({tag or 'no modality'})", []).append(path.name)
    return [f"left out {few(names)}: {words}" for words, names in kinds.items()]
