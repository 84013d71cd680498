"""A training that touches what is frozen is noticed, at its start or at its end."""

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from common.engine.run.epoch import TellEpoch
from common.engine.run.frozen import ProveFrozen
from common.errors import AmalgamationError, ConfigError
from common.weights import digest


class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.old, self.new = nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2)

    def trains(self, name):
        return name.startswith("new.")


def optimizer(parameters):
    return torch.optim.AdamW(parameters, lr=0.1)


def train(network, step=None, parameters=None):
    engine = Engine(step or (lambda *_: None))
    opt = optimizer(network.new.parameters() if parameters is None else parameters)
    ProveFrozen(network=network, optimizer=opt).attach(engine)
    engine.run([0, 1], max_epochs=1)


def test_a_clean_training_passes():
    network = Half()

    def step(*_):
        with torch.no_grad():
            network.new.weight.add_(1)

    train(network, step)


def test_what_is_frozen_must_have_no_gradient_and_no_optimizer():
    network = Half()
    with pytest.raises(ConfigError, match=r"frozen, but in the optimizer(.|\n)*old\.weight"):
        train(network, parameters=network.parameters())
    with pytest.raises(ConfigError, match=r"in no optimizer(.|\n)*new\.bias"):
        train(network, parameters=[network.new.weight])
    network.old.bias.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"with a gradient(.|\n)*old\.bias"):
        train(network)


def test_a_frozen_parameter_that_changes_is_noticed():
    network = Half()

    def step(*_):
        with torch.no_grad():
            network.old.weight[0, 0] += 1e-6

    with pytest.raises(AmalgamationError, match="have changed"):
        train(network, step)


def test_the_digest_sees_names_and_bits():
    values = {digest([("a", torch.zeros(2))]), digest([("b", torch.zeros(2))]), digest([("a", torch.ones(2))])}
    assert len(values) == 3 and digest([("a", torch.zeros(2))]) in values


def test_epochs_are_told_from_zero_also_after_a_restart():
    heard = []

    class Told:
        def set_epoch(self, epoch):
            heard.append(epoch)

    engine = Engine(lambda *_: None)
    TellEpoch(target=Told()).attach(engine)
    engine.run([0], max_epochs=2)
    engine.run([0], max_epochs=4)
    assert heard == [0, 1, 2, 3]
