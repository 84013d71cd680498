"""The phantom's files: byte-identical NIfTI, PNG and ``dataset.json``, published folder by folder or not at all."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...atomic import process_alive
from ...errors import DataError
from ...paths import check_new
from ...plain_json import parse, read_object
from ...whole_numbers import whole_number

__all__ = ["MARKER", "publish", "write_json", "write_nifti", "write_png"]

MARKER = "phantom.json"


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON with a final line break."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_nifti(
    path: Path, array: NDArray[Any], *, spacing: Sequence[float], origin: Sequence[float], axcodes: str
) -> None:
    """Write a RAS array as NIfTI stored along other axes, qform and sform both set.

    Args:
        path: ``*.nii.gz``; the bytes depend on the content alone (no time, no name).
        array: ``[X, Y, Z]`` along right, anterior, superior.
        spacing: mm, same axes.
        origin: mm, position of voxel (0, 0, 0).
        axcodes: axes on disk, e.g. ``"LPS"``.
    """
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    ras, target = (nib.orientations.axcodes2ornt(tuple(codes)) for codes in ("RAS", axcodes))
    turned = nib.Nifti1Image(array, affine).as_reoriented(nib.orientations.ornt_transform(ras, target))
    image = nib.Nifti1Image(np.ascontiguousarray(turned.dataobj), turned.affine)
    image.header["descrip"] = b"synthetic phantom"
    image.header.set_xyzt_units("mm")
    image.set_sform(turned.affine, code="scanner")
    image.set_qform(turned.affine, code="scanner")
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))


def write_png(path: Path, array: NDArray[np.uint8]) -> None:
    """Write ``[H, W]`` grey or ``[H, W, 3]`` colour bytes."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    path.write_bytes(buffer.getvalue())


def publish(folder: Path, parameters: Mapping[str, Any], write: Callable[[Path], None], *, overwrite: bool) -> bool:
    """Let ``write`` fill a temporary neighbour of ``folder`` and rename it, unless the same is there already.

    A marker with the parameters and every file's size is written last. A phantom that is damaged or comes from an
    older generator is written again; one of other parameters, or anything else, is refused.

    Args:
        folder: the folder to appear, complete or not at all.
        parameters: what its content depends on.
        write: fills an empty folder.
        overwrite: replace a phantom that was written with other parameters.

    Returns:
        Whether something was written.

    Raises:
        DataError: when ``folder`` holds something else.
    """
    if _complete(folder, parameters):
        return False
    check_new(folder, what="folder")
    _refuse_foreign(folder, parameters, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder)
    partial = folder.with_name(f".{folder.name}.partial-{socket.gethostname()}-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        write(partial)
        write_json(partial / MARKER, {"parameters": parameters, "files": _sizes(partial)})
        _replace(folder, partial, parameters)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return {f.relative_to(folder).as_posix(): f.stat().st_size for f in files}


def _marker(folder: Path) -> dict[str, Any] | None:
    try:
        data = read_object(folder / MARKER, error=DataError)
    except DataError:
        return None
    return data if all(isinstance(data.get(k), dict) for k in ("parameters", "files")) else None


def _stored(parameters: Mapping[str, Any]) -> Any:
    return parse(json.dumps(parameters), error=DataError)


def _complete(folder: Path, parameters: Mapping[str, Any]) -> bool:
    marker = _marker(folder)
    if marker is None or marker["parameters"] != _stored(parameters):
        return False
    present = _sizes(folder)
    return all(present.get(name) == size for name, size in marker["files"].items())


def _refuse_foreign(folder: Path, parameters: Mapping[str, Any], *, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    marker = _marker(folder) if folder.is_dir() else None
    if marker is None:
        raise DataError(
            "something that is no phantom is already there",
            where=folder,
            expected=f"an empty or missing folder, or one with {MARKER}",
            hint="choose another folder: python -m tools phantom --out FOLDER",
        )
    if not overwrite and _asked(marker["parameters"]) != _asked(_stored(parameters)):
        raise DataError(
            "a phantom with other parameters is already there",
            where=folder,
            got=marker["parameters"],
            expected=dict(parameters),
            hint="choose another --out, or replace it with --overwrite",
        )


def _asked(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What the user asked for, whichever version of the generator answered."""
    return {key: value for key, value in parameters.items() if key != "format"}


def _remove_stale(folder: Path) -> None:
    """Remove what writers of this machine left behind when they were killed."""
    start = f".{folder.name}.partial-{socket.gethostname()}-"
    for left in [p for p in _inside(folder.parent) if p.name.startswith(start)]:
        pid = whole_number(left.name.rsplit("-", 1)[1])
        if pid is None or not process_alive(pid):
            shutil.rmtree(left, ignore_errors=True)


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _replace(folder: Path, partial: Path, parameters: Mapping[str, Any]) -> None:
    if _complete(folder, parameters):  # another process was faster with the same
        return
    old = partial.with_name(partial.name + "-old")
    if folder.exists():
        folder.replace(old)
    try:
        partial.replace(folder)
    except OSError:
        if not _complete(folder, parameters):
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
