"""Every problem of a data set, case by case, before anything is trained on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from ...errors import AmalgamationError, DataError, GeometryError, LabelError
from ...geometry import PLAUSIBLE_SPACING_MM, Grid
from ...intensity_range import Range, range_of
from ...paths import check_path
from ..io import read_volume
from ..volumes.nifti import open_nifti
from .datalist import places, read_collection
from .dataset import Dataset, read_dataset
from .dataset_json import SPLITS, Case, read_json
from .naming import name_doubts
from .verify_contents import Doubtful, doubtful_channels, doubtful_dicom, doubtful_intensities, other_dicom

__all__ = ["KINDS", "Problem", "check", "check_case"]

KINDS = (
    "datalist", "missing file", "unreadable", "dimensions", "channels", "non-finite", "geometry", "grid", "labels",
    "empty mask", "constant image", "header", "duplicate", "size", "intensity", "names",
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One finding.

    Args:
        case: ``task/case``, or the task or file when no case is concerned.
        file: the file concerned, or an empty string.
        kind: one of ``KINDS``.
        severity: ``"error"`` (must be corrected) or ``"warning"`` (should be known).
        got: what was found.
        expected: what would have been right.
        hint: what to do next.
    """

    case: str
    file: str
    kind: str
    severity: str
    got: str
    expected: str = ""
    hint: str = ""


def check(
    dataset_dir: str | Path,
    *,
    plausible_mm: tuple[float, float] = PLAUSIBLE_SPACING_MM,
    max_voxels: float = 1e9,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Problem]:
    """Read every file of a collection and list all problems.

    Args:
        dataset_dir: anything that ``read_collection`` reads.
        plausible_mm: accepted spacing in mm.
        max_voxels: warn when a volume would have more voxels at 1 mm.
        progress: called with ``task/case``, number done, number of all.
    """
    problems: list[Problem] = []
    try:
        datasets = list(read_collection(dataset_dir).datasets)
    except AmalgamationError as error:
        datasets = list(_leniently(dataset_dir, problems))
        if not problems:
            problems.append(_problem(error, str(dataset_dir), "datalist"))
    total, done = sum(len(d.cases()) for d in datasets), 0
    contents: dict[str, tuple[str, str]] = {}
    problems += _name_problems(datasets)
    for dataset in datasets:
        ranges: dict[str, list[Range]] = {}
        for split in SPLITS:
            for case in dataset.splits[split]:
                name = f"{dataset.name}/{case.id}"
                found, digest = check_case(
                    case, dataset, plausible_mm=plausible_mm, max_voxels=max_voxels, ranges=ranges
                )
                problems += found
                if digest:
                    problems += _duplicate(contents, digest, name, split, case)
                done += 1
                if progress:
                    progress(name, done, total)
        problems += [_doubt(d, dataset, "intensity", "warning") for d in doubtful_intensities(dataset, ranges)]
    return problems


def _name_problems(datasets: Sequence[Dataset]) -> Iterator[Problem]:
    for doubt in name_doubts(datasets):
        yield Problem(", ".join(doubt.tasks), "", "names", doubt.severity, doubt.got, "", doubt.hint)
    for dataset in datasets:
        yield from (_doubt(d, dataset, "channels", "warning") for d in doubtful_channels(dataset))


def _doubt(doubt: Doubtful, dataset: Dataset, kind: str, severity: str) -> Problem:
    name = f"{dataset.name}/{doubt.case}" if doubt.case else dataset.name
    file = next((str(c.images[0]) for c in dataset.cases() if c.id == doubt.case), "")
    return Problem(name, file, kind, severity, doubt.got, doubt.expected, doubt.hint)


