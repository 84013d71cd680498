"""Random numbers that depend on the seed and the epoch only, so that a resumed run repeats an undisturbed one."""

from __future__ import annotations

import random
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd

from ...errors import ConfigError

__all__ = ["SeedEachEpoch", "epoch_seed"]


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """A seed in ``[0, 2**32)`` that differs for every epoch and process.

    ``SeedSequence((seed, epoch, rank))`` mixes the three numbers, so that neighbouring seeds share no epoch.
    """
    return int(np.random.SeedSequence((seed, epoch, rank)).generate_state(1)[0])


class SeedEachEpoch:
    """Seeds torch, numpy, python and the dataset's random transforms at the start of every epoch.

    A :class:`~common.data.samples.loader.SampleLoader` numbers its samples instead and is told
    the epoch only: its samples do not depend on the process, the number of workers or what was drawn before.

    Epoch ``n`` then draws the same shuffling, augmentation and dropout whether or not the run was interrupted before.
    The data iterator is renewed each epoch, also when an epoch is shorter than the dataset.

    Args:
        seed: the run's seed, >= 0.
        dataset: dataset whose transforms are seeded; the trainer's own when omitted.

    Raises:
        ConfigError: for a negative seed, and (at attach) when the data loader keeps its workers between epochs, as
            their random states would survive the seeding.
    """

    def __init__(self, *, seed: int = 0, dataset: Any = None) -> None:
        if seed < 0:
            raise ConfigError("a seed is a number >= 0", where="seed", got=seed)
        self.seed = int(seed)
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Register for every epoch start."""
        loader = getattr(engine, "data_loader", None)
        if getattr(loader, "persistent_workers", False) and not getattr(loader, "numbered", False):
            raise ConfigError(
                "persistent_workers keeps random states between epochs: a resumed run would differ",
                where="train::dataloader",
                got="persistent_workers=True",
                expected="persistent_workers=False, or common.data.samples.loader.SampleLoader",
            )
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed the epoch that starts now."""
        value = epoch_seed(self.seed, engine.state.epoch, idist.get_rank())
        torch.manual_seed(value)
        np.random.seed(value)
        random.seed(value)
        loader = getattr(engine, "data_loader", None)
        dataset = self.dataset if self.dataset is not None else getattr(loader, "dataset", None)
        if dataset is not None and not getattr(loader, "numbered", False):
            set_rnd(dataset, value)
        for owner in (loader, getattr(loader, "sampler", None)):
            tell = getattr(owner, "set_epoch", None)
            if callable(tell):
                tell(engine.state.epoch)
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator):
                generator.manual_seed(value)
        if loader is not None:
            engine.set_data(loader)
