"""NRRD headers: what SimpleITK would read wrongly without a word, or refuse in words of its own, is refused here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ...command_words import place, shown
from ...errors import DataError, GeometryError
from ...whole_numbers import whole_number
from .contents import EXPORT, cut_off
from .detached import Stored, named_files, refuse_damaged

__all__ = ["check_nrrd"]

_MOST_HEADER = 2**22
_SPACES = {"right-anterior-superior", "ras", "left-anterior-superior", "las", "left-posterior-superior", "lps"}
_MM = {"mm", "millimeter", "millimeters", "millimetre", "millimetres", "???", ""}
_SPATIAL = {"domain", "space"}
_SEVERAL = {"list", "vector", "2-vector", "3-vector", "4-vector", "point", "covariant-vector", "normal", "scalar",
            "3-gradient", "3-normal"}  # fmt: skip
_BYTES = {
    "signed char": 1, "int8": 1, "int8_t": 1, "uchar": 1, "unsigned char": 1, "uint8": 1, "uint8_t": 1,
    "short": 2, "short int": 2, "signed short": 2, "signed short int": 2, "int16": 2, "int16_t": 2,
    "ushort": 2, "unsigned short": 2, "unsigned short int": 2, "uint16": 2, "uint16_t": 2,
    "int": 4, "signed int": 4, "int32": 4, "int32_t": 4, "uint": 4, "unsigned int": 4, "uint32": 4, "uint32_t": 4,
    "longlong": 8, "long long": 8, "long long int": 8, "signed long long": 8, "signed long long int": 8, "int64": 8,
    "int64_t": 8, "ulonglong": 8, "unsigned long long": 8, "unsigned long long int": 8, "uint64": 8, "uint64_t": 8,
    "float": 4, "double": 8,
}  # fmt: skip
_ASK = "write it into the header from the original scan, or convert that one to NIfTI; do not guess it"
_PACKINGS = {"raw": "", "gz": "gzip", "gzip": "gzip", "txt": "", "text": "", "ascii": "", "hex": ""}


class _Header(NamedTuple):
    fields: Mapping[str, str]
    keys: Mapping[str, str]
    names: tuple[str, ...]
    end: int


def check_nrrd(path: Path) -> None:
    """Refuse a NRRD file that SimpleITK cannot read, or reads as something else than it says.

    Right are the three anatomical spaces, three axes with directions in mm, and at most one more axis of values that
    stand beside each other.

    Raises:
        DataError: for colour, complex numbers, tensors, time, layers of segments, encodings, cut off and missing files.
        GeometryError: when it does not say, in a patient's terms and in mm, where the voxels lie.
    """
    header = _read(path)
    kinds = _kinds(header, path)
    _refuse_layers(header, kinds, path)
    _refuse_kinds(kinds, header.fields.get("space", "").lower(), path)
    if len(header.fields["sizes"].split()) - sum(k not in _SPATIAL for k in kinds) > 2:
        _refuse_placeless(header, kinds, path)
    refuse_damaged(_stored(header, path), path)


def _read(path: Path) -> _Header:
    with path.open("rb") as handle:
        head = handle.read(_MOST_HEADER)
    if not head.startswith(b"NRRD000"):
        if b"NRRD000".startswith(head[:7]):
            raise cut_off(path, f"{len(head)} bytes", "a header and all voxels")
        raise DataError("not a NRRD file", where=path, got=f"it begins with {head[:8]!r}", hint=EXPORT)
    lines, end, ended = [], 0, False
    for line in head.splitlines(keepends=True):
        end += len(line)
        text = line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
        if not text:
            ended = True
            break
        lines.append(text)
        if line == b"\r" or not line.endswith((b"\n", b"\r")):
            break
    return _parsed(lines[1:], end, ended, path)


def _parsed(lines: list[str], end: int, ended: bool, path: Path) -> _Header:
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    names: list[str] = []
    listed = False
    for line in lines:
        if listed:
            names.append(line.strip())
        elif not line.startswith("#"):
            name, mark, value = re.split(r"(:=|: )", line, maxsplit=1) if re.search(":=|: ", line) else (line, "", "")
            (keys if mark == ":=" else fields)[name if mark == ":=" else name.lower().replace(" ", "")] = value.strip()
            listed = fields.get("datafile", "").upper().startswith("LIST")
    absent = [n for n in ("type", "dimension", "sizes", "encoding") if n not in fields]
    if absent or not (ended or "datafile" in fields):
        raise cut_off(path, f"a header without {', '.join(absent) or 'end'}", "a whole header and all voxels")
    return _Header(fields, keys, tuple(names), end)


def _kinds(header: _Header, path: Path) -> list[str]:
    """What each axis is, in lower case: ``domain`` where nothing is said of an axis that has a direction."""
    count = len(header.fields["sizes"].split())
    told = header.fields.get("kinds", "").lower().split() or ["???"] * count
    places = _directions(header) or ["()"] * count
    if {len(told), len(places), whole_number(header.fields["dimension"])} != {count}:
        raise DataError(
            "the header contradicts itself about its axes",
            where=path,
            got=f"dimension {header.fields['dimension']}, {count} sizes, {len(told)} kinds, {len(places)} directions",
            hint=EXPORT,
        )
    unsaid = ("???", "none")
    return [("domain" if "(" in p else "none") if k in unsaid else k for k, p in zip(told, places, strict=True)]


def _directions(header: _Header) -> list[str]:
    return re.findall(r"\([^)]*\)|none", header.fields.get("spacedirections", "").lower())


def _refuse_layers(header: _Header, kinds: list[str], path: Path) -> None:
    layers = {value for key, value in header.keys.items() if re.fullmatch(r"Segment\d+_Layer", key)}
    if len(layers) > 1 and len(kinds) > 3:
        raise DataError(
            "a segmentation in several layers: its segments may overlap, so it is no label map",
            where=path,
            got=f"{len(layers)} layers",
            expected="one number a voxel",
            hint="in 3D Slicer: Segmentations, Export/import models and labelmaps, Export as labelmap; save that",
        )


def _refuse_kinds(kinds: list[str], space: str, path: Path) -> None:
    others = [k for k in kinds if k not in _SPATIAL]
    others += ["time"] if space.endswith(("-time", "rast", "last", "lpst")) else []
    if not others or (len(others) == 1 and others[0] in _SEVERAL):
        return
    words = "an axis that is no direction in space, without saying what it is"
    ways = EXPORT
    for part, name, way in (
        ("time", "a series of volumes over time",
         "in 3D Slicer: load it as a volume sequence, and save the volume that you want"),
        ("color", "colour", "convert it to grey first, and save that as NIfTI"),
        ("complex", "complex numbers", "compute their magnitude first, and save that as NIfTI"),
        ("matrix", "tensors", "compute the scalar map that you want, and save that as NIfTI"),
        ("quaternion", "quaternions", "compute the scalar map that you want, and save that as NIfTI"),
    ):  # fmt: skip
        if any(part in kind for kind in others):
            words, ways = name, way
            break
    got = f"kinds: {' '.join(kinds)}"
    expected = "three axes in space, and at most one of values that stand beside each other (list, vector)"
    raise DataError(f"the file holds {words}", where=path, got=got, expected=expected, hint=ways)


def _refuse_placeless(header: _Header, kinds: list[str], path: Path) -> None:
    space = header.fields.get("space", "").lower()
    spacings = [v for n in header.fields.get("spacings", "").split() for v in _numbers(n)]
    if not _directions(header) and not (spacings and all(map(math.isfinite, spacings))):
        raise GeometryError(
            "the header has no voxel size",
            where=path,
            got="no space directions, and no spacings that are numbers",
            expected="space directions in mm",
            hint=_ASK,
        )
    if space not in _SPACES:
        lines = "import sys, SimpleITK as s; s.WriteImage(s.ReadImage(sys.argv[1]), sys.argv[2])"
        raise GeometryError(
            "the file does not say which side of the patient is left",
            where=path,
            got=f"space: {space}" if space else "no space",
            expected="space: left-posterior-superior, right-anterior-superior or left-anterior-superior",
            hint="compare it with the original scan in 3D Slicer; when its space is left-posterior-superior, write "
            f"that down: {shown('python', '-c', lines, str(path), 'told.nii.gz')}",
        )
    places = [p for p, kind in zip(_directions(header), kinds, strict=False) if kind in _SPATIAL]
    vectors = [_numbers(p) for p in places]
    if len(places) != 3 or not all(len(v) == 3 and all(map(math.isfinite, v)) for v in vectors):
        raise GeometryError(
            "an axis in space has no direction",
            where=path,
            got=f"space directions: {header.fields.get('spacedirections', 'none')}",
            expected="three vectors of three numbers in mm",
            hint=_ASK,
        )
    origin = header.fields.get("spaceorigin")
    if origin is not None and (len(_numbers(origin)) != 3 or not all(map(math.isfinite, _numbers(origin)))):
        raise GeometryError("the origin is no place", where=path, got=origin, expected="three numbers in mm")
    units = {u.lower() for u in re.findall(r'"([^"]*)"', header.fields.get("spaceunits", ""))}
    if units - _MM:
        raise GeometryError(
            "the space is not in millimetres",
            where=path,
            got=f"space units: {', '.join(sorted(units))}",
            expected='space units: "mm" "mm" "mm"',
            hint="write origin and directions in mm into the header, and the units with them",
        )


def _numbers(text: str) -> list[float]:
    try:
        return [float(n) for n in text.strip("() ").split(",")]
    except ValueError:
        return []


def _stored(header: _Header, path: Path) -> Stored:
    fields = header.fields
    kind, encoding = fields["type"].lower(), fields["encoding"].lower()
    if kind not in _BYTES:
        problem = "the voxels are no numbers that are read"
        raise DataError(problem, where=path, got=f"type: {kind}", expected="uchar, short, int, float, ...", hint=EXPORT)
    if encoding not in _PACKINGS:
        again = ["unu", "save", "-f", "nrrd", "-e", "gzip", "-i", place(path), "-o", "new.nrrd"]
        problem = "this encoding of the voxels is not read"
        got = f"encoding: {encoding}"
        raise DataError(problem, where=path, got=got, expected="raw, gzip, hex or ascii", hint=shown(*again))
    if encoding == "raw" and _BYTES[kind] > 1 and "endian" not in fields:
        problem = "the header does not say in which order the bytes are"
        expected = "endian: little (all usual computers) or endian: big"
        raise DataError(problem, where=path, expected=expected, hint="write that line below encoding: raw")
    sizes = [whole_number(n) or 0 for n in fields["sizes"].split()]
    skips = [whole_number(fields.get(name, "0"), digits=15, negative=True) for name in ("byteskip", "lineskip")]
    if min(sizes, default=0) < 1 or None in skips:
        raise DataError("the sizes are no sizes", where=path, got=fields["sizes"], hint=EXPORT)
    voxels = math.prod(sizes) * _BYTES[kind] if encoding in ("raw", "gz", "gzip") else math.prod(sizes)
    files = named_files(fields["datafile"], header.names, path) if "datafile" in fields else (path,)
    start = None if any(skips) else header.end if files == (path,) else 0
    return Stored(files, start, None, _PACKINGS[encoding], voxels)