def check_case(
    case: Case,
    dataset: Dataset,
    *,
    plausible_mm: tuple[float, float] = PLAUSIBLE_SPACING_MM,
    max_voxels: float = 1e9,
    ranges: dict[str, list[Range]] | None = None,
) -> tuple[list[Problem], str]:
    """Problems of one case, and the hash of its image's content (empty when it could not be read).

    ``ranges`` gets the intensities of its channels, to be compared with those of other cases.
    """
    name, found = f"{dataset.name}/{case.id}", []
    image = label = None
    try:
        image = read_volume(
            case.images, dim=dataset.dim, channels=dataset.channels, finite=False, plausible_mm=plausible_mm
        )
        found += list(_image_problems(image, name, case, max_voxels))
        told = [range_of(channel.numpy()) for channel in image.as_tensor()]
        if ranges is not None and None not in told:
            ranges[case.id] = [r for r in told if r is not None]
        other = other_dicom(dataset, case)
        found += [] if other is None else [_doubt(other, dataset, "channels", "error")]
        found += [_doubt(d, dataset, "channels", "warning") for d in doubtful_dicom(dataset, case)]
    except AmalgamationError as error:
        found.append(_problem(error, name, _kind(error), case.images[0]))
    if case.label is not None:
        try:
            label = read_volume(case.label, dim=dataset.dim, finite=False, plausible_mm=plausible_mm)
            found += list(_label_problems(label, name, case.label, dataset))
        except AmalgamationError as error:
            found.append(_problem(error, name, _kind(error), case.label))
    if image is not None and label is not None:
        difference = Grid.of(image).difference(Grid.of(label))
        if difference:
            hint = "resample the label map onto the image's grid (nearest neighbour)"
            got, expected = f"{difference}", f"label on the image's grid: {Grid.of(image)}"
            found.append(Problem(name, str(case.label), "grid", "error", got, expected, hint))
    digest = "" if image is None else hashlib.sha256(np.ascontiguousarray(image.numpy()).tobytes()).hexdigest()
    return found, digest


def _image_problems(image: MetaTensor, name: str, case: Case, max_voxels: float) -> Iterator[Problem]:
    file = str(case.images[0])
    bad = int((~torch.isfinite(image.as_tensor())).sum())
    if bad:
        got, hint = f"{bad} of {image.numel()} voxels are NaN or infinite", "replace them by the background's intensity"
        yield Problem(name, file, "non-finite", "error", got, "finite intensities", hint)
    for i, channel in enumerate(image.as_tensor()):
        if not bad and float(channel.min()) == float(channel.max()):
            path = str(case.images[min(i, len(case.images) - 1)])
            hint = "look at the scan: it shows nothing"
            yield Problem(name, path, "constant image", "warning", f"all voxels are {float(channel.min()):g}", "", hint)
    grid = Grid.of(image)
    at_one_mm = float(np.prod(grid.resampled_shape([1.0] * len(grid.shape)), dtype=float))
    if at_one_mm > max_voxels:
        got, hint = f"{at_one_mm:.3g} voxels at 1 mm ({grid})", "is the spacing right? resampling may need much memory"
        yield Problem(name, file, "size", "warning", got, f"at most {max_voxels:.3g}", hint)
    if len(grid.shape) == 3 and min(grid.shape) == 1:
        got, hint = f"a single slice {grid.shape}", 'use a 2-D dataset ("dim": 2) or full volumes'
        yield Problem(name, file, "dimensions", "warning", got, "a volume", hint)
    yield from _header_problems(case, name)


def _header_problems(case: Case, name: str) -> Iterator[Problem]:
    for path in case.images:
        if not path.name.lower().endswith((".nii", ".nii.gz")):
            continue
        header = open_nifti(path).header
        if int(header["sform_code"]) == 0:
            got, hint = "no sform; the qform was used", "check left and right once, then store an sform"
            yield Problem(name, str(path), "header", "warning", got, "sform_code > 0", hint)


