"""Telling an object of the training how much of it is over."""

from __future__ import annotations

from typing import Protocol

from ignite.engine import Engine, Events

from .length import RunLength

__all__ = ["TellEpoch", "TellProgress"]


class Told(Protocol):
    """Something that changes with the epochs, such as a loss with a schedule."""

    def set_epoch(self, epoch: int) -> None:
        """Take the number of epochs that are over."""
        ...


class Scheduled(Protocol):
    """Something that changes with the training, such as a weight that fades."""

    def set_progress(self, done: float) -> None:
        """Take the share of the training that is over."""
        ...


class TellEpoch:
    """Calls ``target.set_epoch(epochs that are over)`` at the start of each epoch, also of a continued training.

    Args:
        target: has ``set_epoch``.
        length: of the training: epochs are then those of its preset, stretched to the number of steps that it takes.
    """

    def __init__(self, *, target: Told, length: RunLength | None = None) -> None:
        self.target, self.length = target, length
        self._told: int | None = None

    def attach(self, engine: Engine) -> None:
        """Register for every epoch start, or every step."""
        engine.add_event_handler(Events.EPOCH_STARTED if self.length is None else Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Tell the epoch that starts now."""
        over = engine.state.epoch - 1 if self.length is None else self.length.epochs_over(engine.state.iteration - 1)
        if over != self._told:
            self.target.set_epoch(over)
        self._told = over


class TellProgress:
    """Calls ``target.set_progress(share of the training that is over)``, in [0, 1), before each step.

    Args:
        target: has ``set_progress``.
        length: of the training.
    """

    def __init__(self, *, target: Scheduled, length: RunLength) -> None:
        self.target, self.length = target, length

    def attach(self, engine: Engine) -> None:
        """Register for every step."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Tell the progress before this step."""
        self.target.set_progress(self.length.progress(engine.state.iteration - 1))
