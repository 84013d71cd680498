"""Learning rates that go by optimizer steps and come to their end with the training, however long it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from ...errors import ConfigError
from .length import RunLength

__all__ = ["StepSchedule"]

SHAPES = ("constant", "poly", "cosine", "parts")


class StepSchedule(LRScheduler):
    """A warm-up, then a decay over all steps that are left; step it after each optimizer step.

    After ``s`` of ``n`` steps, with ``w`` of warm-up, the rate is multiplied by ``1/w + (1 - 1/w) s/w`` while
    ``s < w``, then, with ``p = (s - w) / (n - w)``,

    * ``poly``: by ``(1 - p)^power``,
    * ``cosine``: by ``(1 + cos(pi p)) / 2``,
    * ``parts``: by ``factors[i]`` from the share ``at[i]`` of all steps on,
    * ``constant``: by 1.

    ``n`` is asked of ``length``, so that the schedule is stretched to a budget.

    Args:
        optimizer: whose groups' rates are multiplied.
        length: of the training.
        shape: ``constant``, ``poly``, ``cosine`` or ``parts``.
        power: of ``poly``, > 0.
        at: ascending shares of the training, > 0; beyond 1 they are never reached.
        factors: one >= 0 for each of ``at``.
        warmup_steps: of the warm-up, >= 0; at most a quarter of all steps.
        warmup_share: the warm-up as a share of all steps, >= 0, in the place of ``warmup_steps``.

    Raises:
        ConfigError: for an unknown shape or numbers out of their range.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        length: RunLength,
        shape: str = "constant",
        power: float = 0.9,
        at: Sequence[float] = (),
        factors: Sequence[float] = (),
        warmup_steps: int = 0,
        warmup_share: float = 0.0,
    ) -> None:
        where = "train::lr_scheduler"
        if shape not in SHAPES:
            raise ConfigError("unknown schedule", where=where, got=shape, expected=", ".join(SHAPES))
        if not power > 0:
            raise ConfigError("a polynomial has a positive power", where=where, got=power, expected="> 0")
        if (
            list(at) != sorted(at)
            or any(not a > 0 for a in at)
            or len(at) != len(factors)
            or min(factors, default=0) < 0
        ):
            raise ConfigError("a factor >= 0 for each of ascending shares", where=where, got=(list(at), list(factors)))
        if warmup_steps < 0 or warmup_share < 0 or (warmup_steps and warmup_share):
            got = (warmup_steps, warmup_share)
            raise ConfigError("a warm-up has one length", where=where, got=got, expected="steps >= 0, or a share >= 0")
        self.length, self.shape, self.power = length, shape, power
        self.at, self.factors = tuple(at), tuple(factors)
        self.warmup_steps, self.warmup_share = warmup_steps, warmup_share
        super().__init__(optimizer)
        length.listen(self.refresh)

    def factor(self, steps: int) -> float:
        """What the rate is multiplied by after so many steps."""
        total, warm = self.length.total or 0, self._warmup()
        if steps < warm:
            return 1 / warm + (1 - 1 / warm) * steps / warm
        if self.shape == "parts":
            over = [
                f for a, f in zip(self.at, self.factors, strict=True) if total and steps >= max(1, round(a * total))
            ]
            return over[-1] if over else 1.0
        share = min(1.0, (steps - warm) / (total - warm)) if total > warm else 0.0
        if self.shape == "poly":
            return float((1 - share) ** self.power)
        return (1 + math.cos(math.pi * share)) / 2 if self.shape == "cosine" else 1.0

    def _warmup(self) -> int:
        total = self.length.total
        if total is None:
            return self.warmup_steps
        wanted = round(self.warmup_share * total) if self.warmup_share else self.warmup_steps
        return min(wanted, total // 4)

    def get_lr(self) -> list[float | torch.Tensor]:
        """The rate of each group now."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]

    def refresh(self) -> None:
        """Write the rates anew, as the length has become another one."""
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate
        self._last_lr = self.get_lr()

    def state_dict(self) -> dict[str, Any]:
        """The number of steps that were made and the rates that are multiplied."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.last_epoch = int(state_dict["last_epoch"])
        self.base_lrs = list(map(float, state_dict["base_lrs"]))
        self.refresh()
