"""DICOM series folders: one complete, evenly spaced series, or a refusal that says why and which option accepts it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor

from ...errors import DataError, GeometryError
from .contents import left_out, no_image
from .grid import regular, series_grid, stacks
from .pixels import decodable, read_planes, read_stack
from .slices import Refused, Slice, predict_takes, scan_files

__all__ = ["DicomVolume", "SeriesOptions", "list_series", "read_dicom", "read_series"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeriesOptions:
    """What to take from a folder, and which faults to accept; by default none.

    Args:
        series: SeriesInstanceUID, SeriesNumber or SeriesDescription, for a folder with several.
        stack: which stack (from 1, as the message lists them) of a series that mixes sizes, orientations or phases.
        fill_gaps: interpolate missing and unevenly spaced slices.
        straighten: undo gantry tilt.
        skip_broken: leave files out that cannot be read or decoded.
        skip_repeated: leave out slices that are there twice with the same pixels.
    """

    series: str | None = None
    stack: int | None = None
    fill_gaps: bool = False
    straighten: bool = False
    skip_broken: bool = False
    skip_repeated: bool = False


class DicomVolume(NamedTuple):
    """A series as a volume ``[1, X, Y, Z]``, the slices it came from by height, and what was done to it in words."""

    image: MetaTensor
    slices: tuple[Slice, ...]
    notes: tuple[str, ...]


def list_series(folder: str | Path) -> dict[str, list[Slice]]:
    """Slices of every image series in a folder (not below it), by SeriesInstanceUID, in file order.

    Raises:
        DataError: for an unreadable ``.dcm`` file, or a file that is no plain slice.
    """
    slices, refused = scan_files(Path(folder))
    if refused:
        raise refused[0].error
    return _by_series(slices)


def read_series(folder: str | Path, series: str | None = None) -> MetaTensor:
    """Read one faultless series as ``[1, X, Y, Z]`` with rescaled intensities (HU for CT), slices in spatial order.

    Args:
        folder: folder of slices or of one enhanced (multi-frame) image, or one file.
        series: SeriesInstanceUID, number or description; may be None when the folder holds one series.

    Raises:
        DataError: when there is no or more than one series, or a file cannot be decoded.
        GeometryError: for missing, repeated, uneven, tilted or mixed slices.
    """
    return read_dicom(folder, SeriesOptions(series=series)).image


def read_dicom(folder: str | Path, options: SeriesOptions | None = None) -> DicomVolume:
    """Read one series, accepting the faults that the options name; what was done is returned and logged.

    Raises:
        DataError: as :func:`read_series`.
        GeometryError: as :func:`read_series`, and when more slices would be invented than there are.
    """
    folder, options = Path(folder), options or SeriesOptions()
    notes: list[str] = []
    slices, refused = scan_files(folder)
    chosen = _choose(_by_series(slices), refused, options, folder)
    _refuse_broken(refused, chosen, options, folder, notes)
    notes += left_out(folder, [*(s.path for s in slices), *(r.path for r in refused)])
    if options.skip_broken:
        chosen = _whole(chosen, folder, notes)
    if options.skip_repeated:
        chosen = _single(chosen, notes)
    stack = _one_stack(chosen, options.stack, folder)
    if not (options.fill_gaps or options.straighten):
        series_grid(stack, folder)  # refuse before the pixels are decoded
    pixels = read_stack(stack, folder)
    voxels, grid, done = regular(stack, pixels, folder, straighten=options.straighten, fill=options.fill_gaps)
    if voxels.shape != grid.shape:
        raise GeometryError("the decoded size differs from the header's", where=folder, got=voxels.shape, expected=grid)
    notes += done
    for note in notes:
        logger.warning("%s: %s", folder, note)
    meta = {
        "filename_or_obj": str(folder),
        "original_affine": grid.affine.copy(),
        "spatial_shape": np.asarray(grid.shape),
        "original_channel_dim": float("nan"),
        "space": "RAS",
    }
    image = MetaTensor(torch.from_numpy(voxels)[None], affine=torch.from_numpy(grid.affine.copy()), meta=meta)
    return DicomVolume(image, tuple(stack), tuple(notes))


def _by_series(slices: Sequence[Slice]) -> dict[str, list[Slice]]:
    found: dict[str, list[Slice]] = {}
    for one in slices:
        found.setdefault(one.series, []).append(one)
    return found


def _listing(found: dict[str, list[Slice]]) -> str:
    rows = []
    for uid, slices in found.items():
        one = slices[0]
        named = one.description or "no description"
        rows.append(f"{uid} ({len(slices)} slices, {named}{f', number {one.number}' if one.number else ''})")
    return "; ".join(rows)


def _choose(
    found: dict[str, list[Slice]], refused: Sequence[Refused], options: SeriesOptions, folder: Path
) -> list[Slice]:
    wanted = options.series
    if wanted is None:
        if refused and not options.skip_broken:
            raise refused[0].error
        if not found:
            raise _no_series(folder)
        if len(found) > 1:
            raise DataError(
                f"the folder holds {len(found)} series",
                where=folder,
                got=_listing(found),
                expected="one series",
                hint=f"give each series its own folder; {predict_takes('--series UID, NUMBER or DESCRIPTION')}",
            )
        return next(iter(found.values()))
    matches = [u for u, s in found.items() if wanted in (u, str(s[0].number), s[0].description)]
    if len(matches) != 1:
        known = [r.error for r in refused if r.series == wanted]
        if known:
            raise known[0]
        problem = "several series are called so" if matches else "the folder has no such series"
        raise DataError(problem, where=folder, got=wanted, expected=_listing(found) or "no image series at all")
    return found[matches[0]]


def _no_series(folder: Path) -> DataError:
    other = no_image(folder)
    if other is None:
        return DataError("no DICOM image series here", where=folder, hint="give the folder of the slices itself")
    words, _, way = other[1].partition("; ")
    return DataError(
        f"no DICOM image series here, but {words}",
        where=folder,
        got=f"modality {other[0]}",
        expected="slices of a scan",
        hint=way or "give the folder of the slices that it belongs to",
    )


def _refuse_broken(
    refused: Sequence[Refused], chosen: Sequence[Slice], options: SeriesOptions, folder: Path, notes: list[str]
) -> None:
    """Files that belong to the series, or may; those of other series are nobody's concern."""
    ours = [r for r in refused if r.series in (None, chosen[0].series)]
    if ours and not options.skip_broken:
        raise ours[0].error
    notes += [f"left out {r.path.name}: {r.error.problem}" for r in ours]


