"""Pictures of where a student asks its experts, one per task, for the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from numpy.typing import NDArray
from torch import Tensor

from ...atomic import atomic_write
from ...figure_text import save_figure

__all__ = ["AttentionMaps", "draw_attention"]


class Asks(Protocol):
    """A training network that can show its attention."""

    training: bool

    def attention_pictures(self, image: Tensor, raw: Tensor, stats: Tensor, task_id: Tensor) -> dict[str, Tensor]:
        """Volumes ``[B, 1, X, Y, Z]`` per source of knowledge."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation."""
        ...


class AttentionMaps:
    """At the end of a training, draws one crop of every task with the attention to its experts over it.

    Writes ``<output_dir>/pictures/attention_<task>.png`` and ``captions.json`` beside them.

    Args:
        network: the training network.
        dataset: the training dataset; its ``data`` names each case's task.
        output_dir: the run's folder.
        enabled: False draws nothing, for a student without experts.
    """

    def __init__(self, *, network: Asks, dataset: Any, output_dir: str | Path, enabled: bool = True) -> None:
        self.network, self.dataset, self.folder = network, dataset, Path(output_dir) / "pictures"
        self.enabled = enabled

    def attach(self, engine: Engine) -> None:
        """Register for the end of the training, on the first process."""
        if self.enabled and idist.get_rank() == 0:
            engine.add_event_handler(Events.COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        """Draw the pictures."""
        state: Any = engine.state  # MONAI's, which knows the device
        device: torch.device = state.device
        was_training, captions = self.network.training, {}
        self.network.train(False)
        for task, index in self._first_cases().items():
            item = self.dataset[index]
            crop: Mapping[str, Any] = item[0] if isinstance(item, list) else item
            image, raw, stats = (torch.as_tensor(crop[k])[None].to(device) for k in ("image", "raw", "stats"))
            number = torch.tensor([int(crop["task_id"])], device=device)
            volumes = self.network.attention_pictures(image, raw, stats, number)
            maps = {name: v[0, 0].float().cpu().numpy() for name, v in volumes.items()}
            if maps:
                file = f"attention_{task}.png"
                draw_attention(self.folder / file, image[0, 0].float().cpu().numpy(), maps, title=task)
                captions[file] = f"{task}, case {crop['case']}: where the student asks the experts (1 = even attention)"
        self.network.train(was_training)
        if captions:
            with atomic_write(self.folder / "captions.json") as temporary:
                temporary.write_text(json.dumps(captions, indent=2) + "\n")

    def _first_cases(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for index, entry in enumerate(self.dataset.data):
            found.setdefault(str(entry.get("task", "case")), index)
        return found


def draw_attention(path: Path, image: NDArray[Any], maps: Mapping[str, NDArray[Any]], *, title: str = "") -> None:
    """Draw the middle planes of an image, and under them each attention map over the same planes.

    Args:
        path: PNG file.
        image: ``[X, Y, Z]`` intensities.
        maps: attention volumes of the image's shape, 1 meaning even attention.
        title: heading.
    """
    from matplotlib.figure import Figure

    rows: Sequence[tuple[str, NDArray[Any] | None]] = [("image", None), *((f"asks {n}", m) for n, m in maps.items())]
    figure = Figure(figsize=(9, 3 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 3, squeeze=False)
    top = max([2.0, *(float(np.max(m)) for m in maps.values())])
    low, high = np.percentile(image, (1, 99))
    shown = None
    for (name, volume), panels in zip(rows, grid, strict=True):
        for axis, panel in enumerate(panels):
            cut = image.shape[axis] // 2
            panel.imshow(np.take(image, cut, axis).T, cmap="gray", vmin=low, vmax=high, origin="lower")
            if volume is not None:
                plane = np.take(volume, cut, axis).T
                shown = panel.imshow(plane, cmap="magma", vmin=0, vmax=top, alpha=0.55, origin="lower")
            panel.set_xticks([])
            panel.set_yticks([])
        panels[0].set_ylabel(name)
    if shown is not None:
        figure.colorbar(shown, ax=grid[1:].ravel().tolist(), shrink=0.7, label="attention (1 = even)")
    figure.suptitle(title)
    with atomic_write(path) as temporary:
        save_figure(figure, temporary, format="png", dpi=90)
