import os

import pytest
import torch
from monai.data import Dataset
from monai.transforms import Compose, RandGaussianNoised
from torch import nn

from common.data.samples import loader as module
from common.data.samples.loader import SampleLoader, cores
from common.data.samples.sampler import DrawSampler
from common.errors import ConfigError


def made(workers, first=1, epochs=3):
    """Batches of some epochs, with a number that the training draws beside each, as a run that starts there sees it."""
    chain = Compose([RandGaussianNoised("image", prob=1.0)])
    data = Dataset([{"image": torch.zeros(1, 3) + i} for i in range(7)], chain)
    loader = SampleLoader(data, sampler=DrawSampler(data, seed=5), batch_size=2, num_workers=workers, seed=5)
    found = {}
    for epoch in range(first, epochs + 1):
        torch.manual_seed(epoch)
        loader.sampler.set_epoch(epoch)
        found[epoch] = torch.cat([torch.cat([b["image"].flatten(), torch.rand(1)]) for b in loader])
    return found


def test_the_number_of_workers_changes_nothing():
    wanted = made(0)
    for workers, first in ((1, 1), (2, 2)):
        found = made(workers, first)
        assert all(torch.equal(found[e], wanted[e]) for e in found) and max(found) == 3
    assert not torch.equal(wanted[1], wanted[2])


def test_workers_stay(monkeypatch):
    data = list(range(4))
    assert SampleLoader(data, sampler=DrawSampler(data), num_workers=2).persistent_workers
    assert not SampleLoader(data, sampler=DrawSampler(data), num_workers=0).persistent_workers
    monkeypatch.setattr(module, "cores", lambda: 3)
    assert SampleLoader(data, sampler=DrawSampler(data)).num_workers == 3
    for wrong in (-1, "many", None):
        with pytest.raises(ConfigError, match="auto, or a number"):
            SampleLoader(data, sampler=DrawSampler(data), num_workers=wrong)
    with pytest.raises(ConfigError, match="DrawSampler"):
        SampleLoader(data, sampler=[0, 1])


def test_cores_are_shared_by_the_processes_of_a_launch(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert cores() == 5
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert cores() == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(60)))
    assert cores() == 8


def test_a_network_beside_it_draws_the_same_dropout():
    torch.manual_seed(0)
    wanted = nn.Dropout(0.5)(torch.ones(50))
    torch.manual_seed(0)
    data = [0.0, 1.0]
    next(iter(SampleLoader(data, sampler=DrawSampler(data), num_workers=0)))
    assert torch.equal(nn.Dropout(0.5)(torch.ones(50)), wanted)
