"""The volumes of a comparison's viewer: a few cases, small enough for a page, with every member's answer."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation, Spacing
from numpy.typing import NDArray

from common.data.datasets.datalist import Collection, items, read_collection
from common.data.datasets.dataset_json import base_name
from common.data.transforms.loading import LoadCased
from common.data.transforms.transforms import MapLabelsd
from common.engine.monitor.case_pictures import COLOURS
from common.errors import AmalgamationError

from ..run_files import SUMMARY, inside, read_record
from .comparison import Comparison, Member
from .comparison_rows import annotated_values
from .results import Run

__all__ = ["coarsened", "encoded", "viewer_cases", "viewer_volumes"]

VOXELS = 1_200_000
"""Of a volume on the page: about 1 MB once compressed."""

_ELSEWHERE = (
    "The scans are not shown: the record names data outside of this comparison’s folder, {}. Give them to show them: "
    "python -m tools report FOLDER --dataset_dir DATA"
)

Case = tuple[str, str]
"""Task and case."""


def viewer_cases(comparison: Comparison, most: int = 6) -> list[tuple[Case, str]]:
    """Of every task the worst and the best case by the members' mean Dice, then the next tasks' until there are enough.

    Returns:
        ``((task, case), "worst" or "best")``.
    """
    values: dict[Case, list[float]] = {}
    for own in annotated_values(comparison, "dice").values():
        for (task, case, _), dice in own.items():
            if math.isfinite(dice):
                values.setdefault((task, case), []).append(dice)
    means = {c: sum(v) / len(v) for c, v in values.items()}
    found: list[tuple[Case, str]] = []
    for task in dict.fromkeys(t for t, _ in means):
        ranked = sorted((c for c in means if c[0] == task), key=means.__getitem__)
        found += [(ranked[0], "worst"), *([(ranked[-1], "best")] if len(ranked) > 1 else [])]
    return found[:most]


def viewer_volumes(
    comparison: Comparison,
    megabytes: float = 14.0,
    voxels: int = VOXELS,
    *,
    dataset_dir: str | Path | None = None,
) -> dict[str, Any]:
    """What the page's viewer loads: ``cases`` with an image and layers (gzipped NIfTI as base64), and the labels.

    Layers are the annotation and the answer of each member's first seed, all on the grid of the image, which is
    coarsened until it has no more than ``voxels``. Cases that no longer fit into ``megabytes`` are left out, as are
    files that have gone or cannot be read.

    A record may come from anywhere, so that the data which it names are read only where they lie in its own folder.

    Args:
        comparison: what is shown.
        megabytes: of base64 in all.
        voxels: of one volume.
        dataset_dir: the data of the comparison, as the user gave them; None takes those in the comparison's folder.
    """
    named = str(comparison.record.get("dataset_dir", ""))
    if dataset_dir is None and not _within(comparison.folder, [named]):
        return {"cases": [], "labels": [], "note": _ELSEWHERE.format(named)} if named else {"cases": [], "labels": []}
    try:
        collection = read_collection(named if dataset_dir is None else str(dataset_dir))
        entries = {(i.get("task", ""), i["case"]): i for i in items(collection, str(comparison.record["split"]))}
    except (AmalgamationError, KeyError):
        return {"cases": [], "labels": []}
    cases: list[dict[str, Any]] = []
    size = 0
    for case, kind in viewer_cases(comparison):
        entry = entries.get(case)
        if entry is not None and dataset_dir is None and not _within(comparison.folder, _files(entry)):
            continue
        content = _case(comparison, collection, entry, case, voxels)
        if content is None:
            continue
        size += len(json.dumps(content))
        if size > megabytes * 1e6 and cases:
            break
        cases.append({**content, "kind": kind})
    labels = [{"name": n, "colour": COLOURS[i % len(COLOURS)]} for i, n in enumerate(collection.labels.names)]
    return {"cases": cases, "labels": labels}


def _within(folder: Path, names: Sequence[str]) -> bool:
    """Whether all paths lie in a folder, wherever their links lead."""
    try:
        return all(Path(n).resolve().is_relative_to(folder.resolve()) for n in names)
    except (OSError, ValueError, RuntimeError):
        return False


def _files(entry: Mapping[str, Any]) -> list[str]:
    images = entry["image"]
    return [*([images] if isinstance(images, str) else images), *([entry["label"]] if entry.get("label") else [])]


def _case(
    comparison: Comparison, collection: Collection, entry: Mapping[str, Any] | None, case: Case, voxels: int
) -> dict[str, Any] | None:
    if entry is None or entry.get("label") is None:
        return None
    dim = collection.dataset(case[0]).dim if case[0] in collection.tasks else collection.datasets[0].dim
    try:
        data = LoadCased(keys=["image", "label"], dim=dim)({str(k): v for k, v in entry.items()})
        label = MapLabelsd(keys="label", dataset_dir=collection)(data)["label"]
    except AmalgamationError:
        return None
    image = data["image"]
    pixdim = coarsened(image, voxels) if dim == 3 else None
    layers: list[dict[str, Any]] = [{"name": "Annotation", "data": encoded(label, pixdim, "label"), "dice": None}]
    for member in comparison.members:
        answer = _answer(member, collection, case, dim)
        if answer is not None and answer.shape == label.shape:
            dice = _dice(member, case)
            layers.append({"name": member.title, "data": encoded(answer, pixdim, "label"), "dice": dice})
    return {
        "task": case[0],
        "case": case[1],
        "dim": dim,
        "image": encoded(image, pixdim, "image"),
        "layers": layers,
        "present": sorted({int(v) for v in torch.unique(torch.as_tensor(label))} - {0}),
    }


def _dice(member: Member, case: Case) -> float | None:
    """The case's mean Dice over structures, of the run whose answer is shown."""
    run = _scored(member, case)
    known = [r["dice"] for r in (run.rows if run else ()) if (r["task"], r["case"]) == case]
    known = [v for v in known if math.isfinite(v)]
    return round(sum(known) / len(known), 3) if known else None


