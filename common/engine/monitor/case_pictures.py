"""Pictures of an evaluation's best and worst cases: three planes with the outlines of label and prediction."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from ...atomic import atomic_write
from ...figure_text import save_figure
from ...labels import LabelSpace
from ...literals import file_name

__all__ = ["COLOURS", "CasePictures", "Plane", "draw_planes", "three_planes"]

COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#7ad151", "#b07aff", "#ff8f8f", "#3fd0c9")
# Outline colours that stay apart on grey images, also for colour-blind eyes; they repeat after the tenth class.


def _colour(index: int) -> str:
    return COLOURS[(index - 1) % len(COLOURS)]


class Plane(NamedTuple):
    """One slice, first axis across and second upwards, with its pixel size in mm.

    A ``picture`` is no slice of a volume: its second axis runs downwards, and its image may have colours last.
    """

    name: str
    image: NDArray[Any] | None
    label: NDArray[Any]
    pred: NDArray[Any]
    pixel: tuple[float, float]


def _index_map(array: Any, labels: LabelSpace) -> NDArray[Any]:
    """``[X, Y, Z]`` of indices; of overlapping structures the smallest that covers a voxel is shown."""
    voxels = np.asarray(array.detach().cpu() if isinstance(array, torch.Tensor) else array)
    if labels.exclusive:
        indices: NDArray[Any] = np.rint(voxels[0]).astype(np.int16)
        return indices
    shown = np.zeros(voxels.shape[1:], np.int16)
    for i in np.argsort([-int((c > 0).sum()) for c in voxels]):
        shown[voxels[i] > 0] = i + 1
    return shown


def three_planes(
    label: NDArray[Any], pred: NDArray[Any], affine: NDArray[Any], image: MetaTensor | torch.Tensor | None, focus: int
) -> list[Plane]:
    """Axial, coronal and sagittal slices, in patient orientation, through the widest part of a structure.

    Args:
        label: ``[X, Y, Z]`` (or ``[X, Y]``) indices.
        pred: same grid.
        affine: of that grid.
        image: ``[C, ...]`` on any grid; resampled to the slices by its affine, first channel shown.
        focus: class index to centre on; the middle of the volume when it is nowhere.
    """
    if label.ndim == 2:
        pixel = (float(np.linalg.norm(affine[:2, 0])), float(np.linalg.norm(affine[:2, 1])))
        return [Plane("picture", None if image is None else _picture(image, label.shape), label, pred, pixel)]
    turn = io_orientation(affine)
    world = affine @ inv_ornt_aff(turn, label.shape)
    label, pred = apply_orientation(label, turn), apply_orientation(pred, turn)
    spacing = nibabel.affines.voxel_sizes(world)
    mask = label == focus if (label == focus).any() else pred == focus
    planes = []
    for axis, name in ((2, "axial"), (1, "coronal"), (0, "sagittal")):
        others = tuple(a for a in range(3) if a != axis)
        area = mask.sum(axis=others)
        at = int(area.argmax()) if area.any() else label.shape[axis] // 2
        pixel = (float(spacing[others[0]]), float(spacing[others[1]]))
        grey = None if image is None else _slice_of(image, world, label.shape, axis, at)
        planes.append(Plane(name, grey, label.take(at, axis), pred.take(at, axis), pixel))
    return planes


def _picture(image: torch.Tensor, size: Sequence[int]) -> NDArray[Any]:
    """``[X, Y]`` or ``[X, Y, 3]`` in the label map's size: what networks get is resized."""
    plain = torch.Tensor.as_subclass(image, torch.Tensor).detach().float().cpu()
    plain = plain if len(plain) == 3 else plain[:1]
    if plain.shape[1:] != torch.Size(size):
        plain = torch.nn.functional.interpolate(plain[None], size=tuple(size), mode="bilinear", align_corners=False)[0]
    found: NDArray[Any] = plain.permute(1, 2, 0).numpy()
    return found[..., 0] if found.shape[2] == 1 else (found - found.min()) / max(float(np.ptp(found)), 1e-6)


def _slice_of(image: Any, world: NDArray[Any], shape: Sequence[int], axis: int, at: int) -> NDArray[Any] | None:
    if not isinstance(image, MetaTensor):
        return None
    offset = np.eye(4)
    offset[axis, 3] = at
    size = [1 if a == axis else n for a, n in enumerate(shape)]
    source = MetaTensor(
        torch.Tensor.as_subclass(image[:1], torch.Tensor).detach().float().cpu(), affine=image.affine.cpu()
    )
    out = SpatialResample(mode="bilinear", padding_mode="border")(
        source, dst_affine=torch.as_tensor(world @ offset), spatial_size=size
    )
    result: NDArray[Any] = np.asarray(out)[0].take(0, axis)
    return result


