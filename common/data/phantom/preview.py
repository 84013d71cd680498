"""A contact sheet of phantom datasets (or any NIfTI or PNG dataset): images beside their label maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import DataError
from ...figure_text import save_figure
from ...plain_json import read_object

__all__ = ["contact_sheet"]

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#ffe119", "#46f0f0", "#f032e6", "#bcf60c", "#fabebe", "#008080")


def contact_sheet(datasets: list[Path], path: Path, *, columns: int = 4) -> Path:
    """Draw one row per dataset: ``columns`` training cases, each as image and as overlay, with a legend.

    Volumes are shown as the axial slice with most structures, patient's right on the left side of the picture.

    Args:
        datasets: folders with a ``dataset.json``.
        path: the PNG to write.
        columns: cases per dataset.

    Returns:
        ``path``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * columns, 2.4 * len(datasets)), facecolor="black")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(datasets), 2 * columns, squeeze=False)
    figure.subplots_adjust(
        left=0.005, right=0.995, top=1 - 0.06 / len(datasets), bottom=0.14 / len(datasets), wspace=0.02, hspace=0.3
    )
    for row, folder in zip(grid, datasets, strict=True):
        data = read_object(folder / "dataset.json", error=DataError)
        cases = data["training"][:columns]
        for axis in row:
            axis.set_axis_off()
        for i, case in enumerate(cases):
            image, label, aspect = _slice(folder / case["image"], folder / case["label"])
            row[2 * i].imshow(image, cmap="gray", aspect=aspect)
            row[2 * i + 1].imshow(_overlay(image, label), aspect=aspect)
            row[2 * i].set_title(case["id"], color="white", fontsize=8)
        _legend(row[0], data)
    save_figure(figure, path, dpi=90, metadata={"Software": None})
    return path


def _slice(image: Path, label: Path) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Display image in 0..1, its labels, and the pixel aspect."""
    if image.suffix == ".png":
        return np.asarray(Image.open(image)) / 255.0, np.asarray(Image.open(label)), 1.0
    volume, mask = (nib.as_closest_canonical(nib.load(p)) for p in (image, label))
    array, labels = np.asarray(volume.dataobj), np.asarray(mask.dataobj)
    score = [len(np.unique(labels[..., k])) * 1e6 + np.count_nonzero(labels[..., k]) for k in range(labels.shape[2])]
    k = int(np.argmax(score))
    low, high = (-160, 280) if array.min() < -500 else np.percentile(array, (0.5, 99.0))
    picture = np.clip((array[..., k].astype(float) - low) / (high - low), 0, 1)
    dx, dy = volume.header.get_zooms()[:2]
    return np.rot90(picture)[:, ::-1], np.rot90(labels[..., k])[:, ::-1], float(dy / dx)


def _overlay(image: NDArray[Any], label: NDArray[Any]) -> NDArray[Any]:
    from matplotlib.colors import to_rgb

    rgb = image.copy() if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    for value in np.unique(label[label > 0]):
        where = label == value
        rgb[where] = 0.5 * rgb[where] + 0.5 * np.array(to_rgb(COLOURS[(int(value) - 1) % len(COLOURS)]))
    return rgb


def _legend(axis: Any, data: dict[str, Any]) -> None:
    from matplotlib.patches import Patch

    names = sorted((value, name) for name, value in data["labels"].items() if value)
    handles = [Patch(color=COLOURS[(v - 1) % len(COLOURS)], label=n) for v, n in names]
    box = axis.get_position(original=True)
    title = f"{data['name']}  ({', '.join(data['channel_names'].values())})"
    axis.figure.text(box.x0 + 0.002, box.y0 - 0.01, title, color="white", fontsize=9, weight="bold", va="top")
    axis.figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(box.x0 + 0.2, box.y0),
        ncol=len(handles),
        fontsize=8,
        frameon=False,
        labelcolor="white",
        handlelength=1,
    )
