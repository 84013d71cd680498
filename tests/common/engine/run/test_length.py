"""A budget becomes a number of steps once; from then on nothing depends on the speed, also after an interruption."""

import math
import sys

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from torch import nn
from torch.utils.data import DataLoader

from common.engine.monitor.progress import Progress
from common.engine.run.checkpoint import RunCheckpoint
from common.engine.run.epoch import TellEpoch, TellProgress
from common.engine.run.length import RunLength
from common.engine.run.rate import StepSchedule
from common.engine.run.seeding import SeedEachEpoch
from common.errors import ConfigError

STEPS = 6  # an epoch's


class Run:
    """A training whose steps take as many seconds of a clock of its own as ``speed`` says for each step."""

    def __init__(self, folder, *, speed, epochs=5, kill_after=None, shape="cosine", **budget):
        torch.manual_seed(0)
        self.now, self.rates, self.heard, self.shares = 0.0, [], [], []
        network = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.3), nn.Linear(4, 1))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        self.length = RunLength(epochs=epochs, clock=lambda: self.now, **budget)
        schedule = StepSchedule(optimizer, length=self.length, shape=shape, warmup_share=0.2)
        items = {"network": network, "optimizer": optimizer, "rate": schedule, "length": self.length}
        data = [{"image": torch.full((1,), i / 9), "label": torch.ones(1)} for i in range(2 * STEPS)]
        handlers = [
            SeedEachEpoch(seed=3),
            RunCheckpoint(folder=folder / "checkpoints", save_dict=items),
            self.length,
            TellEpoch(target=self, length=self.length),
            TellProgress(target=self, length=self.length),
        ]
        loader = DataLoader(data, batch_size=2, shuffle=True)
        self.trainer = SupervisedTrainer(
            "cpu", epochs, loader, network, optimizer, nn.MSELoss(), train_handlers=handlers
        )

        def step(engine):
            self.now += speed(engine.state.iteration)
            self.rates.append(optimizer.param_groups[0]["lr"])
            if kill_after is not None and engine.state.iteration > kill_after:
                raise KeyboardInterrupt

        self.trainer.add_event_handler(Events.ITERATION_STARTED, step)
        LrScheduleHandler(schedule, print_lr=False, epoch_level=False).attach(self.trainer)
        if kill_after is None:
            self.trainer.run()
        else:
            with pytest.raises(KeyboardInterrupt):
                self.trainer.run()
        self.steps, self.weights = self.trainer.state.iteration, [p.detach().clone() for p in network.parameters()]

    def set_epoch(self, epoch):
        self.heard.append(epoch)

    def set_progress(self, share):
        self.shares.append(share)


def even(_):
    return 10.0


def test_without_a_budget_it_is_the_presets_length(tmp_path):
    run = Run(tmp_path, speed=even)
    assert run.steps == run.length.total == 5 * STEPS and run.trainer.state.epoch == 5
    assert run.heard == [0, 1, 2, 3, 4]
    assert run.shares == [s / 30 for s in range(30)]


