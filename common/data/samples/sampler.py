"""Which case each draw of a run takes; an epoch is a number of draws, however many cases there are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from ...errors import ConfigError
from .draws import Draw

__all__ = ["DrawSampler", "balanced_weights"]

BALANCES = ("task", "modality")


class DrawSampler(Sampler[Draw]):
    """Draws of a run: numbered through all epochs, the same for any number of processes.

    Without weights every position is drawn once before any is drawn again; with them, positions are drawn with
    replacement. Process ``r`` of ``W`` takes the draws ``r, r + W, ...`` of an epoch, so that a batch of all processes
    together is a run of consecutive draws. When an epoch does not divide by ``W``, its first draws' positions are drawn
    once more, under the numbers that the next epoch begins with.

    Args:
        dataset: the positions.
        draws: of an epoch; the number of positions when None.
        iterations: batches of an epoch instead.
        batch_size: samples of a batch of all processes together; needed with ``iterations``.
        seed: the run's, >= 0.
        weights: how often each position is drawn, >= 0.
        balance: ``task``, ``modality`` or both, separated by commas: cases of each are drawn equally often.
        shuffle: False takes the positions in order.
        rank: of this process; asked of the process group when None.
        processes: how many there are.

    Raises:
        ConfigError: for no positions, no draws, negative weights, or both ``weights`` and ``balance``.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        draws: int | None = None,
        iterations: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        weights: Sequence[float] | None = None,
        balance: str | None = None,
        shuffle: bool = True,
        rank: int | None = None,
        processes: int | None = None,
    ) -> None:
        self.count = len(dataset)
        if iterations is not None:
            if iterations < 1 or batch_size is None or batch_size < 1:
                raise ConfigError("an epoch has at least one iteration", where="iterations_per_epoch", got=iterations)
            draws = iterations * batch_size
        draws = self.count if draws is None else int(draws)
        if self.count < 1 or draws < 1:
            raise ConfigError("there is nothing to draw", where="sampler", got=f"{draws} draws of {self.count}")
        if balance and weights is not None:
            raise ConfigError("balance and weights exclude each other", where="balance", got=balance)
        self.weights = balanced_weights(dataset, balance) if balance else _checked(weights, self.count)
        self.draws, self.seed, self.shuffle, self.epoch = draws, int(seed), shuffle, 1
        self._rank, self._processes = rank, processes

    @property
    def processes(self) -> int:
        """How many share the draws."""
        return idist.get_world_size() if self._processes is None else self._processes

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is next, from 1 on."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        """Draws of this process in an epoch."""
        return math.ceil(self.draws / self.processes)

    def __iter__(self) -> Iterator[Draw]:
        """The draws of this process in the epoch."""
        processes, rank = self.processes, idist.get_rank() if self._rank is None else self._rank
        total = len(self) * processes
        positions = self.positions()
        first = (self.epoch - 1) * self.draws  # for any number of processes
        for number in range(rank, total, processes):
            yield Draw(first + number, int(positions[number % self.draws]))

    def positions(self) -> NDArray[np.int64]:
        """The positions of all draws of the epoch."""
        random = np.random.default_rng(np.random.SeedSequence([self.seed, self.epoch, 1]))
        if self.weights is not None:
            return random.choice(self.count, self.draws, p=self.weights)
        rounds = math.ceil(self.draws / self.count)
        one = random.permutation if self.shuffle else np.arange
        return np.concatenate([one(self.count) for _ in range(rounds)])[: self.draws]


def balanced_weights(dataset: Any, balance: str) -> NDArray[np.float64]:
    """Weights with which each task or modality (or pair of both) is drawn equally often.

    Args:
        dataset: has ``item_of(position)``, the case's own entries.
        balance: ``task``, ``modality`` or both, separated by commas.

    Raises:
        ConfigError: for something else, or a data set without ``item_of``.
    """
    keys = [k.strip() for k in balance.split(",")]
    if not hasattr(dataset, "item_of"):
        problem = "this data set does not say which task or modality its cases are of"
        raise ConfigError(problem, where="balance", got=type(dataset).__name__, expected="a data set with item_of(...)",
                          hint="leave balance out, or give weights")  # fmt: skip
    if not set(keys) <= set(BALANCES):
        raise ConfigError("unknown balance", where="balance", got=balance, expected=" or ".join(BALANCES))
    groups = [tuple(str(dataset.item_of(i).get(k)) for k in keys) for i in range(len(dataset))]
    count = Counter(groups)
    return np.array([1 / count[g] / len(count) for g in groups])


def _checked(weights: Any, count: int) -> NDArray[np.float64] | None:
    if weights is None:
        return None
    given = np.asarray(weights, dtype=np.float64)
    if given.shape != (count,) or not np.isfinite(given).all() or (given < 0).any() or given.sum() <= 0:
        raise ConfigError("one weight >= 0 for each position", where="weights", got=given.shape, expected=(count,))
    shares: NDArray[np.float64] = given / given.sum()
    return shares
