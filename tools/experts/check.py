"""Asks an expert twice, as answers are kept and as its own software would, and says whether both are the same."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from rich.table import Table

from common.atomic import atomic_write
from common.contract import Contract
from common.data.dicom.contents import modality_tag
from common.data.dicom.series import read_dicom
from common.data.io import read_volume
from common.dicom_tags import doubts
from common.errors import ConfigError, DataError, ExpertError
from common.experts.answers.agreement import (
    FOREGROUND_BAR,
    LARGE,
    STRUCTURE_BAR,
    Agreement,
    agreement,
    student_grid,
)
from common.experts.answers.at_home import HomeNNUNet
from common.experts.kinds import ORIENTATION, SPACING, is_orientation, is_spacing
from common.experts.spec import ExpertSpec, describe_hint, read_manifest
from common.geometry import Grid, most_voxels
from common.paths import check_new

from ..predict.check import Comparison
from ..predict.scans import Scan, find_scans
from ..terminal import console

__all__ = ["check"]

_BYTES = 12  # of a structure at a voxel of the student's grid: what is kept, told and computed there


def check(
    expert: Path,
    scans: Sequence[Path],
    *,
    spacing: Sequence[float] | None = None,
    orientation: str = "RAS",
    mirroring: bool | None = None,
    folds: Sequence[int | str] = (),
    together: bool = False,
    out: Path | None = None,
) -> list[Agreement]:
    """Print a table per scan and refuse an expert that is not heard as at home.

    Args:
        expert: a description that ``experts describe`` wrote, of one nnU-Net.
        scans: files, folders of files, or DICOM series.
        spacing: mm of the student's grid; the expert's own when None.
        orientation: axis codes of the student's grid.
        mirroring: whether both answer for mirrored scans, too; as at home when None.
        folds: those that answer together; the description's when empty.
        together: ``scans`` are the channels of one scan, in the expert's order.
        out: JSON file for what was found, written when nothing is refused.

    Returns:
        one entry per scan.

    Raises:
        ConfigError: for a spacing or axis codes that are none, or a spacing that makes a grid too large.
        ExpertError: for an expert that is described wrongly, with what differs.
        DataError: without a scan, and for scans that are surely none of what the expert reads.
    """
    _check_options(spacing, orientation, out)
    spec = _one(expert)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    home = HomeNNUNet(spec, folds=tuple(folds), mirroring=mirroring, device=device)
    found = [s for path in scans for s in find_scans(path, len(spec.channels))]
    found = [Scan(found[0].name, tuple(scans))] if together and found else found
    found = [_compared(scan, spec) for scan in found]
    if not found:
        raise DataError("an expert is checked on a scan", where=expert, got="none", hint="give one file or folder")
    wanted = spacing or spec.spacing
    if wanted is None:
        raise ExpertError("the student's spacing is not known", where=spec.name, hint="add --spacing 1.5,1.5,1.5")
    results = []
    for scan in found:
        image = _read(scan, len(spec.channels))
        result = agreement(home, image, _grid(image, wanted, orientation, len(spec.labels)))
        console().print(_table(scan.name, result))
        results.append(result)
    wrong = {s.name: r.below for s, r in zip(found, results, strict=True) if r.below}
    if wrong:
        text = "; ".join(f"{n}: {', '.join(f'{k} {v:.3f}' for k, v in below.items())}" for n, below in wrong.items())
        raise ExpertError("the expert is not heard as it speaks at home", where=spec.name, got=text,
                          expected=f"Dice {FOREGROUND_BAR} of all, {STRUCTURE_BAR} of structures above {LARGE} voxels",
                          hint=describe_hint(spec.path, spec.task, "--training_files FOLDER")
                               + ", and --profile where it lives in a program")  # fmt: skip
    if out is not None:
        entries = {s.name: asdict(r) for s, r in zip(found, results, strict=True)}
        with atomic_write(out) as temporary:
            temporary.write_text(json.dumps({"expert": spec.sha256, "scans": entries}, indent=2) + "\n", "utf-8")
    return results


def _check_options(spacing: Any, orientation: Any, out: Path | None) -> None:
    """Refuse what the student's grid cannot be, and a file that cannot be written, before an expert is asked."""
    if spacing is not None and not is_spacing(spacing):
        raise ConfigError("this is no spacing", where="--spacing", got=f"{spacing!a:.100}", expected=SPACING)
    if not is_orientation(orientation):
        raise ConfigError("these are no axis codes", where="--orientation", got=f"{orientation!a:.100}",
                          expected=ORIENTATION)  # fmt: skip
    if out is not None:
        check_new(out, error=ConfigError)


def _grid(image: MetaTensor, spacing: Sequence[float], orientation: str, structures: int) -> Grid:
    grid = student_grid(image, spacing, orientation)
    most = most_voxels(_BYTES * (structures + 1))
    if math.prod(grid.shape) > most:
        raise ConfigError("the student's grid would have too many voxels", where="--spacing",
                          got=f"{' x '.join(map(str, grid.shape))} voxels of {', '.join(map(str, spacing))} mm",
                          expected=f"at most {most:,}, which this machine holds")  # fmt: skip
    return grid


def _one(path: Path) -> ExpertSpec:
    specs = read_manifest(path)
    if len(specs) != 1:
        raise ExpertError("one expert is checked at a time", where=path, got=", ".join(s.name for s in specs),
                          hint="python -m tools experts describe writes a file for each")  # fmt: skip
    return specs[0]


def _compared(scan: Scan, spec: ExpertSpec) -> Scan:
    """A scan in the expert's order, by what a ``dataset.json`` beside it and DICOM say; see :mod:`..predict.check`."""
    reads = Contract(spec.channels, {" + ".join(spec.channels): {"channels": list(spec.channels)}}, origin=spec.name)
    compared = Comparison(reads)
    try:
        scan = compared.ordered(scan)
        tag = modality_tag(scan.files[0]) if scan.dicom else ""
        if tag:
            where, said = scan.files[0], compared.said.get(scan.name)
            fit = reads.fit(None, tag=tag, where=where)
            called = spec.channels if said is None else said.channels
            compared.notes += [*fit.notes, *(f"{where}: {line}" for line in doubts(tag, called))]
    except DataError as error:
        hint = f"check {spec.name} on scans that it reads, or correct what says that these are something else"
        raise DataError(error.problem, where=error.where, got=error.got, expected=error.expected,
                        hint=hint) from error  # fmt: skip
    for line in dict.fromkeys(compared.notes):
        console().print(line, soft_wrap=True, markup=False)
    return scan


def _read(scan: Scan, channels: int) -> MetaTensor:
    if scan.dicom:
        return read_dicom(scan.files[0]).image
    return read_volume(scan.files, channels=[str(c) for c in range(channels)])


def _table(name: str, result: Agreement) -> Table:
    table = Table("structure", "voxels", "Dice", "on the student's grid", title=name)
    for structure, dice in result.structures.items():
        table.add_row(structure, f"{result.voxels[structure]:,}", f"{dice:.4f}", f"{result.student[structure]:.4f}")
    every = f"{result.foreground:.4f}", f"{result.student['foreground']:.4f}"
    table.add_row("all foreground", f"{sum(result.voxels.values()):,}", *every)
    table.add_row("what the grid alone costs", "", "", f"{result.grid:.4f}")
    return table
