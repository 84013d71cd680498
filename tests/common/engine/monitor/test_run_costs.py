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
from common.engine.run.length import RunLength

DATA = [{"image": torch.full((1,), float(i)), "label": torch.zeros(1)} for i in range(6)]


class Clock:
    """Ten seconds per training step, five more after each epoch."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def _train(folder, epochs=5, stop_after=None, frozen=False, known=True, **budget):
    network = nn.Linear(1, 1)
    network.bias.requires_grad_(not frozen)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    clock = Clock()
    length = RunLength(epochs=epochs, clock=clock, **budget) if known else None
    costs = RunCosts(output_dir=folder, length=length, clock=clock)
    items = {"network": network, "costs": costs, **({"length": length} if known else {})}
    state = RunCheckpoint(folder=folder / "checkpoints", save_dict=items)
    model = KeepBest(path=folder / "model.pt", network=network, select="last")
    handlers = [h for h in (state, length, model, costs) if h is not None]
    trainer = SupervisedTrainer(
        "cpu", epochs, DataLoader(DATA, batch_size=2), network, optimizer, nn.MSELoss(), train_handlers=handlers
    )

    def tick(engine):
        clock.now += 10.0
        if stop_after is not None and engine.state.iteration == stop_after:
            raise KeyboardInterrupt

    def validate(_engine):
        clock.now += 5.0

    trainer.add_event_handler(Events.ITERATION_STARTED, tick)
    trainer.add_event_handler(Events.EPOCH_STARTED, validate)
    if stop_after is not None:
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
    else:
        trainer.run()
    return trainer, json.loads((folder / "training_costs.json").read_text())


def test_what_a_whole_training_took(tmp_path):
    _, costs = _train(tmp_path, epochs=4, frozen=True)
    assert (costs["seconds"], costs["step_seconds"], costs["steps"], costs["epochs"]) == (140.0, 120.0, 12, 4)
    assert costs["planned_steps"] == 12 and costs["budget"] == {}
    assert costs["trained_parameters"] == 1 and costs["peak_mb"] > 1 and costs["device"] == "cpu"


def test_a_training_whose_length_nobody_knows(tmp_path):
    _, costs = _train(tmp_path, epochs=2, known=False)
    assert costs["steps"] == 6 and not {"planned_steps", "budget"} & costs.keys()


def test_a_budget_ends_it_within_an_epoch_and_its_weights_are_kept(tmp_path):
    trainer, costs = _train(tmp_path, minutes=40 / 60)  # after the first step of the second epoch
    assert trainer.state.iteration == costs["steps"] == costs["planned_steps"] == 4
    assert costs["budget"] == {"minutes": 40 / 60} and costs["step_seconds"] == 40.0
    assert (tmp_path / "model.pt").is_file()


def test_an_interruption_gives_no_further_steps(tmp_path):
    _train(tmp_path, minutes=80 / 60, stop_after=5)  # one epoch of 30 s is saved
    trainer, costs = _train(tmp_path, minutes=80 / 60)
    assert trainer.state.iteration == 8 and costs["step_seconds"] == 80.0
