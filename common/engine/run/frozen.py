"""Proof that a training changes what it may change, and nothing else."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from ignite.engine import Engine, Events
from torch import nn

from ...errors import AmalgamationError, ConfigError
from ...weights import digest
from .plain import bare

__all__ = ["ProveFrozen"]


class Selective(Protocol):
    """A network that says which of its parameters are trained."""

    def trains(self, name: str) -> bool:
        """Whether the parameter of this name is to be trained."""
        ...


class ProveFrozen:
    """Refuses a training whose optimizer or gradients reach frozen parameters, and compares them bit by bit at its end.

    List it after the handler that restores checkpoints; what a continued training restores is compared from then on.

    Args:
        network: has ``trains``; also inside DDP.
        optimizer: of the training.

    Raises:
        ConfigError: at the start, when a parameter that is not to be trained has a gradient or is in the optimizer, or
            when one that is to be trained and has a gradient is in no optimizer.
        AmalgamationError: at the end, when a frozen parameter has changed.
    """

    def __init__(self, *, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.network, self.optimizer = network, optimizer
        self._before: str | None = None

    def attach(self, engine: Engine) -> None:
        """Register for the start and the end of the training."""
        engine.add_event_handler(Events.STARTED, self.check)
        engine.add_event_handler(Events.COMPLETED, self.compare)

    def check(self, _engine: Engine | None = None) -> None:
        """Look at gradients and optimizer, and remember the frozen parameters."""
        inner: Any = bare(self.network)
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        wrong = {
            "frozen, but with a gradient": [
                n for n, p in inner.named_parameters() if p.requires_grad and not inner.trains(n)
            ],
            "frozen, but in the optimizer": [
                n for n, p in inner.named_parameters() if id(p) in held and not inner.trains(n)
            ],
            "to be trained, but in no optimizer": [
                n for n, p in inner.named_parameters() if p.requires_grad and inner.trains(n) and id(p) not in held
            ],
        }
        for problem, names in wrong.items():
            if names:
                where = "train::optimizer::params"
                expected = "the parameters of network.trainable()"
                hint = f"{len(names)} parameters are concerned"
                raise ConfigError(f"parameters are {problem}", where=where, got=names[:4], expected=expected, hint=hint)
        self._before = self._frozen()

    def compare(self, _engine: Engine | None = None) -> None:
        """Look at the frozen parameters again."""
        if self._before is not None and self._frozen() != self._before:
            raise AmalgamationError(
                "frozen parameters have changed in this training",
                where=type(bare(self.network)).__name__,
                got="other values than at the start",
                expected="the same, bit by bit",
                hint="look for code that writes to them: weight decay, averaging, loading",
            )

    def _frozen(self) -> str:
        inner: Any = bare(self.network)
        return digest((n, p) for n, p in inner.named_parameters() if not inner.trains(n))
