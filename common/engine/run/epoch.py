"""Telling an object of the training how many epochs are over."""

from __future__ import annotations

from typing import Protocol

from ignite.engine import Engine, Events

__all__ = ["TellEpoch"]


class Told(Protocol):
    """Something that changes with the epochs, such as a loss with a schedule."""

    def set_epoch(self, epoch: int) -> None:
        """Take the number of epochs that are over."""
        ...


class TellEpoch:
    """Calls ``target.set_epoch(epochs that are over)`` at the start of each epoch, also of a continued training.

    Args:
        target: has ``set_epoch``.
    """

    def __init__(self, *, target: Told) -> None:
        self.target = target

    def attach(self, engine: Engine) -> None:
        """Register for every epoch start."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Tell the epoch that starts now."""
        self.target.set_epoch(engine.state.epoch - 1)
