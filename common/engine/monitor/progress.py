"""One line that tells how far a run is and when it will be done."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from tqdm import tqdm

__all__ = ["Progress", "remaining_seconds"]

logger = logging.getLogger(__name__)


def remaining_seconds(elapsed: float, done: int, left: int) -> float | None:
    """Expected time for ``left`` steps after ``done`` steps took ``elapsed`` seconds; None before the first."""
    return elapsed / done * left if done else None


class Progress:
    """A progress bar over all iterations of all epochs, with the loss and the best metric.

    The estimate counts the steps of this process only, so that it is right after a continued run, and it includes
    validation and saving. Without a terminal one log line per epoch is written instead.

    Args:
        quiet: show nothing.
        terminal: whether a bar can be drawn; None asks standard error.
        clock: source of seconds.
    """

    def __init__(
        self, *, quiet: bool = False, terminal: bool | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.quiet = quiet
        self.terminal = sys.stderr.isatty() if terminal is None else terminal
        self.clock = clock
        self._bar: Any = None
        self._began = 0.0
        self._first = 0
        self._sum, self._count = 0.0, 0

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        if self.quiet or idist.get_rank() != 0:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self._epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def eta(self, engine: Engine) -> float | None:
        """Seconds until the last epoch ends; None when unknown."""
        total = _steps(engine)
        if total is None:
            return None
        left = max(0, total - engine.state.iteration)
        return remaining_seconds(self.clock() - self._began, engine.state.iteration - self._first, left)

    def _epoch_started(self, engine: Engine) -> None:
        if self._began == 0.0:
            self._began, self._first = self.clock(), engine.state.iteration
            if self.terminal:
                self._bar = tqdm(
                    total=_steps(engine), initial=self._first, unit="it", dynamic_ncols=True, file=sys.stderr
                )
        self._sum, self._count = 0.0, 0

    def _iteration(self, engine: Engine) -> None:
        loss = _loss(engine.state.output)
        if loss is not None:
            self._sum, self._count = self._sum + loss, self._count + 1
        if self._bar is not None:
            self._bar.total = _steps(engine)  # a budget of minutes is known in steps only after some
            self._bar.update(1)
            self._bar.set_description_str(f"epoch {engine.state.epoch}/{engine.state.max_epochs}", refresh=False)
            self._bar.set_postfix_str(self._text(engine), refresh=False)

    def _epoch_completed(self, engine: Engine) -> None:
        if self._bar is None:
            seconds = self.eta(engine)
            left = "" if seconds is None else f", {tqdm.format_interval(seconds)} left"
            logger.info("epoch %d/%s: %s%s", engine.state.epoch, engine.state.max_epochs, self._text(engine), left)

    def _text(self, engine: Engine) -> str:
        loss = f"loss {self._sum / self._count:.4f}" if self._count else ""
        if getattr(engine.state, "best_metric_epoch", -1) > 0:
            loss += f", best {float(getattr(engine.state, 'best_metric', 0.0)):.4f}"
        return loss

    def _close(self, _engine: Engine) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _steps(engine: Engine) -> int | None:
    """How many steps the training takes: as its length says, else all of its epochs'."""
    planned: int | None = getattr(engine.state, "planned_steps", None)
    length, epochs = engine.state.epoch_length, engine.state.max_epochs
    return planned if planned is not None else length * epochs if length and epochs else None


def _loss(output: Any) -> float | None:
    """The loss in an engine's output, also after decollation."""
    if isinstance(output, list) and output:
        output = output[0]
    if isinstance(output, Mapping) and "loss" in output:
        return float(output["loss"])
    return None
