"""Pictures of predictions over the image, in three planes, so that a glance shows what the numbers mean."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from torch import Tensor

from ...atomic import atomic_write
from ...errors import DataError
from ...figure_text import save_figure
from ...labels import LabelSpace
from ...literals import file_name
from .finished_cases import finished_cases

__all__ = ["Overlays", "class_colors", "draw_overlay", "radiological"]

logger = logging.getLogger(__name__)

_PALETTE = (
    "#e6550d", "#1f9ede", "#31a354", "#d62fd0", "#f2c80f", "#7b5cd6", "#00b8a9", "#e31a5b", "#8c6d31", "#7bd13a",
    "#3d5afe", "#ff8f80", "#b0b7c3", "#007f5f", "#ad1457",
)  # fmt: skip


def class_colors(count: int) -> list[str]:
    """One clearly different colour per class, the same for every picture; the palette repeats beyond 15."""
    return [_PALETTE[i % len(_PALETTE)] for i in range(count)]


class Overlays:
    """Draws the first cases of every validation: the reference as contours, the prediction as coloured areas.

    Files are ``<output_dir>/overlays/<case>.png`` and always show the latest validation.

    Args:
        output_dir: the run's folder.
        labels: names of the structures.
        image: key of the image ``[C, X, Y(, Z)]`` in the batch; one channel of it is shown.
        label: key of the reference, indices ``[1, ...]`` or one-hot ``[K+1, ...]``; may be missing.
        pred: key of the prediction, indices, one-hot or logits.
        channel: which channel of the image to show.
        cases: number of cases per validation, >= 0.
        every: validations between two drawings, >= 1.
    """

    def __init__(
        self,
        *,
        output_dir: str | Path,
        labels: LabelSpace,
        image: str = "image",
        label: str = "label",
        pred: str = "pred",
        channel: int = 0,
        cases: int = 4,
        every: int = 1,
    ) -> None:
        self.folder = Path(output_dir) / "overlays"
        self.labels = labels
        self.image, self.label, self.pred = image, label, pred
        self.channel = channel
        self.cases = cases
        self.every = max(1, every)
        self._drawn = 0
        self._run = 0

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_STARTED, self._started)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)

    def _started(self, _engine: Engine) -> None:
        self._drawn = 0
        self._run += 1

    def _iteration(self, engine: Engine) -> None:
        if (self._run - 1) % self.every:
            return
        for values in finished_cases(engine):
            if self._drawn >= self.cases:
                return
            case = str(values.get("case", f"case_{self._drawn}"))
            names = (values["task"], case) if isinstance(values.get("task"), str) else (case,)
            arrays = (
                _array(values[self.image])[self.channel],
                _indices(values.get(self.label)),
                _indices(values.get(self.pred)),
            )
            (image, label, pred), spacing = radiological(arrays, getattr(values[self.image], "affine", None))
            if image is None:  # only what is None before is None afterwards
                continue
            draw_overlay(
                self.folder / f"{file_name(*names)}.png",
                image=image,
                label=label,
                pred=pred,
                labels=self.labels,
                spacing=spacing,
                title=f"{case}, epoch {engine.state.epoch}",
            )
            self._drawn += 1


def draw_overlay(
    path: Path,
    *,
    image: NDArray[Any],
    label: NDArray[Any] | None,
    pred: NDArray[Any] | None,
    labels: LabelSpace,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    title: str = "",
) -> None:
    """Write one picture: three planes through the largest structures (one for 2-D images).

    Args:
        path: PNG file.
        image: ``[X, Y]`` or ``[X, Y, Z]`` intensities.
        label: reference indices on the same grid, or None.
        pred: predicted indices on the same grid, or None.
        labels: names of the structures.
        spacing: voxel size in mm, for the aspect ratio.
        title: heading.

    Raises:
        DataError: when the shapes differ.
    """
    from matplotlib.figure import Figure

    for name, array in (("label", label), ("pred", pred)):
        if array is not None and array.shape != image.shape:
            raise DataError(f"{name} and image differ in shape", where=title, got=array.shape, expected=image.shape)
    views = _planes(image, label if label is not None and label.any() else pred, spacing)
    ratios = [extent[0] / extent[1] for *_, extent in views]
    height = 3.6
    figure = Figure(figsize=(height * sum(ratios) + 1.9, height + 0.35), layout="constrained", facecolor="black")
    panels = figure.subplots(1, len(views), squeeze=False, width_ratios=ratios)[0]
    low, high = np.percentile(image[np.isfinite(image)], (0.5, 99.5)) if np.isfinite(image).any() else (0, 1)
    for panel, (name, cut, extent) in zip(panels, views, strict=True):
        aspect = (extent[1] / cut(image).shape[1]) / (extent[0] / cut(image).shape[0])
        panel.imshow(cut(image).T, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), origin="lower", aspect=aspect)
        _paint(panel, None if label is None else cut(label), None if pred is None else cut(pred), labels, aspect)
        if image.ndim == 2:  # a picture's second axis runs downwards
            panel.invert_yaxis()
        panel.set_title(name, color="white", fontsize=9)
        panel.set_axis_off()
    _legend(figure, label, pred, labels)
    figure.suptitle(title, color="white", fontsize=10)
    with atomic_write(path) as temporary:
        save_figure(figure, temporary, format="png", dpi=130, facecolor="black")


def _planes(image: NDArray[Any], mask: NDArray[Any] | None, spacing: Sequence[float]) -> list[tuple[str, Any, Any]]:
    """``(name, cut, (width mm, height mm))`` of every plane, through the slice with most foreground."""
    size = [n * s for n, s in zip(image.shape, spacing, strict=False)]
    if image.ndim == 2:
        return [("", _Cut(None, 0), (size[0], size[1]))]
    views = []
    for axis, name in ((2, "axial"), (1, "coronal"), (0, "sagittal")):
        others = tuple(a for a in range(3) if a != axis)
        counts = (mask > 0).sum(axis=others) if mask is not None and mask.any() else None
        index = image.shape[axis] // 2 if counts is None else int(counts.argmax())
        views.append((f"{name} {index}", _Cut(axis, index), (size[others[0]], size[others[1]])))
    return views


class _Cut:
    """Takes one slice out of a volume."""

    def __init__(self, axis: int | None, index: int) -> None:
        self.axis, self.index = axis, index

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        return array if self.axis is None else np.take(array, self.index, axis=self.axis)


def _paint(
    panel: Any, label: NDArray[Any] | None, pred: NDArray[Any] | None, labels: LabelSpace, aspect: float
) -> None:
    from matplotlib.colors import to_rgb

    colors = class_colors(len(labels))
    if pred is not None:
        layer = np.zeros((*pred.shape, 4), dtype=np.float32)
        for index, color in enumerate(colors, start=1):
            layer[pred == index] = (*to_rgb(color), 0.42)
        panel.imshow(layer.transpose(1, 0, 2), origin="lower", interpolation="nearest", aspect=aspect)
    if label is not None:
        for index, color in enumerate(colors, start=1):
            mask = (label == index).T.astype(np.float32)
            if mask.any():
                panel.contour(np.pad(mask, 1), levels=[0.5], colors="black", linewidths=2.4, extent=_extent(mask))
                panel.contour(np.pad(mask, 1), levels=[0.5], colors=[color], linewidths=1.3, extent=_extent(mask))


def _extent(mask: NDArray[Any]) -> tuple[float, float, float, float]:
    """Pixel coordinates of the padded mask's outermost sample points."""
    return (-1, mask.shape[1], -1, mask.shape[0])


