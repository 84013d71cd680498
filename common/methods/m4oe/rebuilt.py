"""What a masked autoencoder rebuilt: pictures at the end of a training, scores of whole volumes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from ...atomic import atomic_write
from ...figure_text import save_figure
from ...tables import write_csv

__all__ = ["RebuiltPictures", "RebuiltScores"]


class Rebuilds(Protocol):
    """A network that hides part of slices ``[B, c, H, W]`` of a modality and shows what it makes of the rest."""

    training: bool

    def show(self, image: Tensor, modality: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, 1, H, W]`` as seen (NaN where hidden) and as rebuilt."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation."""
        ...


class RebuiltPictures:
    """At the end of a training, draws for each modality a slice, what the network saw of it and what it made of that.

    Writes ``<output_dir>/pictures/rebuilt.png`` and ``captions.json``.

    Args:
        network: the autoencoder.
        dataset: of slices, with ``image``, ``modality_id`` and ``case``.
        output_dir: the run's folder.
        modalities: names, in the order of the network.
    """

    def __init__(self, *, network: Rebuilds, dataset: Any, output_dir: str | Path, modalities: Sequence[str]) -> None:
        self.network, self.dataset, self.folder = network, dataset, Path(output_dir) / "pictures"
        self.modalities = list(modalities)

    def attach(self, engine: Engine) -> None:
        """Register for the end of the training, on the first process."""
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        """Draw."""
        from matplotlib.figure import Figure

        state: Any = engine.state  # MONAI's, which knows the device
        device: torch.device = state.device
        slices = self._middle_slices()
        was_training = self.network.training
        self.network.train(False)
        figure = Figure(figsize=(9, 3 * max(len(slices), 1)), layout="constrained")
        grid = figure.subplots(max(len(slices), 1), 3, squeeze=False)
        for (modality, index), panels in zip(sorted(slices.items()), grid, strict=True):
            item = self.dataset[index]
            image = torch.as_tensor(item["image"])[None].to(device)
            seen, rebuilt = self.network.show(image, torch.tensor([modality], device=device))
            planes = (image[:, :1], seen, rebuilt)
            low, high = np.percentile(image.cpu().numpy(), (1, 99))
            for panel, plane, title in zip(panels, planes, ("slice", "seen", "rebuilt"), strict=True):
                panel.set_facecolor("#2f6f8f")  # what was hidden
                panel.imshow(plane[0, 0].cpu().numpy().T, cmap="gray", vmin=low, vmax=high, origin="lower")
                panel.set_xticks([])
                panel.set_yticks([])
                panel.set_title(title)
            panels[0].set_ylabel(f"{self.modalities[modality]}\n{item['case']}")
        self.network.train(was_training)
        with atomic_write(self.folder / "rebuilt.png") as temporary:
            save_figure(figure, temporary, format="png", dpi=90)
        with atomic_write(self.folder / "captions.json") as temporary:
            caption = "a slice of each modality, the part of it that the network saw, and what it made of that"
            temporary.write_text(json.dumps({"rebuilt.png": caption}, indent=2) + "\n")

    def _middle_slices(self) -> dict[int, int]:
        """For each modality the middle slice of its first volume."""
        first: dict[int, int] = {}
        members: dict[int, list[int]] = defaultdict(list)
        for position, (volume, _) in enumerate(self.dataset.index):
            members[volume].append(position)
        for positions in members.values():
            middle = positions[len(positions) // 2]
            first.setdefault(int(self.dataset[middle]["modality_id"]), middle)
        return first


class RebuiltScores:
    """Scores rebuilt volumes: the mean squared error of what was hidden, and the share of variance that is explained.

    ``explained = 1 - sum (p - x)^2 / sum (x - mean x)^2`` over the hidden voxels, whose prediction differs from the
    input by more than 1e-5; 0 is a network that paints everything in the mean grey. Writes
    ``evaluation/rebuilt.csv``, one row a case, and ``evaluation/rebuilt.json``, means by modality.

    Args:
        output_dir: the run's folder.
    """

    def __init__(self, *, output_dir: str | Path) -> None:
        self.folder = Path(output_dir) / "evaluation"
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose output has ``image`` and ``pred`` of one volume per iteration."""
        engine.add_event_handler(Events.STARTED, self.rows.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._case)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _case(self, engine: Engine) -> None:
        outputs: Any = engine.state.output
        cases: Any = engine.state.batch  # MONAI's evaluator has taken the batch apart already
        for case, output in zip(cases, outputs, strict=True):
            x, p = (torch.as_tensor(output[k]).double().mean(0) for k in ("image", "pred"))
            hidden = (p - x).abs() > 1e-5
            error = (p - x)[hidden].square()
            spread = (x[hidden] - x[hidden].mean()).square()
            explained = 1 - float(error.sum() / spread.sum()) if bool(spread.sum() > 0) else float("nan")
            row = {"task": case.get("task", ""), "case": case["case"], "modality": case["modality"]}
            self.rows.append({**row, "mse": float(error.mean()), "explained": explained})

    def _write(self) -> None:
        write_csv(self.folder / "rebuilt.csv", self.rows, ["task", "case", "modality", "mse", "explained"])
        means = {}
        for modality in dict.fromkeys(r["modality"] for r in self.rows):
            own = [r for r in self.rows if r["modality"] == modality]
            values = {k: float(np.nanmean([r[k] for r in own])) for k in ("mse", "explained")}
            means[modality] = {"cases": len(own), **values}
        with atomic_write(self.folder / "rebuilt.json") as temporary:
            temporary.write_text(json.dumps(means, indent=2) + "\n")
