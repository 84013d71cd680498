"""Training on while an earlier model is in use: nothing replaces it that is not better."""

from __future__ import annotations

import logging
import math
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import Evaluator

from ...errors import ConfigError
from ..run.best import KeepBest

__all__ = ["RefineServed"]

logger = logging.getLogger(__name__)


class RefineServed:
    """Validates the network before its first step, and lets :class:`KeepBest` write only what beats that.

    Without anything to validate on, the last weights are written at the end. Either way the file that was there is
    kept, in ``previous`` beside it.

    Args:
        keeper: writes the file; it need not be attached to anything.
        validator: computes the key metric; one without data is not run.
        every: epochs between two validations, >= 1.

    Raises:
        ConfigError: for an interval below one.
    """

    def __init__(self, *, keeper: KeepBest, validator: Evaluator, every: int = 1) -> None:
        if every < 1:
            raise ConfigError("there is at least an epoch between two validations", where="every", got=every)
        self.keeper, self.validator, self.every = keeper, validator, every

    def attach(self, trainer: Engine) -> None:
        """Register with a trainer, after what loads the earlier weights."""
        loader: Any = self.validator.data_loader
        if not loader or not len(loader):
            logger.warning("there is nothing to validate on: the last weights will replace the model")
            self.keeper.attach(trainer)
            return
        trainer.add_event_handler(Events.STARTED, self._mark)
        trainer.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self._validate)
        trainer.add_event_handler(Events.COMPLETED, self._report)

    def _mark(self, trainer: Engine) -> None:
        self.validator.run()
        value = float(self.validator.state.metrics[str(self.validator.state.key_metric_name)])
        self.keeper.best = None if math.isnan(value) else value
        logger.info("the model in use has %s %.4f", self.validator.state.key_metric_name, value)
        self.keeper.attach(self.validator)

    def _validate(self, trainer: Engine) -> None:
        self.validator.run(trainer.state.epoch)

    def _report(self, trainer: Engine) -> None:
        if self.keeper.epoch == 0:
            logger.warning("no epoch was better than the model in use, which stays")
