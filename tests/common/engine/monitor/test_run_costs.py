import json

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import nn
from torch.utils.data import DataLoader

from common.engine.monitor.run_costs import RunCosts
from common.engine.run.best import KeepBest
from common.engine.run.checkpoint import RunCheckpoint
from common.errors import ConfigError

DATA = [{"image": torch.full((1,), float(i)), "label": torch.zeros(1)} for i in range(6)]


class Clock:
    """Ten seconds per training step."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def _train(folder, minutes, epochs=5, stop_after=None, frozen=False):
    network = nn.Linear(1, 1)
    network.bias.requires_grad_(not frozen)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    clock = Clock()
    costs = RunCosts(output_dir=folder, minutes=minutes, clock=clock)
    state = RunCheckpoint(folder=folder / "checkpoints", save_dict={"network": network, "costs": costs})
    model = KeepBest(path=folder / "model.pt", network=network, select="last")
    trainer = SupervisedTrainer(
        "cpu",
        epochs,
        DataLoader(DATA, batch_size=2),
        network,
        optimizer,
        nn.MSELoss(),
        train_handlers=[state, model, costs],
    )

    def tick(engine):
        clock.now += 10.0
        if stop_after is not None and engine.state.iteration == stop_after:
            raise KeyboardInterrupt

    trainer.add_event_handler(Events.ITERATION_STARTED, tick)
    if stop_after is not None:
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
    else:
        trainer.run()
    return trainer, json.loads((folder / "training_costs.json").read_text())


def test_what_a_whole_training_took(tmp_path):
    _, costs = _train(tmp_path, minutes=None, epochs=4, frozen=True)
    assert (costs["seconds"], costs["steps"], costs["epochs"], costs["ended_by_clock"]) == (120.0, 12, 4, False)
    assert costs["trained_parameters"] == 1 and costs["peak_mb"] > 1 and costs["device"] == "cpu"


def test_the_clock_ends_it_within_an_epoch_and_its_weights_are_kept(tmp_path):
    trainer, costs = _train(tmp_path, minutes=40 / 60)  # after the first step of the second epoch
    assert trainer.state.iteration == costs["steps"] == 4 and costs["ended_by_clock"]
    assert (tmp_path / "model.pt").is_file()


def test_an_interruption_gives_no_further_time(tmp_path):
    _train(tmp_path, minutes=80 / 60, stop_after=5)  # one epoch of 30 s is saved
    trainer, costs = _train(tmp_path, minutes=80 / 60)
    assert trainer.state.iteration == 8 and costs["seconds"] == 80.0


def test_what_is_over_stays_over(tmp_path):
    _train(tmp_path, minutes=30 / 60)
    trainer, costs = _train(tmp_path, minutes=30 / 60)
    assert trainer.state.iteration == 3 and costs["steps"] == 3


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_a_training_needs_time(tmp_path, minutes):
    with pytest.raises(ConfigError, match="needs time"):
        RunCosts(output_dir=tmp_path, minutes=minutes)
