"""Pictures of what a fusion of experts looks at, and of what would change without each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from ignite.engine import Engine
from numpy.typing import NDArray
from torch import Tensor

from ....atomic import atomic_write
from ....engine.monitor.first_cases import FirstCases, plain_tensor
from ....engine.monitor.overlays import class_colors
from ....figure_text import save_figure

__all__ = ["FusionPictures", "Viewed", "Views", "draw_views", "view_rows"]

FIELDS = ("task", "case", "slice", "without", "pixels_of_another_class", "embedding_distance")


class Views(Protocol):
    """One slice seen with all experts, without each, and without any."""

    @property
    def answers(self) -> Mapping[str, Tensor]:
        """Class indices ``[S, S]``; the first is the full network's."""

    @property
    def asked(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Attention maps ``[S, S]`` by run and step."""

    @property
    def changed(self) -> Mapping[str, Tensor]:
        """Distances ``[S, S]`` to the full network by run."""


class Viewed(Protocol):
    """A network for volumes that shows what its experts do on a slice."""

    def views(self, image: Tensor) -> Views:
        """Look at ``[1, C, H, W]``."""
        ...


class FusionPictures(FirstCases):
    """For the first cases of each task, draws the slice with most structures with, without each, and without experts.

    Writes ``<output_dir>/pictures/fusion_<task>_<case>.png`` with its caption, and a line per expert to
    ``<output_dir>/evaluation/fusion.csv``. On the first process only.

    Args:
        network: shows its views.
        output_dir: the run's folder.
        cases: how many cases of each task are drawn, >= 0.
        image_key: of the batch.

    Raises:
        ConfigError: for a negative number of cases.
    """

    kind, table_name, fields = "fusion", "fusion", FIELDS

    def __init__(self, *, network: Viewed, output_dir: str | Path, cases: int = 1, image_key: str = "image") -> None:
        super().__init__(output_dir=output_dir, cases=cases)
        self.network, self.image_key = network, image_key

    def see(self, engine: Engine, path: Path, title: str) -> tuple[str, Sequence[Mapping[str, Any]]]:
        """Draw a slice of the volume that was just segmented."""
        state: Any = engine.state  # MONAI's, which knows the device
        batch, output = state.batch, state.output
        image = plain_tensor(batch[self.image_key])[:1].to(state.device)
        areas = (torch.as_tensor(output["pred"])[0].argmax(0) > 0).sum((0, 1))
        number = int(areas.argmax()) if bool(areas.any()) else image.shape[-1] // 2
        views = self.network.views(image[..., number])
        draw_views(path, image[0, 0, ..., number].float().cpu().numpy(), views, title=title)
        rows = [{"slice": number, **row} for row in view_rows(views)]
        told = "what the fusion looks at, and what each expert changes" if views.changed else "the answer"
        return told, rows


def view_rows(views: Views) -> list[dict[str, Any]]:
    """Per run without experts: share of pixels (0..1) with another class, mean distance of the embeddings."""
    full = next(iter(views.answers.values()))
    return [
        {
            "without": name.removeprefix("without ") if name != "no expert" else "all",
            "pixels_of_another_class": float((views.answers[name] != full).float().mean()),
            "embedding_distance": float(distance.mean()),
        }
        for name, distance in views.changed.items()
    ]


def draw_views(path: Path, image: NDArray[Any], views: Views, *, title: str = "") -> None:
    """Draw a column per run: the answer over the image, each step's attention, what the embedding lost.

    Args:
        path: PNG file.
        image: ``[H, W]`` intensities.
        views: of the slice.
        title: heading.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    steps = list(dict.fromkeys(step for maps in views.asked.values() for step in maps))
    rows: Sequence[str] = ["answer", *steps, *(["changed"] if views.changed else [])]
    figure = Figure(figsize=(2.1 * len(views.answers) + 1.2, 2.1 * len(rows) + 0.6), dpi=100, layout="constrained")
    grid = figure.subplots(len(rows), len(views.answers), squeeze=False)
    classes = max(int(a.max()) for a in views.answers.values())
    colours = ListedColormap(class_colors(max(classes, 1)))
    low, high = np.percentile(image, (1, 99))
    top = {step: max(float(m[step].max()) for m in views.asked.values() if step in m) for step in steps}
    top["changed"] = max((float(c.max()) for c in views.changed.values()), default=1.0)
    for column, (name, answer) in enumerate(views.answers.items()):
        for row, what in enumerate(rows):
            panel = grid[row][column]
            panel.set_xticks([])
            panel.set_yticks([])
            panel.imshow(image.T, cmap="gray", origin="lower", vmin=low, vmax=max(high, low + 1e-6))
            shown = views.changed.get(name) if what == "changed" else views.asked.get(name, {}).get(what)
            if what == "answer":
                found = np.ma.masked_equal(answer.numpy(), 0)
                panel.imshow(found.T, cmap=colours, origin="lower", alpha=0.6, vmin=0.5, vmax=max(classes, 1) + 0.5)
            elif shown is not None:
                panel.imshow(
                    shown.numpy().T, cmap="magma", origin="lower", alpha=0.6, vmin=0, vmax=max(top[what], 1e-6)
                )
            if row == 0:
                panel.set_title(name, fontsize=8)
            if column == 0:
                label = "change of the embedding" if what == "changed" else what
                panel.set_ylabel(f"{label}\n(brightest {top[what]:.2g})" if what in top else label, fontsize=7)
    figure.suptitle(title, fontsize=9)
    with atomic_write(path) as temporary:
        save_figure(figure, temporary, format="png")
