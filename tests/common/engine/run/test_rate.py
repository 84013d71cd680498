"""Rates by steps against torch's own schedules, and their ends under other lengths."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, PolynomialLR, SequentialLR

from common.engine.run.length import RunLength
from common.engine.run.rate import StepSchedule
from common.errors import ConfigError


def optimizer(*rates):
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": r} for r in rates or (0.1,)])


def rates(schedule, steps):
    found = []
    for _ in range(steps):
        found.append([g["lr"] for g in schedule.optimizer.param_groups])
        schedule.optimizer.step()
        schedule.step()
    return found


def length(total):
    found = RunLength(epochs=1)
    found.total = total
    return found


@pytest.mark.parametrize(
    ("own", "torchs"),
    [
        ({"shape": "poly", "power": 0.9}, lambda o: PolynomialLR(o, 40, 0.9)),
        ({"shape": "cosine"}, lambda o: CosineAnnealingLR(o, 40)),
        ({"shape": "parts", "at": [0.5, 0.75], "factors": [0.1, 0.01]}, lambda o: MultiStepLR(o, [20, 30], 0.1)),
        (
            {"shape": "poly", "power": 2.0, "warmup_steps": 5},
            lambda o: SequentialLR(o, [LinearLR(o, 0.2, total_iters=5), PolynomialLR(o, 35, 2.0)], milestones=[5]),
        ),
    ],
)
def test_at_the_presets_length_it_is_torchs_schedule(own, torchs):
    ours = rates(StepSchedule(optimizer(0.1, 0.3), length=length(40), **own), 40)
    theirs = rates(torchs(optimizer(0.1, 0.3)), 40)
    assert torch.allclose(torch.tensor(ours), torch.tensor(theirs), rtol=1e-5)


@pytest.mark.parametrize("total", [1, 2, 3, 7, 40, 1000])
@pytest.mark.parametrize("shape", ["poly", "cosine"])
def test_warm_up_and_decay_end_with_the_training(total, shape):
    found = [r for (r,) in rates(StepSchedule(optimizer(), length=length(total), shape=shape, warmup_steps=25), total)]
    warm = min(25, total // 4)
    assert max(found) == found[warm] == pytest.approx(0.1), "a warm-up takes a quarter at most"
    assert found[: warm + 1] == sorted(found[: warm + 1]) and found[warm:] == sorted(found[warm:], reverse=True)
    assert found[-1] <= 0.1 * (1.2 * 2 / (total - warm)) ** 0.9


def test_another_length_is_heard_at_once():
    planned = length(10)
    schedule = StepSchedule(optimizer(), length=planned, shape="poly", power=1.0)
    rates(schedule, 5)
    assert schedule.get_last_lr() == [pytest.approx(0.05)]
    planned.total = 20
    schedule.refresh()
    assert schedule.optimizer.param_groups[0]["lr"] == schedule.get_last_lr()[0] == pytest.approx(0.075)


def test_before_the_length_is_known_the_warm_up_is_as_given():
    planned = RunLength(epochs=1)
    assert StepSchedule(optimizer(), length=planned, warmup_steps=4).get_last_lr() == [pytest.approx(0.025)]
    assert StepSchedule(optimizer(), length=planned, shape="cosine").get_last_lr() == [pytest.approx(0.1)]


def test_it_goes_on_as_it_was():
    first = StepSchedule(optimizer(), length=length(40), shape="cosine")
    rates(first, 13)
    again = StepSchedule(optimizer(), length=length(40), shape="cosine")
    again.load_state_dict(first.state_dict())
    assert rates(again, 5) == rates(first, 5) and math.isclose(again.base_lrs[0], 0.1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"shape": "linear"}, "unknown schedule"),
        ({"shape": "poly", "power": 0.0}, "positive power"),
        ({"shape": "parts", "at": [0.5], "factors": []}, "ascending shares"),
        ({"shape": "parts", "at": [0.5, 0.2], "factors": [1, 1]}, "ascending shares"),
        ({"shape": "parts", "at": [0.0], "factors": [1]}, "ascending shares"),
        ({"shape": "parts", "at": [0.5], "factors": [-1]}, "ascending shares"),
        ({"warmup_steps": -1}, "warm-up"),
        ({"warmup_share": -0.1}, "warm-up"),
        ({"warmup_steps": 2, "warmup_share": 0.1}, "warm-up"),
    ],
)
def test_what_is_no_schedule_is_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        StepSchedule(optimizer(), length=length(10), **given)