def _label_problems(label: MetaTensor, name: str, path: Path, dataset: Dataset) -> Iterator[Problem]:
    values = torch.unique(label.as_tensor())
    whole = values[torch.isfinite(values) & (values == values.round())]
    odd = [v for v in values.tolist() if v not in set(whole.tolist())]
    if odd:
        got, hint = f"fractional or non-finite values {_few(odd)}", "export the map again with nearest neighbour"
        yield Problem(name, str(path), "labels", "error", got, "integers", hint)
    declared = {0, *dataset.labels.values}
    unknown = [int(v) for v in whole.tolist() if int(v) not in declared]
    if unknown:
        got, hint = f"undeclared values {_few(unknown)}", 'declare them in "labels" or remove them from the map'
        yield Problem(name, str(path), "labels", "error", got, str(dataset.labels.to_json()), hint)
    if not odd and whole.tolist() == [0]:
        hint = "legitimate for a case without the structures; it counts as background only"
        yield Problem(name, str(path), "empty mask", "warning", "no structure is annotated", "", hint)


def _few(values: list[Any]) -> str:
    shown = ", ".join(f"{v:g}" for v in values[:6])
    return f"{shown}, ... ({len(values)} values)" if len(values) > 6 else shown


def _duplicate(
    contents: dict[str, tuple[str, str]], digest: str, name: str, split: str, case: Case
) -> Iterator[Problem]:
    if digest not in contents:
        contents[digest] = (name, split)
        return
    other, other_split = contents[digest]
    leak = split != other_split
    if not leak and other.split("/")[0] != name.split("/")[0]:
        return  # one scan annotated for two tasks
    got = f"same voxels as {other}" + (f" ({other_split}, here {split})" if leak else "")
    hint = "the evaluation would be on training data: drop one" if leak else "drop one of the two"
    yield Problem(name, str(case.images[0]), "duplicate", "error" if leak else "warning", got, "different scans", hint)


def _leniently(dataset_dir: str | Path, problems: list[Problem]) -> Iterator[Dataset]:
    """Datasets one by one, with the problems of their entries reported instead of raised."""
    for folder in _folders(dataset_dir):
        found: list[DataError] = []
        try:
            yield read_dataset(folder, found.append)
        except AmalgamationError as error:
            problems.append(_problem(error, folder.name, "datalist"))
        problems += [_problem(e, folder.name, "datalist") for e in found]


def _folders(dataset_dir: str | Path) -> list[Path]:
    found = places(str(dataset_dir))
    result: list[Path] = []
    for part in [found] if isinstance(found, Path) else found:
        check_path(part, what="data folder")
        listing = part if part.is_file() else part / "collection.json"
        if (part / "dataset.json").is_file() or (part.name == "dataset.json" and part.is_file()):
            result.append(part.parent if part.is_file() else part)
        elif listing.is_file():
            try:
                named = read_json(listing).get("datasets", [])
            except DataError:
                named = []
            result += [listing.parent / str(f) for f in named if isinstance(named, list)]
        else:
            result += sorted(p.parent for p in part.glob("*/dataset.json"))
    return result


def _kind(error: AmalgamationError) -> str:
    text = error.problem
    rules = {
        "does not exist": "missing file", "voxels is missing": "missing file", "channel": "channels",
        "-D": "dimensions", "NaN": "non-finite",
        "cannot be read": "unreadable", "empty": "unreadable", "readable": "unreadable", "truncated": "unreadable",
        "decoded": "unreadable", "folder holds": "unreadable", "no DICOM image": "unreadable",
    }  # fmt: skip
    if isinstance(error, LabelError):
        return "labels"
    if "affine" in text or "spacing" in text or "sheared" in text:
        return "geometry"
    other = "geometry" if isinstance(error, GeometryError) else "unreadable"
    return next((kind for part, kind in rules.items() if part in text), other)


def _problem(error: AmalgamationError, case: str, kind: str, file: Path | None = None) -> Problem:
    got = error.problem if error.got is None else f"{error.problem}: {error.got}"
    place = str(error.where or file or "")
    name = place.rsplit("case ", 1)[1] if kind == "datalist" and ", case " in place else ""
    return Problem(
        case=f"{case}/{name}" if name else case,
        file=place,
        kind=kind,
        severity="error",
        got=got,
        expected=str(error.expected or ""),
        hint=error.hint or "",
    )