def _whole(slices: Sequence[Slice], folder: Path, notes: list[str]) -> list[Slice]:
    """The slices whose pixels are complete."""
    good: dict[Path, bool] = {}
    for one in slices:
        if one.path not in good:
            good[one.path] = decodable(one)
    notes += [f"left out {path.name}: its pixels are damaged" for path, whole in good.items() if not whole]
    kept = [s for s in slices if good[s.path]]
    if not kept:
        raise DataError("no slice of the series can be decoded", where=folder, got=f"{len(good)} damaged files")
    return kept


def _single(slices: Sequence[Slice], notes: list[str]) -> list[Slice]:
    """Without the slices that repeat an earlier one: same place, same pixels."""
    kept: list[Slice] = []
    for one in slices:
        twins = [k for k in kept if np.allclose(k.position, one.position, atol=1e-3) and k.size == one.size]
        pixels = read_planes([one, *twins]) if twins else []
        twin = next((k for k, p in zip(twins, pixels[1:], strict=True) if np.array_equal(p, pixels[0])), None)
        if twin is None:
            kept.append(one)
        else:
            notes.append(f"left out {one.name}: the same slice as {twin.name}")
    return kept


def _one_stack(slices: Sequence[Slice], number: int | None, folder: Path) -> list[Slice]:
    parts = stacks(slices)
    listing = "; ".join(f"{i}: {words}" for i, (words, _) in enumerate(parts, start=1))
    if number is not None and not 1 <= number <= len(parts):
        raise DataError("the series has no such stack", where=folder, got=number, expected=listing)
    if number is not None or len(parts) == 1:
        return parts[(number or 1) - 1][1]
    mixed = len({(s.size, s.spacing, s.orientation) for _, part in parts for s in part[:1]}) > 1
    several = "slices have one position: the series holds several phases"
    raise GeometryError(
        "the series mixes slices of different size, orientation or spacing" if mixed else several,
        where=folder,
        got=listing,
        expected="one stack of slices",
        hint=f"give each stack its own folder; {predict_takes('--stack 1')}, by its number",
    )