def _scored(member: Member, case: Case) -> Run | None:
    return next((r for r in member.model.runs if any((x["task"], x["case"]) == case for x in r.rows)), None)


def _answer(member: Member, collection: Collection, case: Case, dim: int) -> Any:
    """The first run's label map with the collection's indices, None where it left none."""
    run = _scored(member, case)
    summary = run.folder / "evaluation" / "summary.json" if run else Path()
    if run is None or not summary.is_file():
        return None
    folder = run.folder / "predictions"
    places = [p for p in (inside(folder, case[0], where=f"{run.folder}, a task of its scores"), folder) if p.is_dir()]
    files = [p for place in places for p in sorted(place.iterdir()) if base_name(p) == case[1]]
    files = [f for f in files if inside(folder, str(f.relative_to(folder)), where=str(run.folder)).is_file()]
    if not files:
        return None
    try:
        answer = LoadCased(keys="pred", dim=dim)({"pred": str(files[0]), "case": case[1]})["pred"]
    except AmalgamationError:
        return None
    own = read_record(summary, SUMMARY).get("labels", {}).get("names")
    if own is None:
        return None
    names = ["", *collection.labels.names]
    table = torch.zeros(len(own) + 1, dtype=torch.int64)
    for i, name in enumerate(own, 1):
        table[i] = names.index(name) if name in names else 0
    indices = answer.as_tensor().long().clamp(0, len(own))
    return MetaTensor(table[indices], affine=answer.affine)


def coarsened(image: MetaTensor, voxels: int = VOXELS) -> list[float]:
    """Voxel sizes in mm, the fine ones made coarser until the volume is small enough.

    Args:
        image: ``[C, X, Y, Z]``.
        voxels: the most of them.
    """
    shape = np.array(image.shape[1:], float)
    size = np.linalg.norm(np.asarray(image.affine, float)[:3, :3], axis=0)
    low, high = float(size.min()), float(size.max() + size.min() * (shape.prod() / voxels))
    if shape.prod() <= voxels:
        return [float(s) for s in size]
    for _ in range(40):
        middle = (low + high) / 2
        if np.prod(shape * size / np.maximum(size, middle)) > voxels:
            low = middle
        else:
            high = middle
    return [float(s) for s in np.maximum(size, high)]


def encoded(volume: MetaTensor, pixdim: Sequence[float] | None, kind: str) -> str:
    """A volume as the page holds it: gzipped NIfTI, base64.

    Args:
        volume: ``[1, X, Y, Z]``.
        pixdim: mm of its voxels there; None for a picture.
        kind: ``image`` or ``label``.
    """
    if pixdim is None:
        return _packed(_picture(volume, kind), np.diag([1.0, -1.0, 1.0, 1.0]))
    small: Any = Spacing(pixdim=pixdim, mode="bilinear" if kind == "image" else "nearest", dtype=np.float32)(volume)
    small = Orientation(axcodes="RAS", labels=None)(small)
    array = np.asarray(small[0])
    shown = _grey(array) if kind == "image" else np.rint(array).astype(np.uint8)
    return _packed(shown, np.asarray(small.affine, np.float64))


def _grey(array: NDArray[Any]) -> NDArray[np.uint8]:
    """0..255 between the 0.5th and the 99.5th percentile."""
    low, high = np.percentile(array, [0.5, 99.5])
    grey: NDArray[np.uint8] = np.clip((array - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    return grey


def _picture(volume: MetaTensor, kind: str) -> NDArray[Any]:
    array = np.asarray(volume)[..., None]  # [C, X, Y, 1]
    if kind != "image":
        indices: NDArray[np.uint8] = np.rint(array[0]).astype(np.uint8)
        return indices
    if array.shape[0] != 3:
        return _grey(array[0])
    colours = np.ascontiguousarray(np.moveaxis(_grey(array), 0, -1))
    rgb: NDArray[Any] = colours.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    return rgb


def _packed(array: NDArray[Any], affine: NDArray[np.float64]) -> str:
    content = nibabel.Nifti1Image(array, affine).to_bytes()
    return base64.b64encode(gzip.compress(content, compresslevel=9, mtime=0)).decode("ascii")
