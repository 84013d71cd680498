from collections import Counter

import numpy as np
import pytest

from common.data.samples.sampler import DrawSampler, balanced_weights
from common.errors import ConfigError


class Cases(list):
    def item_of(self, position):
        return self[position]


def cases():
    return Cases([{"task": "liver", "modality": "CT"}] * 6 + [{"task": "liver", "modality": "MR"}] * 2
                 + [{"task": "heart", "modality": "MR"}] * 4)  # fmt: skip


def epoch(sampler, number):
    sampler.set_epoch(number)
    found = list(sampler)
    assert len(found) == len(sampler)
    return found


def test_every_case_once_before_any_again_and_numbers_go_on():
    sampler = DrawSampler(range(5), seed=2)
    first, second = epoch(sampler, 1), epoch(sampler, 2)
    assert [d.number for d in first + second] == list(range(10))
    assert sorted(d.position for d in first) == sorted(d.position for d in second) == list(range(5))
    assert [d.position for d in first] != [d.position for d in second] and epoch(sampler, 1) == first
    assert epoch(DrawSampler(range(5), seed=3), 1) != first
    longer = epoch(DrawSampler(range(5), draws=12, seed=2), 1)
    assert [Counter(d.position for d in longer)[i] for i in range(5)].count(1) == 0
    assert [d.position for d in DrawSampler(range(3), draws=7, shuffle=False)] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_same_draws(processes):
    wanted = [epoch(DrawSampler(range(9), iterations=4, batch_size=8, seed=1, rank=0, processes=1), e) for e in (1, 2)]
    for number, whole in enumerate(wanted, start=1):
        parts = [
            epoch(DrawSampler(range(9), iterations=4, batch_size=8, seed=1, rank=r, processes=processes), number)
            for r in range(processes)
        ]
        size = 8 // processes
        for batch in range(4):
            together = [d for p in parts for d in p[batch * size : (batch + 1) * size]]
            assert sorted(together) == whole[batch * 8 : (batch + 1) * 8]


def test_an_epoch_that_does_not_divide_draws_its_first_once_more():
    parts = [epoch(DrawSampler(range(5), seed=1, rank=r, processes=2), 1) for r in (0, 1)]
    assert [len(p) for p in parts] == [3, 3]
    together = sorted(parts[0] + parts[1])
    assert [d.number for d in together] == list(range(6)) and together[5].position == together[0].position
    for number in (1, 2, 3):
        alone = epoch(DrawSampler(range(5), seed=1, rank=0, processes=1), number)
        shared = [d for r in (0, 1) for d in epoch(DrawSampler(range(5), seed=1, rank=r, processes=2), number)]
        assert sorted(shared)[:5] == alone and [d.number for d in alone] == list(range(5 * number - 5, 5 * number))


@pytest.mark.parametrize(("balance", "groups"), [("task", 2), ("modality", 2), ("task,modality", 3)])
def test_tasks_and_modalities_are_drawn_equally_often(balance, groups):
    data = cases()
    sampler = DrawSampler(data, draws=6000, balance=balance)
    keys = balance.split(",")
    count = Counter(tuple(data[d.position][k] for k in keys) for d in sampler)
    assert len(count) == groups and all(abs(n / 6000 - 1 / groups) < 0.03 for n in count.values())
    assert np.isclose(balanced_weights(data, balance).sum(), 1)


def test_weights_decide():
    found = Counter(d.position for d in DrawSampler(range(3), draws=4000, weights=[1, 0, 3]))
    assert found[1] == 0 and abs(found[2] / 4000 - 0.75) < 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "nothing to draw"),
        ({"iterations": 0, "batch_size": 2}, "at least one iteration"),
        ({"iterations": 3}, "at least one iteration"),
        ({"weights": [1, 2]}, "one weight"),
        ({"weights": [1, -1] + [1] * 10}, "one weight"),
        ({"weights": [1] * 12, "balance": "task"}, "exclude each other"),
        ({"balance": "colour"}, "unknown balance"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DrawSampler(cases(), **options)
    with pytest.raises(ConfigError, match="nothing to draw"):
        DrawSampler([])
    with pytest.raises(ConfigError, match=r"does not say which task[\s\S]*list"):
        DrawSampler([0, 1], balance="task")
