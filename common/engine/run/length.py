"""How many optimizer steps a training takes: its preset's, a number of steps, or what fits into minutes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from ...errors import ConfigError

__all__ = ["RunLength"]

logger = logging.getLogger(__name__)

LEAST = 8  # steps before the speed counts as known: the first ones are slower
CALIBRATION = 0.1  # share of the minutes after which the number of steps is fixed


class RunLength:
    """Decides once how many steps there are, ends the training after them, and says how much of it is over.

    Without a budget it is ``epochs`` times the steps of an epoch. With ``minutes`` the speed is measured: after 1, 2,
    4, 8, ... steps the number that fits is estimated from the last half of them, so that the slow first ones do not
    count; when a tenth of the minutes is spent (or the next look would come after half of them) the number is fixed,
    kept by ``RunCheckpoint`` and never changed again. From then on everything goes by steps, so that a schedule comes
    to its end whatever the speed, and a continued training has the same steps as an undisturbed one.

    The minutes are those of steps, waiting for their data included; validation, pictures and saving do not count. The
    epoch that the last step lies in is cut short there and ends as every other. Of several processes the first one's
    clock decides.

    List it in ``RunCheckpoint``'s ``save_dict``, and among the handlers after it and before what asks it.

    Args:
        epochs: of the preset, >= 1; with a budget only the length in terms of which a preset's epochs are meant.
        steps: exact number of steps, >= 1; None for no such budget.
        minutes: of training steps, > 0; None for no such budget.
        clock: source of seconds.

    Raises:
        ConfigError: for two budgets at once, or one that is not positive.
    """

    def __init__(
        self,
        *,
        epochs: int,
        steps: int | None = None,
        minutes: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if epochs < 1:
            raise ConfigError("a training has at least one epoch", where="max_epochs", got=epochs, expected=">= 1")
        if steps is not None and minutes is not None:
            where = "max_steps, max_minutes"
            expected = "one of them, the other None"
            raise ConfigError("a training has one budget", where=where, got=(steps, minutes), expected=expected)
        whole = isinstance(steps, int) and not isinstance(steps, bool)
        if steps is not None and not (whole and steps >= 1):
            raise ConfigError("a training takes whole steps", where="max_steps", got=steps, expected=">= 1, or None")
        if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
            raise ConfigError("a training needs time", where="max_minutes", got=minutes, expected="> 0, or None")
        self.epochs, self.steps, self.minutes, self.clock = epochs, steps, minutes, clock
        self.total: int | None = None
        self.fixed = False
        self.seconds = 0.0
        self._window = 0.0
        self._began: float | None = None
        self._listeners: list[Callable[[], None]] = []

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)

    def listen(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called whenever the number of steps is known anew."""
        self._listeners.append(listener)

    def progress(self, steps: int) -> float:
        """The share of the training, in [0, 1], that is over after so many steps; 0 while nothing is known."""
        return min(1.0, steps / self.total) if self.total else 0.0

    def epochs_over(self, steps: int) -> int:
        """The same in the preset's epochs, whole ones."""
        return min(self.epochs, steps * self.epochs // self.total) if self.total else 0

    def state_dict(self) -> dict[str, Any]:
        """The number of steps, whether it is fixed, and the seconds so far."""
        return {"total": self.total, "fixed": self.fixed, "seconds": self.seconds, "window": self._window}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; a number that was fixed stays."""
        self.seconds, self._window = float(state["seconds"]), float(state["window"])
        if self.minutes is not None and state["total"] is not None:
            self.total, self.fixed = int(state["total"]), bool(state["fixed"])

    def start(self, engine: Engine) -> None:
        """Take the number of steps that is known before the first one; called again it changes nothing."""
        self._began = None
        own = self.epochs * (engine.state.epoch_length or 1)
        if self.minutes is None:
            self._set(engine, own if self.steps is None else self.steps, fixed=True)
        else:
            self._set(engine, self.total or own, fixed=self.fixed)

    def _set(self, engine: Engine, total: int, *, fixed: bool) -> None:
        self.total, self.fixed = total, fixed
        engine.state.planned_steps = total  # type: ignore[attr-defined]
        if self.steps is not None or self.minutes is not None:
            epochs = math.ceil(total / (engine.state.epoch_length or 1))
            engine.state.max_epochs = epochs if fixed else max(epochs, engine.state.epoch + 1)
        for listener in self._listeners:
            listener()

    def _begin(self, _engine: Engine) -> None:
        if self._began is None:  # a loader that begins anew fires the event once more
            self._began = self.clock()

    def _step(self, engine: Engine) -> None:
        if self._began is not None:
            seconds = self.clock() - self._began
            self.seconds, self._window, self._began = self.seconds + seconds, self._window + seconds, None
        done = engine.state.iteration
        if self.minutes is not None and not self.fixed and done & (done - 1) == 0:
            self._estimate(engine, done)
        length = engine.state.epoch_length
        if self.fixed and self.total is not None and done >= self.total and length and done % length:
            engine.terminate_epoch()  # it then ends as every other: validated, kept, saved

    def _estimate(self, engine: Engine, done: int) -> None:
        """How many steps fit, by the speed of the last half of those that are done (a power of two)."""
        spent, window = _first_process(self.seconds, self._window)
        budget = 60 * (self.minutes or 0.0)
        each = window / (done - done // 2)
        self._window = 0.0
        if not each > 0:  # a clock too coarse to tell
            return
        known = (done >= LEAST and spent >= CALIBRATION * budget) or spent + done * each >= budget / 2
        self._set(engine, max(done, done + math.floor((budget - spent) / each)), fixed=known)
        if self.fixed:
            logger.info("%g minutes are %d steps, at %.3g s each after %d; the schedule goes by steps from here on",
                        self.minutes, self.total, each, done)  # fmt: skip

    def _epoch(self, engine: Engine) -> None:
        if self.fixed:
            return
        if engine.state.max_epochs is not None and engine.state.epoch >= engine.state.max_epochs:
            engine.state.max_epochs = engine.state.epoch + 1


def _first_process(*values: float) -> tuple[float, ...]:
    """The first process's numbers, for all."""
    if idist.get_world_size() == 1:
        return values
    told = idist.broadcast(torch.tensor(values, dtype=torch.float64), src=0)
    return tuple(float(v) for v in torch.as_tensor(told))
