"""Keeping the best weights of a run as the bundle's ``model.pt``."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch import nn

from ...atomic import remove_stale
from ...card import ModelCard, save_weights
from ...errors import ConfigError, WeightError
from ...integrity import keep_previous, verify
from ...overridden import with_overridden
from .interrupt import interrupts
from .plain import bare

__all__ = ["KeepBest"]

logger = logging.getLogger(__name__)


class KeepBest:
    """Writes the network's weights whenever the evaluator's key metric improves; a better file is never lost.

    Attach it to the evaluator, and to the trainer as well for the case that there is nothing to validate on: then the
    last weights are written at the end. With ``select="last"`` and a trainer, every epoch is written instead.
    A file at ``path`` that this run did not write is kept as ``previous/model_<hash>.pth`` beside it first. List the
    handler in ``RunCheckpoint``'s ``save_dict``, so that a continued run knows the best metric so far.

    Args:
        path: the weights file, usually ``<ckpt_dir>/model.pt``.
        network: the network, also inside DDP.
        card: travels inside the file, with metric, value and epoch added.
        metric: name of the metric; the evaluator's key metric when omitted.
        mode: ``max`` or ``min``.
        select: ``best`` or ``last``.

    Raises:
        ConfigError: for another mode or selection, or a metric that the evaluator does not compute.
    """

    def __init__(
        self,
        *,
        path: str | Path,
        network: nn.Module,
        card: ModelCard | None = None,
        metric: str | None = None,
        mode: str = "max",
        select: str = "best",
    ) -> None:
        if mode not in ("max", "min"):
            raise ConfigError("a metric is maximised or minimised", where="mode", got=mode, expected="max or min")
        if select not in ("best", "last"):
            raise ConfigError("unknown selection", where="select", got=select, expected="best or last")
        self.path = Path(path)
        self.network = network
        self.card = card
        self.metric = metric
        self.mode = mode
        self.select = select
        self.best: float | None = None
        self.epoch = 0
        self.config_hash = ""
        self._own = False

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator or a trainer."""
        if isinstance(engine, Evaluator):
            if self.select == "best":
                engine.add_event_handler(Events.EPOCH_COMPLETED, self._validated)
        elif self.select == "last":
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._keep_last)
        else:
            engine.add_event_handler(Events.COMPLETED, self._keep_something)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far and its epoch."""
        return {"best": self.best, "epoch": self.epoch, "own": self._own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; when the file has gone or changed, the search for the best starts again."""
        self._own = bool(state["own"]) and self.path.exists() and self._unchanged()
        if state["own"] and not self._own:
            logger.warning("%s has gone or was changed; the next validation writes it again", self.path)
            return
        self.best, self.epoch = state["best"], int(state["epoch"])

    def _unchanged(self) -> bool:
        try:
            verify(self.path)
        except WeightError as error:
            logger.warning("%s", error)
            return False
        return self.path.stat().st_size > 0

    def _validated(self, engine: Engine) -> None:
        name = self.metric or str(getattr(engine.state, "key_metric_name", None))
        if name not in engine.state.metrics:
            raise ConfigError(
                "the evaluator does not compute this metric",
                where="metric",
                got=name,
                expected=", ".join(engine.state.metrics) or "a key_val_metric",
            )
        value = float(engine.state.metrics[name])
        if math.isnan(value):
            logger.warning("%s is not a number after epoch %d", name, engine.state.epoch)
        if self._improves(value):
            self.best = None if math.isnan(value) else value
            self._write(engine.state.epoch, {"metric": name, "value": self.best})
            logger.info("best %s so far: %.4f after epoch %d, kept in %s", name, value, engine.state.epoch, self.path)

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return not self._own or not math.isnan(value)
        return value > self.best if self.mode == "max" else value < self.best

    def _keep_last(self, engine: Engine) -> None:
        self._write(engine.state.epoch, {})

    def _keep_something(self, engine: Engine) -> None:
        if not self._own and engine.state.epoch > 0:
            logger.warning("there was no validation: the last weights are kept in %s", self.path)
            self._write(engine.state.epoch, {})

    def _write(self, epoch: int, extra: Mapping[str, Any]) -> None:
        self.epoch = epoch
        if idist.get_rank() == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            remove_stale(self.path.parent)
            kept = None if self._own else keep_previous(self.path)  # weights of another run are not overwritten
            if kept is not None:
                logger.info("the earlier %s was kept as %s", self.path.name, kept)
            card = self.card
            if card is not None:
                card = replace(with_overridden(card), config_hash=card.config_hash or self.config_hash)
                card = card.with_extra(epoch=epoch, **extra)
            with interrupts.protected():
                save_weights(self.path, bare(self.network).state_dict(), card)
        self._own = True
