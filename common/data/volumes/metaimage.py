"""MetaImage headers (MHA, MHD): what SimpleITK would read wrongly without a word is refused here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import DataError, GeometryError
from ...whole_numbers import whole_number
from .contents import EXPORT, cut_off
from .detached import Stored, named_files, refuse_damaged

__all__ = ["check_metaimage"]

_MOST_HEADER = 2**20
_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_LONG": 4,
    "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8,
}  # fmt: skip
_TURNS = ("TransformMatrix", "Rotation", "Orientation")
_PLACES = ("Offset", "Position", "Origin")
_UNIT = 1e-3


class _Header(NamedTuple):
    fields: Mapping[str, str]
    names: tuple[str, ...]
    end: int


def check_metaimage(path: Path) -> None:
    """Refuse a MetaImage file that SimpleITK cannot read, or reads as something else than it says.

    Raises:
        DataError: for text as voxels, a scaling that would be ignored, cut off, damaged and missing files.
        GeometryError: when spacing, unit or orientation are not said, or are impossible.
    """
    header = _read(path)
    fields = header.fields
    if fields.get("BinaryData", "True").lower()[:1] not in ("t", "1"):
        got = f"BinaryData = {fields['BinaryData']}"
        expected = "BinaryData = True"
        raise DataError("voxels written as text are not read", where=path, got=got, expected=expected, hint=EXPORT)
    scaling = _numbers(header, ("ElementToIntensityFunctionSlope",), path) or [1.0]
    scaling += _numbers(header, ("ElementToIntensityFunctionOffset",), path) or [0.0]
    if scaling != [1.0, 0.0]:
        raise DataError(
            "the header asks for a scaling that no program applies",
            where=path,
            got=f"slope {scaling[0]:g}, offset {scaling[1]:g}",
            expected="intensities as they are stored",
            hint="apply it, save the result and take both lines out of the header",
        )
    _refuse_placeless(header, path)
    refuse_damaged(_stored(header, path), path)


def _read(path: Path) -> _Header:
    with path.open("rb") as handle:
        head = handle.read(_MOST_HEADER)
    fields: dict[str, str] = {}
    names: list[str] = []
    end = 0
    for line in head.splitlines(keepends=True):
        end += len(line)
        text = line.decode("utf-8", "surrogateescape").strip()
        if fields.get("ElementDataFile", "").upper().startswith("LIST"):
            names += [text] if text else []
            continue
        name, mark, value = text.partition("=")
        if mark:
            fields[name.strip()] = value.strip()
        if "ElementDataFile" in fields:
            if not line.endswith((b"\n", b"\r")) and path.suffix.lower() == ".mha":
                break
            if not fields["ElementDataFile"].upper().startswith("LIST"):
                break
    needed = ("NDims", "DimSize", "ElementType", "ElementDataFile")
    absent = [n for n in needed if not fields.get(n)]
    if absent and not ({"ObjectType", "NDims"} & set(fields) or b"ObjectType".startswith(head[:10].strip())):
        raise DataError("not a MetaImage file", where=path, got=f"it begins with {head[:8]!r}", hint=EXPORT)
    if absent:
        raise cut_off(path, f"a header without {', '.join(absent)}", "a whole header and all voxels")
    return _Header(fields, tuple(names), end)


def _numbers(header: _Header, names: tuple[str, ...], path: Path) -> list[float]:
    """The numbers of the first of these fields that is there; none when there is none."""
    name = next((n for n in names if n in header.fields), None)
    if name is None:
        return []
    try:
        numbers = [float(n) for n in header.fields[name].split()]
    except ValueError:
        numbers = [math.nan]
    if not numbers or not all(map(math.isfinite, numbers)):
        got = f"{name} = {header.fields[name]}"
        expected = "finite numbers"
        raise GeometryError("the header's numbers cannot be read", where=path, got=got, expected=expected, hint=EXPORT)
    return numbers


def _refuse_placeless(header: _Header, path: Path) -> None:
    axes = len(_sizes(header, path))
    spacing = _numbers(header, ("ElementSpacing", "ElementSize"), path)
    turn, place = _numbers(header, _TURNS, path), _numbers(header, _PLACES, path)
    given = {"ElementSpacing": (spacing, axes), "TransformMatrix": (turn, axes * axes), "Offset": (place, axes)}
    wrong = [f"{len(v)} numbers in {name} for {axes} axes" for name, (v, n) in given.items() if v and len(v) != n]
    if wrong:
        raise GeometryError("the header contradicts itself about its axes", where=path, got="; ".join(wrong))
    if axes < 3:
        return
    if not spacing or not all(spacing[:3]):
        raise GeometryError(
            "the header has no voxel size, or one that cannot be",
            where=path,
            got=f"ElementSpacing = {header.fields.get('ElementSpacing', 'none')}",
            expected="mm, none of them 0",
            hint="find out the spacing and write ElementSpacing into the header; do not guess it",
        )
    unit = header.fields.get("DistanceUnits", "mm")
    if unit.lower() not in ("mm", "?", ""):
        got = f"DistanceUnits = {unit}"
        hint = "write spacing and offset in mm, and DistanceUnits = mm"
        raise GeometryError("the space is not in millimetres", where=path, got=got, expected="mm", hint=hint)
    told = header.fields.get("AnatomicalOrientation", "RAI").upper()
    if not turn and told != "RAI" and "?" not in told:
        raise GeometryError(
            "the orientation is given in letters alone, which no program applies",
            where=path,
            got=f"AnatomicalOrientation = {told}, no TransformMatrix",
            expected="a TransformMatrix",
            hint=EXPORT,
        )
    matrix = np.array(turn or np.eye(axes).ravel()).reshape(axes, axes)
    lengths = np.linalg.norm(matrix, axis=1)
    if not np.allclose(lengths, 1, atol=_UNIT) or abs(np.linalg.det(matrix)) < 1e-6:
        problem = "the TransformMatrix is no rotation"
        expected = "unit vectors, and the spacing in ElementSpacing alone"
        raise GeometryError(problem, where=path, got=header.fields.get(_TURNS[0], turn), expected=expected, hint=EXPORT)
    if axes > 3 and (np.abs(matrix[3:, :3]).max() > _UNIT or np.abs(matrix[:3, 3:]).max() > _UNIT):
        raise GeometryError("the fourth axis is mixed with those in space", where=path, got=turn, hint=EXPORT)


def _sizes(header: _Header, path: Path) -> list[int]:
    text = header.fields["DimSize"]
    sizes = [whole_number(n) or 0 for n in text.split()]
    if not 1 < len(sizes) <= 4 or str(len(sizes)) != header.fields["NDims"] or min(sizes) < 1:
        problem = "the header contradicts itself about its size"
        got = f"NDims = {header.fields['NDims']}, DimSize = {text}"
        raise DataError(problem, where=path, got=got, expected="two, three or four sizes", hint=EXPORT)
    return sizes


def _stored(header: _Header, path: Path) -> Stored:
    fields = header.fields
    kind = fields["ElementType"]
    if kind not in _BYTES:
        problem = "the voxels are no numbers that are read"
        raise DataError(problem, where=path, got=f"ElementType = {kind}", expected=", ".join(_BYTES), hint=EXPORT)
    counts = ("ElementNumberOfChannels", "HeaderSize", "CompressedDataSize")
    texts = [fields.get(name, default) for name, default in zip(counts, ("1", "0", "0"), strict=True)]
    numbers = [whole_number(t, digits=15, negative=True) for t in texts]
    channels, skip, packed = (n or 0 for n in numbers)
    if None in numbers:
        raise DataError("the header's numbers cannot be read", where=path, got=", ".join(texts), hint=EXPORT)
    voxels = math.prod(_sizes(header, path)) * _BYTES[kind] * max(1, channels)
    local = fields["ElementDataFile"].upper() == "LOCAL"
    files = (path,) if local else named_files(fields["ElementDataFile"], header.names, path)
    start = header.end if local else max(0, skip)
    if fields.get("CompressedData", "False").lower()[:1] in ("t", "1"):
        if local and packed < 1:
            raise DataError("the header does not say how many bytes its compressed voxels have", where=path,
                            got=f"CompressedDataSize = {fields.get('CompressedDataSize', 'none')}",
                            expected=f"{path.stat().st_size - start}, when nothing follows them",
                            hint="write that line into the header, above ElementDataFile")  # fmt: skip
        if skip < 0:
            problem = "the header does not say where its compressed voxels begin"
            raise DataError(problem, where=path, got=f"HeaderSize = {skip}", expected="a number of bytes", hint=EXPORT)
        return Stored(files, start, packed or None, "zlib", voxels)
    there = sum(f.stat().st_size for f in files) - start
    if skip >= 0 and (there >= 2 * voxels or (local and skip > 0)):
        raise DataError(
            "the file holds more voxels than its header says",
            where=path,
            got=f"{there} bytes",
            expected=f"{voxels} bytes for DimSize = {fields['DimSize']}, {kind}",
            hint="is ElementType right (MET_LONG has 4 bytes, MET_LONG_LONG 8), and DimSize?",
        )
    return Stored(files, start, None, "", voxels)
