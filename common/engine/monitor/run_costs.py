"""What a training costs, and its end when its minutes are over."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from ...atomic import atomic_write
from ...errors import ConfigError
from .costs import count_parameters, device_name, peak_megabytes, reset_peak

__all__ = ["RunCosts"]

logger = logging.getLogger(__name__)


class RunCosts:
    """Measures a training from its first to its last step, and may end it by the clock.

    Writes ``<output_dir>/training_costs.json`` after every epoch: ``seconds`` (validation included, what came before an
    interruption too), ``steps``, ``trained_parameters``, ``peak_mb`` of this process and whether the clock ended it.
    List it in ``RunCheckpoint``'s ``save_dict``; attach it last, so that the epoch that it cuts short is kept whole.

    The minutes do not count loading, and the step in which they end is finished. The schedule of the learning rate
    knows nothing of them: what the clock ends early has not seen the schedule's end.

    Args:
        output_dir: the run's folder.
        minutes: after which the training ends, > 0; None never ends it.
        clock: source of seconds.

    Raises:
        ConfigError: for minutes that are not positive.
    """

    def __init__(
        self, *, output_dir: str | Path, minutes: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
            raise ConfigError("a training needs time", where="max_minutes", got=minutes, expected="> 0, or None")
        self.path, self.minutes, self.clock = Path(output_dir) / "training_costs.json", minutes, clock
        self._before, self._began, self._peak = 0.0, math.nan, 0.0

    @property
    def seconds(self) -> float:
        """That the training has taken so far."""
        return self._before + (self.clock() - self._began if math.isfinite(self._began) else 0.0)

    @property
    def over(self) -> bool:
        """True when the minutes are spent."""
        return self.minutes is not None and self.seconds >= 60 * self.minutes

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._started)  # after the checkpoint was read
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
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

    def _started(self, engine: Engine) -> None:
        reset_peak()
        if self.over:
            engine.terminate()
        self._began = self.clock()

    def _step(self, engine: Engine) -> None:
        if self.over:
            engine.terminate_epoch()  # the epoch then ends as every other: validated, kept, saved

    def _epoch(self, engine: Engine) -> None:
        if self.over:
            logger.info("training ends: %g minutes are over after %d steps", self.minutes, engine.state.iteration)
            engine.terminate()
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
            "minutes": self.minutes,
            "ended_by_clock": self.over,
            "device": device_name(getattr(engine.state, "device", None)),
            "threads": torch.get_num_threads(),
        }
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