def _legend(figure: Any, label: NDArray[Any] | None, pred: NDArray[Any] | None, labels: LabelSpace) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    present = {int(v) for array in (label, pred) if array is not None for v in np.unique(array)}
    colors = class_colors(len(labels))
    entries: list[Any] = [Patch(color=colors[i - 1], label=labels.names[i - 1]) for i in sorted(present) if i]
    if label is not None:
        entries.append(Line2D([], [], color="white", label="reference"))
    if pred is not None:
        entries.append(Patch(facecolor="white", alpha=0.42, label="prediction"))
    figure.legend(handles=entries, loc="outside right center", frameon=False, labelcolor="white", fontsize=8)


def _array(value: Any) -> NDArray[Any]:
    return np.asarray(value.detach().cpu().float() if isinstance(value, Tensor) else value)


def _indices(value: Any) -> NDArray[Any] | None:
    """Class indices of an index map ``[1, ...]`` or of one-hot or logit channels ``[K+1, ...]``."""
    if value is None:
        return None
    array = _array(value)
    indices: NDArray[Any] = array[0] if array.shape[0] == 1 else array.argmax(axis=0)
    return indices.round().astype(np.int64)


def radiological(
    arrays: Sequence[NDArray[Any] | None], affine: Any
) -> tuple[list[NDArray[Any] | None], tuple[float, ...]]:
    """Turn volumes as radiologists look at them: the patient's right on the left, front and head up.

    Args:
        arrays: ``[X, Y, Z]`` volumes on one grid, or None.
        affine: ``[4, 4]`` voxel to RAS millimetres; None or a 2-D image: nothing is turned.

    Returns:
        the volumes with axes towards left, anterior and superior, and their spacing in mm.
    """
    known = affine is not None and torch.as_tensor(affine).shape == (4, 4)
    if not known or any(a is not None and a.ndim != 3 for a in arrays):
        return list(arrays), (1.0, 1.0, 1.0)
    matrix = torch.as_tensor(affine).double().cpu().numpy()
    turn = ornt_transform(io_orientation(matrix), axcodes2ornt(("L", "A", "S")))
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    order = np.argsort(turn[:, 0])
    turned = [None if a is None else apply_orientation(a, turn) for a in arrays]
    return turned, tuple(float(lengths[i]) or 1.0 for i in order)
