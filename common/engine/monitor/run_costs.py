"""What a training costs, and how much of its budget it used."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from ...atomic import atomic_write
from ..run.length import RunLength
from .costs import count_parameters, device_name, peak_megabytes, reset_peak

__all__ = ["RunCosts"]


class RunCosts:
    """Measures a training from its first to its last step.

    Writes ``<output_dir>/training_costs.json`` after every epoch: ``seconds`` (validation included, what came before an
    interruption too), ``steps`` and, where the length is known, ``planned_steps`` of all, ``step_seconds`` (what a
    budget of minutes counts) and the ``budget``; ``trained_parameters``, ``peak_mb`` of this process. List it in
    ``RunCheckpoint``'s ``save_dict``; attach it last.

    Args:
        output_dir: the run's folder.
        length: of the training; None says nothing of a budget.
        clock: source of seconds.
    """

    def __init__(
        self, *, output_dir: str | Path, length: RunLength | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path, self.length, self.clock = Path(output_dir) / "training_costs.json", length, clock
        self._before, self._began, self._peak = 0.0, math.nan, 0.0

    @property
    def seconds(self) -> float:
        """That the training has taken so far."""
        return self._before + (self.clock() - self._began if math.isfinite(self._began) else 0.0)

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._started)  # after the checkpoint was read
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)

    def state_dict(self) -> dict[str, float]:
        """Seconds and peak memory so far."""
        return {"seconds": self.seconds, "peak_mb": self._memory()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._before, self._peak = float(state["seconds"]), float(state["peak_mb"])

    def _memory(self) -> float:
        now = peak_megabytes()
        self._peak = max(self._peak, now) if math.isfinite(now) else self._peak
        return self._peak

    def _started(self, _engine: Engine) -> None:
        reset_peak()
        self._began = self.clock()

    def _epoch(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            self._write(engine)

    def _write(self, engine: Engine) -> None:
        optimizer = getattr(engine, "optimizer", None)
        groups = [] if optimizer is None else optimizer.param_groups
        content = {
            "seconds": round(self.seconds, 3),
            "steps": engine.state.iteration,
            "epochs": engine.state.epoch,
            "trained_parameters": count_parameters(p for g in groups for p in g["params"] if p.requires_grad),
            "peak_mb": self._memory() or None,
            **self._budget(),
            "device": device_name(getattr(engine.state, "device", None)),
            "threads": torch.get_num_threads(),
        }
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _budget(self) -> dict[str, Any]:
        if self.length is None:
            return {}
        own = {"steps": self.length.steps, "minutes": self.length.minutes}
        return {
            "planned_steps": self.length.total,
            "step_seconds": round(self.length.seconds, 3),
            "budget": {k: v for k, v in own.items() if v is not None},
        }
