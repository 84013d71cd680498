"""Pictures of what gates choose: shares of the weight by modality and expert, and maps over a slice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...atomic import atomic_write
from ...errors import DataError
from ...figure_text import save_figure
from ...plain_json import read_object

__all__ = ["GateSlice", "add_captions", "draw_gate_slice", "draw_usage", "forget_pictures"]

_DARK, _PALE = "#14161a", "#c9ced6"


class GateSlice(NamedTuple):
    """One slice of a case, first axis across and second upwards, and each part's map per expert.

    Args:
        case: its id.
        task: its data set.
        modality: of the case.
        image: ``[H, W]`` intensities.
        foreground: ``[H, W]`` bool, where the prediction found a structure.
        maps: ``{encoder or decoder: [E, H, W]}`` weights 0..1.
        pixel: size in mm.
    """

    case: str
    task: str
    modality: str
    image: NDArray[Any]
    foreground: NDArray[np.bool_]
    maps: Mapping[str, NDArray[Any]]
    pixel: tuple[float, float]


def draw_usage(path: Path, shares: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Draw a heat map modality x expert per part, each share with its number, an expert's own modality framed.

    Args:
        path: PNG file.
        shares: ``{part: {modality: {expert: mean weight}}}``.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    parts = {name: table for name, table in shares.items() if table}
    first = next(iter(parts.values()))
    modalities, experts = list(first), list(next(iter(first.values())))
    wide, high = 1.0 * len(experts) + 1.4, 0.75 * len(modalities) + 1.5
    figure = Figure(figsize=(max(wide * len(parts) + 0.8, 4.5), max(high, 2.6)), dpi=110, layout="constrained")
    shown: Any = None
    panels = figure.subplots(1, len(parts), squeeze=False, sharey=True)[0]
    for panel, (name, table) in zip(panels, parts.items(), strict=True):
        values = np.array([[table[m][e] for e in experts] for m in modalities])
        shown = panel.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            colour = "white" if value < 0.6 else "black"
            panel.text(column, row, f"{100 * value:.1f}", ha="center", va="center", color=colour, fontsize=9)
            if modalities[row] == experts[column]:
                panel.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, ec="white", lw=1.4))
        panel.set_xticks(range(len(experts)), experts, rotation=0 if max(map(len, experts)) < 8 else 25)
        panel.set_yticks(range(len(modalities)), modalities)
        panel.tick_params(length=0)
        panel.set(title=name, xlabel="expert")
        for edge in panel.spines.values():
            edge.set_visible(False)
    panels[0].set_ylabel("modality of the cases")
    figure.colorbar(shown, ax=panels.tolist(), label="share of the weight", pad=0.02)
    gap = " " if len(parts) > 1 else "\n"
    figure.suptitle(f"Share of the gates' weight in %{gap}(framed: the modality's own expert)", fontsize=10)
    with atomic_write(path) as temporary:
        save_figure(figure, temporary, format="png")


def draw_gate_slice(path: Path, one: GateSlice, experts: Sequence[str]) -> None:
    """Draw a slice with the outline of the prediction, and beside it each expert's weight, a row per part.

    Args:
        path: PNG file.
        one: the slice and its maps.
        experts: names, in the order of the maps.
    """
    from matplotlib.figure import Figure

    rows, columns = len(one.maps), len(experts) + 1
    box = (0.0, one.image.shape[0] * one.pixel[0], 0.0, one.image.shape[1] * one.pixel[1])
    size = 2.3
    figure = Figure(
        figsize=(size * columns * min(max(box[1] / box[3], 0.6), 1.7) + 0.9, size * rows + 0.75),
        dpi=110, facecolor=_DARK, layout="constrained",
    )  # fmt: skip
    grid = figure.add_gridspec(rows, columns)
    panel = figure.add_subplot(grid[:, 0])
    low, high = np.percentile(one.image, [1, 99])
    panel.imshow(one.image.T, cmap="gray", origin="lower", extent=box, vmin=low, vmax=max(high, low + 1e-6))
    panels = [panel]
    shown: Any = None
    panel.set_title("slice, prediction outlined", color=_PALE, fontsize=8)
    for row, (part, maps) in enumerate(one.maps.items()):
        for column, (expert, weight) in enumerate(zip(experts, maps, strict=True), start=1):
            panel = figure.add_subplot(grid[row, column])
            shown = panel.imshow(weight.T, cmap="magma", origin="lower", extent=box, vmin=0, vmax=1)
            own = " (its own)" if expert == one.modality else ""
            panel.set_title(f"{expert}{own}, {part}: {100 * float(weight.mean()):.0f} %", color=_PALE, fontsize=8)
            panels.append(panel)
    at = [(np.arange(n) + 0.5) * p for n, p in zip(one.image.shape, one.pixel, strict=True)]
    for panel in panels:
        if one.foreground.any() and not one.foreground.all():
            panel.contour(*at, one.foreground.T.astype(float), levels=[0.5], colors=["#56b4e9"], linewidths=1.0)
        panel.set_axis_off()
        panel.invert_xaxis()
    if shown is not None:
        bar = figure.colorbar(shown, ax=panels, shrink=0.85, pad=0.01)
        bar.set_label("weight of the expert", color=_PALE, fontsize=8)
        bar.ax.tick_params(colors=_PALE, labelsize=7)
        bar.outline.set_visible(False)
    figure.suptitle(f"{one.task} · {one.case} · {one.modality}", color="white", fontsize=10)
    with atomic_write(path) as temporary:
        save_figure(figure, temporary, format="png", facecolor=_DARK)


def _captions(folder: Path) -> dict[str, str]:
    listing = folder / "captions.json"
    return read_object(listing, error=DataError) if listing.is_file() else {}


def _write_captions(folder: Path, captions: Mapping[str, str]) -> None:
    with atomic_write(folder / "captions.json") as temporary:
        temporary.write_text(json.dumps(captions, indent=2) + "\n", encoding="utf-8")


def add_captions(folder: Path, captions: Mapping[str, str]) -> None:
    """Add to a folder's ``captions.json``, keeping those of other pictures."""
    _write_captions(folder, {**_captions(folder), **captions})


def forget_pictures(folder: Path) -> None:
    """Delete the pictures of an earlier evaluation, ``gate_*.png``, and their captions."""
    old = {f.name for f in folder.glob("gate_*.png")}
    for name in old:
        (folder / name).unlink()
    captions = _captions(folder)
    if old & set(captions):
        _write_captions(folder, {k: v for k, v in captions.items() if k not in old})
