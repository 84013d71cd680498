"""What an expert without labels has learned: pictures at the end of a training, scores of whole volumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events

from ....atomic import atomic_write
from ....figure_text import save_figure
from ....tables import write_csv

__all__ = ["ExpertPictures", "ExpertScores"]

_FIRST = ["task", "case", "modality"]


class ExpertPictures:
    """At the end of a training, draws a slice of each modality and what the network makes of it.

    Writes ``<output_dir>/pictures/expert.png`` and ``captions.json``.

    Args:
        viewer: has ``show(image [N, c, H, W]) -> {title: [N, 1 or 3, H, W]}``.
        dataset: of views ``[V, c, H, W]`` of slices, with ``modality`` and ``case``.
        output_dir: the run's folder.
    """

    def __init__(self, *, viewer: Any, dataset: Any, output_dir: str | Path) -> None:
        self.viewer, self.dataset, self.folder = viewer, dataset, Path(output_dir) / "pictures"

    def attach(self, engine: Engine) -> None:
        """Register for the end of the training, on the first process."""
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        """Draw."""
        from matplotlib.figure import Figure

        state: Any = engine.state  # MONAI's, which knows the device
        rows = self._rows(state.device)
        columns = max(len(panels) for _, panels in rows)
        figure = Figure(figsize=(3 * columns, 3 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for (name, panels), places in zip(rows, grid, strict=True):
            for place, (title, plane) in zip(places, panels.items(), strict=True):
                picture = plane[0].float().cpu().numpy().T.clip(0, 1)  # [W, H, c]
                place.imshow(picture.squeeze(-1) if picture.shape[-1] == 1 else picture, cmap="gray", origin="lower")
                place.set_xticks([])
                place.set_yticks([])
                place.set_title(title)
            places[0].set_ylabel(name)
        with atomic_write(self.folder / "expert.png") as temporary:
            save_figure(figure, temporary, format="png", dpi=90)
        with atomic_write(self.folder / "captions.json") as temporary:
            caption = "a slice of each modality and what the network makes of it; features in false colours"
            temporary.write_text(json.dumps({"expert.png": caption}, indent=2) + "\n")

    def _rows(self, device: torch.device) -> list[tuple[str, dict[str, torch.Tensor]]]:
        """For each modality the middle slice of its first volume."""
        members: dict[int, list[int]] = {}
        for position, (volume, _) in enumerate(self.dataset.index):
            members.setdefault(volume, []).append(position)
        rows: dict[str, dict[str, torch.Tensor]] = {}
        for positions in members.values():
            item = self.dataset[positions[len(positions) // 2]]
            name = str(item.get("modality", ""))
            if name not in rows:
                image = torch.as_tensor(item["image"])
                rows[name] = self.viewer.show(image[:1].to(device))
        return sorted(rows.items())


class ExpertScores:
    """Scores volumes by what the network says of them.

    Writes ``evaluation/expert.csv``, one row a case, and ``evaluation/expert.json``, means by modality.

    Args:
        viewer: has ``scores(volume [c, H, W, Z]) -> {name: number}``.
        output_dir: the run's folder.
    """

    def __init__(self, *, viewer: Any, output_dir: str | Path) -> None:
        self.viewer, self.folder = viewer, Path(output_dir) / "evaluation"
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose batches hold one volume each."""
        engine.add_event_handler(Events.STARTED, self.rows.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._case)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _case(self, engine: Engine) -> None:
        state: Any = engine.state  # MONAI's, which knows the device
        for case, output in zip(state.batch, state.output, strict=True):
            image = torch.as_tensor(output["image"])
            plain = image.as_tensor() if hasattr(image, "as_tensor") else image
            row = {k: str(case.get(k, "")) for k in _FIRST}
            self.rows.append({**row, **self.viewer.scores(plain.to(state.device))})

    def _write(self) -> None:
        names = list(dict.fromkeys(k for row in self.rows for k in row))
        write_csv(self.folder / "expert.csv", self.rows, names)
        means = {}
        for modality in dict.fromkeys(r["modality"] for r in self.rows):
            own = [r for r in self.rows if r["modality"] == modality]
            values = {k: float(np.nanmean([r[k] for r in own])) for k in names if k not in _FIRST}
            means[modality] = {"cases": len(own), **values}
        with atomic_write(self.folder / "expert.json") as temporary:
            temporary.write_text(json.dumps(means, indent=2) + "\n")
