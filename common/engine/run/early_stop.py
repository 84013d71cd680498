"""Ending a training when validation no longer improves, also across interruptions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from monai.engines import Evaluator

from ...errors import ConfigError

__all__ = ["StopEarly"]

logger = logging.getLogger(__name__)


class StopEarly:
    """Ignite's ``EarlyStopping`` on the evaluator's key metric, whose count survives a restart.

    Attach it to the trainer (after ``RunCheckpoint``) and to the evaluator, and list it in ``RunCheckpoint``'s
    ``save_dict``: a run that had stopped stays stopped, an interrupted one counts on.

    Args:
        patience: validations without a new best before the training ends, >= 1; None never ends it.

    Raises:
        ConfigError: for a patience below 1.
    """

    def __init__(self, *, patience: int | None = None) -> None:
        if patience is not None and patience < 1:
            raise ConfigError("at least one validation", where="patience", got=patience, expected=">= 1, or None")
        self.patience = patience
        self._stopping: EarlyStopping | None = None
        self._state: dict[str, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator or a trainer."""
        if self.patience is None:
            return
        if isinstance(engine, Evaluator):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._validated)
        else:
            self._stopping = EarlyStopping(patience=self.patience, score_function=_score, trainer=engine)
            engine.add_event_handler(Events.STARTED, self._stay_stopped)  # after the checkpoint was read

    def state_dict(self) -> dict[str, Any]:
        """Validations without a new best, and the best."""
        return dict(self._stopping.state_dict()) if self._stopping is not None else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        if self._stopping is not None and state:
            self._stopping.load_state_dict(dict(state))

    def _validated(self, engine: Engine) -> None:
        if self._stopping is None:
            expected = "the stop handler among the trainer's handlers, too"
            raise ConfigError("early stopping does not know the training", where="train::handlers", expected=expected)
        self._stopping(engine)
        if self._stopping.counter >= self._stopping.patience:
            logger.info("training ends: no better validation for %d times", self._stopping.counter)

    def _stay_stopped(self, engine: Engine) -> None:
        if self._stopping is not None and self._stopping.counter >= self._stopping.patience:
            engine.terminate()


def _score(engine: Engine) -> float:
    name: str = engine.state.key_metric_name  # type: ignore[attr-defined]
    return float(engine.state.metrics[name])
