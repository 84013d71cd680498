"""A served model is replaced by a better one only, and always kept."""

import pytest
import torch
from ignite.metrics import Metric
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from torch import nn

from common.engine.run.best import KeepBest
from common.engine.training.refine import RefineServed
from common.errors import ConfigError


class Scripted(Metric):
    """Gives a list of values, one per validation."""

    def __init__(self, values):
        self.values = iter(values)
        super().__init__()

    def reset(self):
        pass

    def update(self, output):
        pass

    def compute(self):
        return next(self.values)


def train(tmp_path, values, epochs=2, items=1):
    network = nn.Linear(1, 1)
    path = tmp_path / "model.pt"
    torch.save(network.state_dict(), path)
    before = path.read_bytes()
    item = {"image": torch.ones(1), "label": torch.ones(1)}
    validator = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=torch.utils.data.DataLoader([item] * items), network=network,
        key_val_metric={"mean_dice": Scripted(values)},
    )  # fmt: skip
    refine = RefineServed(keeper=KeepBest(path=path, network=network), validator=validator)
    SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=epochs, train_data_loader=torch.utils.data.DataLoader([item]),
        network=network, optimizer=torch.optim.SGD(network.parameters(), 0.1), loss_function=nn.MSELoss(),
        train_handlers=[refine],
    ).run()  # fmt: skip
    kept = list((tmp_path / "previous").glob("*.pth")) if (tmp_path / "previous").exists() else []
    return path.read_bytes() != before, [p.read_bytes() == before for p in kept], network, path


def test_worse_epochs_leave_the_model_alone(tmp_path):
    changed, kept, _, _ = train(tmp_path, [0.8, 0.5, 0.8])
    assert not changed and kept == []


def test_a_better_epoch_replaces_it_and_the_earlier_file_stays(tmp_path):
    changed, kept, network, path = train(tmp_path, [0.3, 0.2, 0.5])
    assert changed and kept == [True]
    assert torch.equal(torch.load(path, weights_only=True)["weight"], network.state_dict()["weight"])


def test_nothing_to_validate_on_keeps_the_last_weights(tmp_path):
    changed, kept, network, path = train(tmp_path, [], items=0)
    assert changed and kept == [True]
    assert torch.equal(torch.load(path, weights_only=True)["weight"], network.state_dict()["weight"])


def test_a_model_without_a_score_is_replaced_by_any_that_has_one(tmp_path):
    changed, kept, _, _ = train(tmp_path, [float("nan"), 0.1, 0.05])
    assert changed and kept == [True]


def test_an_interval_of_zero_is_refused():
    with pytest.raises(ConfigError, match="epoch"):
        RefineServed(keeper=None, validator=None, every=0)
