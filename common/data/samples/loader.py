"""A loader of draws: in this process, or in as many as the machine has cores, with equal results."""

from __future__ import annotations

import multiprocessing
from typing import Any

import torch
from monai.data import DataLoader

from ...atomic import usable_cores
from ...errors import ConfigError
from .draws import DrawnSamples
from .sampler import DrawSampler

__all__ = ["SampleLoader", "cores"]

MOST = 8


class SampleLoader(DataLoader):
    """MONAI's ``DataLoader`` over numbered draws.

    Workers stay alive between epochs, and memory is pinned where there is a GPU. What a sample is depends on the seed
    and its number alone, so that the number of workers, a restart and the number of processes change nothing.

    Args:
        dataset: what the draws' positions are of.
        sampler: the draws.
        batch_size: samples of a batch of this process.
        num_workers: processes that make samples; ``auto``: one per core but one, at most 8.
        seed: the run's, >= 0.
        drop_last: leave an incomplete last batch out.
        kwargs: further arguments of ``DataLoader``.

    Raises:
        ConfigError: for another sampler, or an impossible number of workers.
    """

    numbered = True

    def __init__(
        self,
        dataset: Any,
        *,
        sampler: DrawSampler,
        batch_size: int = 1,
        num_workers: int | str = "auto",
        seed: int = 0,
        drop_last: bool = False,
        **kwargs: Any,
    ) -> None:
        if not isinstance(sampler, DrawSampler):
            got = type(sampler).__name__
            expected = "common.data.samples.sampler.DrawSampler"
            raise ConfigError("samples are numbered by a DrawSampler", where="sampler", got=got, expected=expected)
        if num_workers != "auto" and (not isinstance(num_workers, int) or num_workers < 0):
            problem = "samples are made by 0 or more processes"
            raise ConfigError(problem, where="num_workers", got=num_workers, expected="auto, or a number")
        count = cores() if num_workers == "auto" else int(num_workers)
        given = {"persistent_workers": count > 0, "pin_memory": torch.cuda.is_available(), **kwargs}
        super().__init__(
            DrawnSamples(dataset, seed), num_workers=count, batch_size=batch_size, sampler=sampler, drop_last=drop_last,
            generator=torch.Generator(), **given,
        )  # fmt: skip


def cores() -> int:
    """Workers for this machine: its cores but one, shared by the processes of a launch; 0 where there is but one."""
    if multiprocessing.current_process().daemon:
        return 0
    return min(MOST, usable_cores() - 1)
