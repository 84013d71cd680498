"""Pictures of the student's answer beside the experts': for a glance, and for the page's viewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from common.atomic import atomic_write
from common.engine.monitor.overlays import class_colors, radiological
from common.figure_text import save_figure
from common.labels import LabelSpace
from common.literals import file_name

from ..report.volumes import coarsened, encoded

__all__ = ["Layer", "Shown", "draw", "fitting", "for_viewer"]

_MEGABYTES = 12.0


class Layer(NamedTuple):
    """Somebody's answer: a map of the student's indices ``[X, Y, Z]``."""

    title: str
    classes: Tensor


class Shown(NamedTuple):
    """A scan ``[C, X, Y, Z]`` with the answers about it, the student's first."""

    task: str
    case: str
    image: MetaTensor
    layers: tuple[Layer, ...]


def draw(folder: Path, one: Shown, labels: LabelSpace) -> dict[str, str]:
    """Draw the axial slice that shows most, with each answer in a panel of its own.

    Args:
        folder: of the pictures.
        one: the scan.
        labels: the student's structures.

    Returns:
        ``task``, ``case`` and the ``file``'s name.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    arrays = [np.asarray(one.image[0]), *(layer.classes.numpy().astype(np.int64) for layer in one.layers)]
    turned, spacing = radiological(arrays, one.image.affine)
    image, *maps = (t for t in turned if t is not None)
    counts = sum((m > 0).sum((0, 1)) for m in maps)
    place = int(np.argmax(counts)) if np.any(counts) else image.shape[2] // 2
    low, high = np.percentile(image, (0.5, 99.5))
    width = 3.4
    tall = width * image.shape[1] * spacing[1] / (image.shape[0] * spacing[0])
    figure = Figure(figsize=(width * len(maps), tall + 0.9), layout="constrained", facecolor="black")
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    colours = class_colors(len(labels))
    for panel, layer, classes in zip(panels, one.layers, maps, strict=True):
        aspect = spacing[1] / spacing[0]
        shown = {"origin": "lower", "aspect": aspect}
        panel.imshow(image[:, :, place].T, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), **shown)
        panel.imshow(_painted(classes[:, :, place], colours).transpose(1, 0, 2), interpolation="nearest", **shown)
        panel.set_title(layer.title, color="white", fontsize=10)
        panel.set_axis_off()
    present = sorted({int(v) for m in maps for v in np.unique(m[:, :, place])} - {0})
    entries = [Patch(color=colours[i - 1], label=labels.names[i - 1]) for i in present]
    if entries:
        figure.legend(
            handles=entries, loc="outside lower center", ncols=6, frameon=False, labelcolor="white", fontsize=8
        )
    path = folder / f"{file_name(one.task, one.case)}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        save_figure(figure, temporary, format="png", dpi=110, facecolor="black")
    return {"task": one.task, "case": one.case, "file": path.name}


def _painted(classes: NDArray[Any], colours: Sequence[str]) -> NDArray[np.float32]:
    from matplotlib.colors import to_rgb

    layer = np.zeros((*classes.shape, 4), dtype=np.float32)
    for index, colour in enumerate(colours, start=1):
        layer[classes == index] = (*to_rgb(colour), 0.5)
    return layer


def for_viewer(one: Shown, labels: LabelSpace) -> dict[str, Any]:
    """A scan as the page's viewer loads it.

    Args:
        one: the scan.
        labels: the student's structures.
    """
    sizes, affine = coarsened(one.image), one.image.affine
    layers = [{"name": layer.title, "dice": None,
               "data": encoded(MetaTensor(layer.classes[None].float(), affine=affine), sizes, "label")}
              for layer in one.layers]  # fmt: skip
    image = encoded(MetaTensor(one.image.as_tensor()[:1], affine=affine), sizes, "image")
    present = sorted({int(v) for layer in one.layers for v in torch.unique(layer.classes)} - {0})
    return {"task": one.task, "case": one.case, "dim": 3, "kind": "held back", "image": image, "layers": layers,
            "present": [i for i in present if i <= len(labels)]}  # fmt: skip


def fitting(scans: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """As many of these scans as fit into a page, at least one.

    Args:
        scans: of :func:`for_viewer`.
    """
    sizes = [(len(one["image"]) + sum(len(str(layer["data"])) for layer in one["layers"])) / 1e6 for one in scans]
    return [one for number, one in enumerate(scans) if not number or sum(sizes[: number + 1]) <= _MEGABYTES]
