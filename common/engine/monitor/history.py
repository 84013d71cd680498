"""The course of a run: one row per epoch in ``history.csv`` and a picture of the curves."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch.distributed as dist
from ignite.engine import Engine, Events

from ...atomic import atomic_write
from ...figure_text import save_figure
from ...tables import read_csv, write_csv

__all__ = ["History", "draw_curves", "read_history"]

logger = logging.getLogger(__name__)

_FIRST = ("epoch", "iteration", "seconds", "lr", "loss")

Row = dict[str, float | None]


class History:
    """Records every epoch's mean loss, its terms, learning rate, seconds and validation metrics.

    Of several processes the first writes; the means are over the iterations of all of them.

    Rows are rewritten atomically, so that the file is complete whenever the run is killed; a continued run drops rows
    beyond its checkpoint and a new run moves an older file to ``history_previous.csv``.

    Args:
        output_dir: folder of ``history.csv`` and ``curves.png``.
        evaluator: its metrics become ``val_<name>`` columns in the epochs in which it ran.
        optimizer: source of the learning rate; the trainer's own when omitted.
        picture_every: epochs between two pictures, >= 1; the last epoch is always drawn.
    """

    def __init__(
        self, *, output_dir: str | Path, evaluator: Engine | None = None, optimizer: Any = None, picture_every: int = 10
    ) -> None:
        self.folder = Path(output_dir)
        self.evaluator = evaluator
        self.optimizer = optimizer
        self.picture_every = max(1, picture_every)
        self.rows: list[Row] = []
        self._sums: dict[str, float] = {}
        self._count = 0
        self._began = 0.0

    @property
    def path(self) -> Path:
        """The table's file."""
        return self.folder / "history.csv"

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.EPOCH_STARTED, self._epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.add_event_handler(Events.COMPLETED, self._completed)

    def _started(self, engine: Engine) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not engine.has_event_handler(self._epoch_completed, Events.EPOCH_COMPLETED):
            # Added now, so that the epoch's validation comes first.
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)

    def _epoch_started(self, engine: Engine) -> None:
        if idist.get_rank() == 0 and not self.rows and self.path.exists():
            if engine.state.epoch == 1:
                self.path.replace(self.path.with_name("history_previous.csv"))
            else:
                self.rows = [r for r in read_history(self.path) if (r["epoch"] or 0) < engine.state.epoch]
        self._sums, self._count, self._began = {}, 0, time.monotonic()

    def _iteration(self, engine: Engine) -> None:
        for name, value in _scalars(engine.state.output).items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def _epoch_completed(self, engine: Engine) -> None:
        means = _means_over_processes(self._sums, self._count)
        if idist.get_rank() != 0:
            return
        optimizer = self.optimizer if self.optimizer is not None else getattr(engine, "optimizer", None)
        row: Row = {
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "seconds": round(time.monotonic() - self._began, 3),
            "lr": float(optimizer.param_groups[0]["lr"]) if optimizer is not None else None,
            **means,
        }
        if self.evaluator is not None and self.evaluator.state.epoch == engine.state.epoch:
            for name, value in self.evaluator.state.metrics.items():
                if isinstance(value, (int, float)) or getattr(value, "ndim", 1) == 0:
                    row[f"val_{name}"] = float(value)
        self.rows.append(row)
        write_history(self.path, self.rows)
        if engine.state.epoch % self.picture_every == 0:
            draw_curves(self.rows, self.folder / "curves.png")

    def _completed(self, _engine: Engine) -> None:
        if self.rows:
            draw_curves(self.rows, self.folder / "curves.png")


def _means_over_processes(sums: Mapping[str, float], count: int) -> dict[str, float]:
    every: list[tuple[Mapping[str, float], int]] = [(sums, count)]
    if idist.get_world_size() > 1:
        every = [(sums, count)] * idist.get_world_size()
        dist.all_gather_object(every, (dict(sums), count))
    iterations = max(1, sum(n for _, n in every))
    names = dict.fromkeys(name for own, _ in every for name in own)
    return {name: sum(own.get(name, 0.0) for own, _ in every) / iterations for name in names}


def write_history(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows, with one column per name that occurs in any of them."""
    names = list(dict.fromkeys([*_FIRST, *(name for row in rows for name in row)]))
    write_csv(path, [{k: _cell(k, v) for k, v in row.items()} for row in rows], names)


def _cell(name: str, value: float | None) -> float | str:
    if value is None:
        return ""
    return int(value) if name in ("epoch", "iteration") else value


def read_history(path: str | Path) -> list[Row]:
    """The rows of a ``history.csv``; empty cells are None."""
    return [{k: float(v) if v else None for k, v in row.items()} for row in read_csv(path)[1]]


def draw_curves(rows: Sequence[Row], path: Path) -> None:
    """Draw losses (left) and validation metrics (right) over the epochs."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(name for row in rows for name in row))
    losses = [n for n in names if n not in ("epoch", "iteration", "seconds", "lr") and not n.startswith("val_")]
    metrics = [n for n in names if n.startswith("val_")]
    figure = Figure(figsize=(10, 4) if metrics else (5.5, 4), layout="constrained")
    panels = figure.subplots(1, 2 if metrics else 1, squeeze=False)[0]
    for panel, group, title in zip(panels, (losses, metrics), ("training", "validation"), strict=False):
        for name in group:
            points = [(row["epoch"], row.get(name)) for row in rows if _finite(row.get(name))]
            if points:
                width = 2.0 if name in ("loss", metrics[0] if metrics else "") else 1.2
                marker = "o" if len(points) < 40 else ""
                panel.plot(*zip(*points, strict=True), label=name, linewidth=width, marker=marker, markersize=3)
        panel.set(title=title, xlabel="epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        if group:
            panel.legend(frameon=False, fontsize=8)
    with atomic_write(path) as temporary:
        save_figure(figure, temporary, format="png", dpi=120)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _scalars(output: Any) -> dict[str, float]:
    if isinstance(output, list) and output:
        output = output[0]
    if not isinstance(output, Mapping):
        return {}
    scalars: dict[str, float] = {}
    for name, value in output.items():
        if isinstance(value, (int, float)) or (getattr(value, "ndim", 1) == 0 and hasattr(value, "item")):
            scalars[str(name)] = float(value)
    return scalars
