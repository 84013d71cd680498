"""Pictures of what a fusion of experts looks at, and of what would change without each of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from numpy.typing import NDArray
from torch import Tensor

from ..atomic import atomic_write
from ..errors import ConfigError
from .gate_pictures import add_captions, file_name
from .overlays import class_colors

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


class FusionPictures:
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

    def __init__(self, *, network: Viewed, output_dir: str | Path, cases: int = 1, image_key: str = "image") -> None:
        if cases < 0:
            raise ConfigError("cases are counted from the first", where="cases", got=cases, expected=">= 0")
        self.network, self.cases, self.image_key = network, cases, image_key
        self.pictures = Path(output_dir) / "pictures"
        self.table = Path(output_dir) / "evaluation" / "fusion.csv"
        self._drawn: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator."""
        if idist.get_rank() == 0 and self.cases:
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Look at the volume that was just segmented, if it is among the first of its task."""
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        task, case = (_first(batch.get(k), d) for k, d in (("task", "case"), ("case", f"case{engine.state.iteration}")))
        if self._drawn.get(task, 0) >= self.cases:
            return
        self._drawn[task] = self._drawn.get(task, 0) + 1
        image = torch.as_tensor(batch[self.image_key])[:1].to(engine.state.device)  # type: ignore[attr-defined]
        image = image.as_tensor() if hasattr(image, "as_tensor") else image
        areas = (torch.as_tensor(output["pred"])[0].argmax(0) > 0).sum((0, 1))
        number = int(areas.argmax()) if bool(areas.any()) else image.shape[-1] // 2
        views = self.network.views(image[..., number])
        name = f"fusion_{file_name(task)}_{file_name(case)}.png"
        draw_views(
            self.pictures / name, image[0, 0, ..., number].float().cpu().numpy(), views, title=f"{task} · {case}"
        )
        add_captions(
            self.pictures, {name: f"{task}, case {case}: what the fusion looks at, and what each expert changes"}
        )
        self._rows += [{"task": task, "case": case, "slice": number, **row} for row in view_rows(views)]
        with atomic_write(self.table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(self._rows)


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
        figure.savefig(temporary, format="png")


def _first(value: Any, default: str) -> str:
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return default if value is None else str(value)
