"""Weights of experts that no gradient reaches, found by trying."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd

from ....atomic import atomic_write
from ....errors import ConfigError

__all__ = ["SearchWeights", "minimise"]

logger = logging.getLogger(__name__)


class Weighed(Protocol):
    """A network whose experts have weights."""

    levels: Sequence[str]
    training: bool

    def set_weights(self, weights: Sequence[float]) -> None:
        """Weigh the experts anew."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation."""
        ...

    def __call__(self, image: torch.Tensor, **kwargs: Any) -> Any:
        """Answer."""
        ...


def minimise(
    objective: Callable[[Sequence[float]], float], *, size: int, budget: int, bound: float, seed: int = 0
) -> list[float]:
    """Minimise a function without gradients by Nevergrad's ``NGOpt``, starting at zero.

    Args:
        objective: of ``size`` numbers between ``-bound`` and ``bound``.
        size: how many numbers.
        budget: how often the objective is asked, >= 1.
        bound: > 0.
        seed: of the search.

    Raises:
        ConfigError: for an impossible budget or bound, or when Nevergrad is not installed.

    Reference:
        Liu et al., Versatile black-box optimization, 2020 (NGOpt).
    """
    if budget < 1 or bound <= 0:
        where = "search_budget, search_bound"
        raise ConfigError("a search has a budget and bounds", where=where, got=(budget, bound), expected=">= 1 and > 0")
    try:
        import nevergrad
    except ImportError as error:
        problem = "this fuser searches with the package nevergrad, which is not installed"
        hint = "python -m pip install nevergrad==1.0.12"
        raise ConfigError(problem, where="fuser", got="lorahub", hint=hint) from error
    space = nevergrad.p.Array(init=np.zeros(size), lower=-bound, upper=bound)
    space.random_state.seed(seed)
    optimizer = nevergrad.optimizers.NGOpt(parametrization=space, budget=budget)
    found = optimizer.minimize(lambda w: objective(w.tolist()))
    return [float(w) for w in found.value]


class SearchWeights:
    """Before the first epoch, finds the experts' weights on a few batches (LoRAHub); then they stay.

    ``w* = argmin mean_batches L(w) + penalty mean_i |w_i|``. A continued training has its weights from the checkpoint.
    Writes ``<output_dir>/weights.json``.

    Args:
        network: has ``levels`` and ``set_weights``.
        loader: gives the batches; labelled training data.
        prepare_batch: as the trainer's: ``(batch, device, non_blocking) -> image, target, args, kwargs``.
        loss: ``(outputs, target) -> {"loss": ...}``.
        output_dir: the run's folder.
        budget: how many weights are tried.
        bound: largest absolute weight.
        penalty: of the mean absolute weight.
        batches: how many batches each is tried on, >= 1.
        seed: of batches and search.
        enabled: False does nothing, for other fusers.

    Raises:
        ConfigError: for impossible numbers, or when Nevergrad is not installed.

    Reference:
        Huang et al., LoRAHub, 2024, eq. 2 and section 3.2 (bound 1.5, penalty 0.05, 40 trials).
    """

    def __init__(
        self,
        *,
        network: Weighed,
        loader: Any,
        prepare_batch: Callable[..., tuple[Any, ...]],
        loss: Callable[[Any, Any], Mapping[str, torch.Tensor]],
        output_dir: str | Path,
        budget: int = 40,
        bound: float = 1.5,
        penalty: float = 0.05,
        batches: int = 4,
        seed: int = 0,
        enabled: bool = True,
    ) -> None:
        if batches < 1 or penalty < 0:
            where = "search_batches"
            expected = "at least one batch and a penalty >= 0"
            raise ConfigError("weights are tried on batches", where=where, got=(batches, penalty), expected=expected)
        self.network, self.loader, self.prepare_batch, self.loss = network, loader, prepare_batch, loss
        self.path, self.enabled = Path(output_dir) / "weights.json", enabled
        self.budget, self.bound, self.penalty, self.batches, self.seed = budget, bound, penalty, batches, seed

    def attach(self, engine: Engine) -> None:
        """Register for the start, after the checkpoint was read."""
        if self.enabled:
            engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Search, unless the training goes on from an earlier epoch."""
        if engine.state.epoch > 0:
            return
        state: Any = engine.state  # MONAI's, which knows the device
        device: torch.device = state.device
        was_training, tried = self.network.training, list[dict[str, Any]]()
        self.network.train(False)
        few = self._few(device)

        @torch.no_grad()
        def objective(weights: Sequence[float]) -> float:
            self.network.set_weights(weights)
            losses = [float(self.loss(self.network(image, **kwargs), target)["loss"]) for image, target, kwargs in few]
            value = sum(losses) / len(losses) + self.penalty * sum(map(abs, weights)) / len(weights)
            tried.append({"weights": list(weights), "value": value})
            return value

        size = len(self.network.levels)
        found = minimise(objective, size=size, budget=self.budget, bound=self.bound, seed=self.seed)
        if idist.get_world_size() > 1:
            shared: Any = idist.broadcast(torch.tensor(found, device=device), src=0)  # a tensor, as is what it sends
            found = shared.tolist()
        self.network.set_weights(found)
        self.network.train(was_training)
        self._write(found, tried)

    def _few(self, device: torch.device) -> list[tuple[Any, Any, dict[str, Any]]]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            set_rnd(self.loader.dataset, self.seed)
            found = []
            for number, batch in enumerate(self.loader, start=1):
                image, target, _, kwargs = self.prepare_batch(batch, device, False)
                found.append((image, target, kwargs))
                if number == self.batches:
                    break
        return found

    def _write(self, found: Sequence[float], tried: Sequence[Mapping[str, Any]]) -> None:
        named = dict(zip(self.network.levels, found, strict=True))
        logger.info("weights of the experts after %d trials: %s", len(tried), named)
        if idist.get_rank() == 0:
            with atomic_write(self.path) as temporary:
                temporary.write_text(json.dumps({"weights": named, "tried": tried}, indent=1) + "\n", encoding="utf-8")