@pytest.mark.parametrize("steps", [1, 4, 6, 13, 30, 44])
def test_a_budget_of_steps_is_exact_and_the_schedule_is_stretched_to_it(tmp_path, steps):
    run = Run(tmp_path, speed=even, steps=steps)
    assert run.steps == steps and run.trainer.state.epoch == math.ceil(steps / STEPS)
    warm = min(round(0.2 * steps), steps // 4)
    last = 0.1 * (1 + math.cos(math.pi * (steps - 1 - warm) / (steps - warm))) / 2
    assert run.rates[-1] == pytest.approx(last) and len(run.rates) == steps
    assert max(run.rates) == pytest.approx(0.1) and run.rates[warm] == pytest.approx(0.1)
    assert run.heard[-1] == 5 * (steps - 1) // steps, "the preset's epochs are stretched, too"


@pytest.mark.parametrize("seconds", [1.0, 2.0, 10.0])
def test_minutes_become_steps_by_the_measured_speed(tmp_path, seconds):
    run = Run(tmp_path, speed=lambda _: seconds, minutes=2)
    assert run.steps == run.length.total == round(120 / seconds) and run.length.fixed
    assert run.rates[-1] < 0.02 < 0.09 < max(run.rates), "the rate came up and down again"
    assert run.length.seconds == pytest.approx(120)


def test_slow_first_steps_do_not_count(tmp_path):
    run = Run(tmp_path, speed=lambda step: 5.0 if step <= 4 else 1.0, minutes=2)
    assert run.steps == 4 + 100


def test_what_becomes_slower_later_ends_its_schedule_all_the_same(tmp_path):
    even_one = Run(tmp_path / "a", speed=lambda _: 2.0, minutes=2)
    slow = Run(tmp_path / "b", speed=lambda step: 2.0 if step <= 10 else 17.0, minutes=2)
    assert slow.steps == even_one.steps == 60 and slow.rates == even_one.rates


def test_a_killed_run_goes_on_with_its_steps_at_another_speed_to_the_same_weights(tmp_path):
    whole = Run(tmp_path / "whole", speed=lambda _: 2.0, minutes=2)
    assert whole.steps == 60 and whole.trainer.state.epoch == 10 != 5
    Run(tmp_path / "killed", speed=lambda _: 2.0, minutes=2, kill_after=20)
    again = Run(tmp_path / "killed", speed=lambda _: 0.1, minutes=2)
    assert (again.length.total, again.steps) == (60, 60)
    assert again.rates == whole.rates[18:], "from the last checkpoint on"
    assert all(torch.equal(a, b) for a, b in zip(again.weights, whole.weights, strict=True))


def test_a_finished_budget_stays_finished_also_within_an_epoch(tmp_path):
    first = Run(tmp_path, speed=even, steps=8)
    again = Run(tmp_path, speed=even, steps=8)
    assert not again.rates and all(torch.equal(a, b) for a, b in zip(again.weights, first.weights, strict=True))


def test_a_run_that_is_not_calibrated_yet_goes_on_measuring(tmp_path):
    Run(tmp_path, speed=lambda _: 1.0, minutes=2, kill_after=10)  # a tenth is spent after 16 steps
    again = Run(tmp_path, speed=lambda _: 1.0, minutes=2)
    assert again.steps == 120 and again.length.seconds == pytest.approx(120)


def test_more_epochs_stretch_the_schedule_of_a_finished_run(tmp_path):
    Run(tmp_path, speed=even, epochs=1)
    more = Run(tmp_path, speed=even, epochs=3)
    assert more.steps == 18 and more.rates[0] > 0.05, "it would stand still at the end of the first schedule"


def test_one_step_may_be_all_that_fits(tmp_path):
    assert Run(tmp_path, speed=lambda _: 500.0, minutes=1).steps == 1


def test_a_clock_too_coarse_to_tell_fixes_nothing_by_it(tmp_path):
    run = Run(tmp_path, speed=lambda step: 0.0 if step < 8 else 1.0, minutes=1)
    assert run.length.fixed and 60 <= run.steps <= 70


def test_the_line_of_progress_knows_the_budgets_steps(tmp_path, caplog):
    caplog.set_level("INFO")
    run = Run(tmp_path, speed=lambda _: 2.0, minutes=2)
    bar = Progress(terminal=False, clock=lambda: 30.0)
    run.trainer.state.iteration = 30
    bar._began, bar._first = 0.0001, 0
    assert bar.eta(run.trainer) == pytest.approx(30.0, rel=1e-3)
    assert "2 minutes are 60 steps" in caplog.text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epochs": 0}, "at least one epoch"),
        ({"epochs": 1, "steps": 3, "minutes": 1}, "one budget"),
        ({"epochs": 1, "steps": 0}, "whole steps"),
        ({"epochs": 1, "steps": 2.5}, "whole steps"),
        ({"epochs": 1, "steps": True}, "whole steps"),
        ({"epochs": 1, "minutes": 0}, "needs time"),
        ({"epochs": 1, "minutes": -1}, "needs time"),
        ({"epochs": 1, "minutes": float("nan")}, "needs time"),
        ({"epochs": 1, "minutes": float("inf")}, "needs time"),
    ],
)
def test_impossible_lengths_are_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        RunLength(**given)


def test_several_processes_go_by_the_first_ones_clock(monkeypatch):
    module = sys.modules[RunLength.__module__]
    monkeypatch.setattr(module.idist, "get_world_size", lambda: 2)
    monkeypatch.setattr(module.idist, "broadcast", lambda tensor, src: torch.full_like(tensor, 7.0))
    assert module._first_process(1.0, 2.0) == (7.0, 7.0)
