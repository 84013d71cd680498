import random

import numpy as np
import pytest
import torch
from monai.data import Dataset, MetaTensor, get_track_meta
from monai.transforms import Compose, RandFlipd, RandGaussianNoised

from common.data.samples.draws import Draw, DrawnSamples, Randomness, draw_seed
from common.errors import ConfigError


def noise(data):
    return {**data, "drawn": torch.tensor([random.random(), np.random.rand(), float(torch.rand(()))])}


def dataset():
    chain = Compose([RandGaussianNoised("image", prob=1.0), RandFlipd("image", prob=0.5, spatial_axis=0), noise])
    return Dataset([{"image": torch.arange(12.0).reshape(1, 3, 4) + i} for i in range(4)], chain)


def same(a, b):
    return torch.equal(torch.as_tensor(a["image"]), torch.as_tensor(b["image"])) and torch.equal(a["drawn"], b["drawn"])


def test_a_draw_is_the_same_wherever_and_whenever_it_is_made():
    one, other = DrawnSamples(dataset(), seed=3), DrawnSamples(dataset(), seed=3)
    wanted = {n: one[Draw(n, n % 4)] for n in range(6)}
    torch.manual_seed(99)
    for n in (5, 0, 3, 3):
        assert same(other[Draw(n, n % 4)], wanted[n])
    assert not same(one[Draw(0, 0)], one[Draw(4, 0)]), "a case drawn twice gives two samples"
    assert not same(DrawnSamples(dataset(), seed=4)[Draw(0, 0)], wanted[0])
    assert one.set_random_state(5) is one and same(one[Draw(2, 2)], wanted[2]) and len(one) == 4


def test_the_process_draws_on_as_if_nothing_had_been():
    samples = DrawnSamples(dataset())
    for seed in (1, 2):
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        wanted = float(torch.rand(())), np.random.rand(), random.random()
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        samples[Draw(7, 1)]
        assert (float(torch.rand(())), np.random.rand(), random.random()) == wanted
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        with pytest.raises(ZeroDivisionError), Randomness(7):
            1 / 0  # the states are put back, the error goes on
        assert (float(torch.rand(())), np.random.rand(), random.random()) == wanted


def test_samples_carry_no_history_and_others_still_do():
    data = Dataset([{"image": MetaTensor(torch.rand(1, 4, 4))}], RandFlipd("image", prob=1.0))
    found = DrawnSamples(data)[Draw(0, 0)]["image"]
    assert type(found) is torch.Tensor and get_track_meta()
    assert torch.equal(found, data[0]["image"].as_tensor()) and data[0]["image"].applied_operations
    with pytest.raises(IndexError):
        DrawnSamples(data)[Draw(0, 5)]
    assert get_track_meta()


def test_neighbouring_seeds_share_no_draw():
    assert len({draw_seed(s, n) for s in range(10) for n in range(500)}) == 5000
    with pytest.raises(ConfigError, match="seed"):
        DrawnSamples(dataset(), seed=-1)
