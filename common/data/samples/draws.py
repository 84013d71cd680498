"""Samples whose randomness comes from their number alone, not from the process that makes them."""

from __future__ import annotations

import random
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import get_track_meta, set_track_meta
from monai.data.utils import set_rnd
from torch.utils.data import Dataset

from ...errors import ConfigError

__all__ = ["Draw", "DrawnSamples", "Randomness", "draw_seed"]


class Draw(NamedTuple):
    """One sample of a run.

    Args:
        number: from 0 on, through all epochs and processes of the run.
        position: of the case (or slice, or object) in the data set.
    """

    number: int
    position: int


def draw_seed(seed: int, number: int) -> int:
    """A seed in ``[0, 2**32)`` for one draw: ``SeedSequence([seed, number])`` mixes both."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class Randomness:
    """Context in which torch (CPU), numpy, python and MONAI's transforms draw from one seed.

    The global generators are put back afterwards, so that dropout in the same process draws on as if nothing had been.

    Args:
        seed: in ``[0, 2**32)``.
        transform: MONAI transforms, which have generators of their own; None when there are none.
    """

    def __init__(self, seed: int, transform: Any = None) -> None:
        self.seed, self.transform = seed, transform

    def __enter__(self) -> None:
        """Keep the generators' states and seed all."""
        self.kept = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
        torch.random.default_generator.manual_seed(self.seed)
        np.random.seed(self.seed)
        random.seed(self.seed)
        if self.transform is not None:
            set_rnd(self.transform, self.seed)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the states back."""
        torch.random.set_rng_state(self.kept[0])
        np.random.set_state(self.kept[1])
        random.setstate(self.kept[2])


class DrawnSamples(Dataset[Any]):
    """A data set that is asked for draws in the place of positions.

    Args:
        dataset: what the positions are of; its ``transform`` is random.
        seed: the run's, >= 0.

    Raises:
        ConfigError: for a negative seed.
    """

    def __init__(self, dataset: Any, seed: int = 0) -> None:
        if seed < 0:
            raise ConfigError("a seed is a number >= 0", where="seed", got=seed)
        self.dataset, self.seed = dataset, int(seed)

    def __len__(self) -> int:
        """Number of positions."""
        return len(self.dataset)

    def __getitem__(self, draw: Draw | tuple[int, int]) -> Any:
        """The sample of a draw: the same in every process, for every order of asking."""
        number, position = draw
        tracking, threads = get_track_meta(), torch.get_num_threads()
        torch.set_num_threads(1)  # as a worker has: sums of several threads differ in their last bits
        set_track_meta(False)  # no sample is ever put back on its scan's grid, and keeping its history costs more than
        try:  # the transforms of a slice do
            with Randomness(draw_seed(self.seed, int(number)), getattr(self.dataset, "transform", None)):
                return self.dataset[int(position)]
        finally:
            set_track_meta(tracking)
            torch.set_num_threads(threads)

    def set_random_state(self, seed: int | None = None, state: Any = None) -> DrawnSamples:
        """Nothing: loaders seed the data sets of their workers, and here a draw's number decides."""
        return self
