"""What a file holds by its first bytes, whatever its name says."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ...command_words import place, shown, shown_option, shown_place
from ...errors import DataError

__all__ = ["AGAIN", "EXPORT", "VOLUMES", "cut_off", "held", "refuse_other"]

VOLUMES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
AGAIN = "copy or export the file again; it may have been cut off"
EXPORT = "open it in the program that wrote it, or in 3D Slicer, and save it as NIfTI (.nii.gz)"


class Held(NamedTuple):
    """A kind of file: what it is called, and the ending that its files have."""

    words: str
    suffix: str


_GZIP, _NIFTI = Held("gzip-compressed data", ".gz"), Held("an uncompressed NIfTI volume", ".nii")
_NRRD, _META = Held("a NRRD volume", ".nrrd"), Held("a MetaImage volume", ".mha")
_STARTS = (
    (b"\x1f\x8b", _GZIP),
    (b"NRRD", _NRRD),
    (b"ObjectType", _META),
    (b"NDims", _META),
    (b"\x89PNG", Held("a PNG picture", ".png")),
    (b"\xff\xd8\xff", Held("a JPEG picture", ".jpg")),
    (b"PK\x03\x04", Held("a zip archive", ".zip")),
    (b"version https://git-lfs", Held("a pointer of Git LFS in the place of the file", "")),
    (b"<!doctype html", Held("a web page in the place of the file", ".html")),
    (b"<html", Held("a web page in the place of the file", ".html")),
)
_EXPECTED = {".gz": _GZIP, ".nii": _NIFTI, ".nrrd": _NRRD, ".nhdr": _NRRD, ".mha": _META, ".mhd": _META}


def held(path: Path) -> Held | None:
    """The kind of a file by its first bytes; None when nothing is recognised."""
    with path.open("rb") as handle:
        head = handle.read(352)
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return _NIFTI
    if head[128:132] == b"DICM":
        return Held("a DICOM file", ".dcm")
    return next((kind for start, kind in _STARTS if head.lower().startswith(start.lower())), None)


def refuse_other(path: Path) -> None:
    """Refuse a file whose first bytes are of another kind than its name.

    Raises:
        DataError: that says what the file is and how it would be read.
    """
    expected, found = _EXPECTED.get(path.suffix.lower()), held(path)
    if expected is None or found is None or found == expected:
        return
    raise DataError(
        f"the file's name is not of its kind: it holds {found.words}",
        where=path,
        expected=f"{expected.words}, as {path.suffix} says",
        hint=_way_out(path, found),
    )


def _way_out(path: Path, found: Held) -> str:
    name = path.name
    if found.words.startswith("a pointer"):
        return f"fetch the file itself: git lfs pull {shown_option('include', name)}"
    if found.suffix == ".html":
        return "download it again: what came was a page, perhaps one that asks for a login"
    if found.suffix == ".zip":
        return f"unzip -- {shown_place(path)}"
    if found == _GZIP and path.suffix.lower() != ".nii":
        return f"mv -- {shown(place(path), place(f'{path}.gz'))} && gunzip -- {shown_place(f'{path}.gz')}"
    if found == _GZIP:
        return f"mv -- {shown(place(path), place(f'{path}.gz'))}"
    stem = next((name[: -len(s)] for s in VOLUMES if name.lower().endswith(s)), path.stem)
    return f"mv -- {shown(place(path), place(path.with_name(stem + found.suffix)))}"


def cut_off(path: Path, got: object, expected: object) -> DataError:
    """The error for a file that ends too early."""
    return DataError("the file is cut off", where=path, got=got, expected=expected, hint=AGAIN)