def draw_planes(planes: Sequence[Plane], labels: LabelSpace, title: str, path: Path) -> None:
    """Write one PNG: grey image, label outlined solid, prediction outlined dashed, legend by name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    extents = [(p.label.shape[0] * p.pixel[0], p.label.shape[1] * p.pixel[1]) for p in planes]
    height = max(e[1] for e in extents)
    figure = Figure(figsize=(3.1 * sum(e[0] for e in extents) / height + 0.2, 3.9), dpi=110, facecolor="#14161a")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(planes), width_ratios=[e[0] for e in extents], squeeze=False)[0]
    seen: set[int] = set()
    for axis, plane, extent in zip(axes, planes, extents, strict=True):
        axis.set_facecolor("#14161a")
        axis.set_axis_off()
        axis.set_title(plane.name, color="#c9ced6", fontsize=8, pad=3)
        box = (0.0, extent[0], 0.0, extent[1])
        if plane.image is not None:
            low, high = np.percentile(plane.image, [1, 99])
            shown, top = plane.image.swapaxes(0, 1), max(high, low + 1e-6)
            axis.imshow(shown, cmap="gray", origin="lower", extent=box, vmin=low, vmax=top)
        axis.set(xlim=box[:2], ylim=box[2:], aspect="equal")
        seen |= _outlines(axis, plane, box)
        if plane.name in ("axial", "coronal"):
            axis.invert_xaxis()
        if plane.name == "picture":
            axis.invert_yaxis()
    handles = [Line2D([], [], color=_colour(i), lw=2, label=labels.names[i - 1]) for i in sorted(seen)]
    handles += [
        Line2D([], [], color="#c9ced6", lw=1.6, ls=s, label=n) for s, n in (("-", "label"), ("--", "prediction"))
    ]
    figure.legend(
        handles=handles, loc="lower center", ncols=min(6, len(handles)), fontsize=7, frameon=False, labelcolor="#e6e9ee"
    )
    figure.suptitle(title, color="#ffffff", fontsize=9, y=0.985)
    rows = -(-len(handles) // 6)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.88, bottom=0.04 + 0.055 * rows, wspace=0.03)
    with atomic_write(path) as partial:
        save_figure(figure, partial, format="png", facecolor=figure.get_facecolor())


def _outlines(axis: Any, plane: Plane, box: tuple[float, float, float, float]) -> set[int]:
    seen = set()
    for array, style, width in ((plane.label, "solid", 1.5), (plane.pred, "dashed", 1.2)):
        across = (np.arange(array.shape[0]) + 0.5) * plane.pixel[0]
        up = (np.arange(array.shape[1]) + 0.5) * plane.pixel[1]
        for i in (int(v) for v in np.unique(array) if v > 0):
            seen.add(i)
            mask = (array == i).T.astype(float)
            if min(mask.shape) < 2 or mask.all():
                continue
            colour = _colour(i)
            axis.contour(across, up, mask, levels=[0.5], colors=[colour], linewidths=width, linestyles=style)
    return seen


@dataclass(frozen=True)
class _Kept:
    case: str
    task: str
    score: float
    structure: str
    dice: float
    planes: list[Plane]


class CasePictures:
    """Keeps the slices of each task's best and worst cases while an evaluation runs and draws them at its end.

    A case's score is its mean Dice over annotated structures; its slices go through its largest annotated structure,
    and for a worst case through the structure with the lowest Dice.

    Args:
        labels: label space of label and prediction.
        keep: how many best and how many worst cases per task; 0 keeps none.
        image_key: item key of the image, used when the item has no ``raw``.
    """

    def __init__(self, *, labels: LabelSpace, keep: int = 2, image_key: str = "image") -> None:
        self.labels, self.keep, self.image_key = labels, keep, image_key
        self._best: dict[str, list[_Kept]] = {}
        self._worst: dict[str, list[_Kept]] = {}

    def clear(self) -> None:
        """Forget all cases."""
        self._best, self._worst = {}, {}

    def offer(
        self,
        item: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        *,
        pred: Any,
        label: Any,
        affine: NDArray[Any],
        annotated: NDArray[np.bool_],
    ) -> None:
        """Keep a case's slices if it is among the best or worst of its task so far."""
        scored = [r for r in rows if math.isfinite(r["dice"])]
        if not self.keep or not scored:
            return
        score = sum(r["dice"] for r in scored) / len(scored)
        largest = max(scored, key=_volume)
        lowest = min(scored, key=_dice)
        task = str(rows[0].get("task", ""))
        for store, sign, row in ((self._best, -1.0, largest), (self._worst, 1.0, lowest)):
            kept = store.setdefault(task, [])
            if len(kept) >= self.keep and sign * score >= sign * kept[-1].score:
                continue
            truth, found = (_index_map(x, self.labels) for x in (label, pred))
            hidden = [i for i, known in enumerate(annotated) if not known]
            found = np.where(np.isin(found, hidden), 0, found) if hidden else found
            image = item.get("raw", item.get(self.image_key))
            planes = three_planes(truth, found, affine, image, self.labels.index(row["structure"]))
            kept.append(_Kept(str(rows[0]["case"]), task, score, row["structure"], row["dice"], planes))
            kept.sort(key=_score if sign > 0 else _minus_score)
            del kept[self.keep :]

    def write(self, folder: Path) -> list[dict[str, Any]]:
        """Draw what was kept and write ``overlays.json``: file, kind, case, task, structure, dice, score."""
        entries: list[dict[str, Any]] = []
        for kind, store in (("worst", self._worst), ("best", self._best)):
            for task, kept in store.items():
                for rank, one in enumerate(kept, start=1):
                    if kind == "best" and any(e["task"] == task and e["case"] == one.case for e in entries):
                        continue
                    folder.mkdir(parents=True, exist_ok=True)
                    stem = file_name(f"{task}/{one.case}" if task else one.case)
                    name = f"{kind}_{rank}_{stem}_{one.dice:.3f}.png"
                    title = f"{one.case} · {one.structure} · Dice {one.dice:.3f}"
                    draw_planes(one.planes, self.labels, title, folder / name)
                    entries.append(
                        {
                            "file": name,
                            "kind": kind,
                            "case": one.case,
                            "task": task,
                            "structure": one.structure,
                            "dice": round(one.dice, 4),
                            "mean_dice": round(one.score, 4),
                        }
                    )
        if entries:
            (folder / "overlays.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
        return entries


def _volume(row: Mapping[str, Any]) -> float:
    return float(row["volume_label_ml"])


def _dice(row: Mapping[str, Any]) -> float:
    return float(row["dice"])


def _score(kept: _Kept) -> float:
    return kept.score


def _minus_score(kept: _Kept) -> float:
    return -kept.score
