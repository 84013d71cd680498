"""A module around a network is saved, loaded, copied and trained as the network itself."""

import copy
import pickle

import pytest
import torch
from torch import nn

from common.layers.same_weights import SameWeights


class Doubled(SameWeights):
    def forward(self, x):
        return 2 * self.network(x)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ModuleDict({"network": nn.Linear(4, 2)})["network"])


def test_names_are_the_networks():
    inner = network()
    outer = Doubled(inner)
    assert list(outer.state_dict()) == list(inner.state_dict())
    assert [n for n, _ in outer.named_parameters()] == [n for n, _ in inner.named_parameters()]
    assert all(a is b for a, b in zip(outer.parameters(), inner.parameters(), strict=True))


def test_weights_go_both_ways():
    inner, other = network(), network()
    with torch.no_grad():
        other[0].weight.fill_(3)
    outer = Doubled(inner)
    assert outer.load_state_dict(other.state_dict()).missing_keys == []
    assert torch.equal(inner[0].weight, other[0].weight)
    assert network().load_state_dict(outer.state_dict()).unexpected_keys == []


def test_as_a_part_of_something_larger():
    whole = nn.ModuleDict({"first": Doubled(network()), "network": Doubled(network())})
    names = [f"{part}.{name}" for part in ("first", "network") for name in network().state_dict()]
    assert list(whole.state_dict()) == names
    changed = {k: v + 1 for k, v in whole.state_dict().items()}
    whole.load_state_dict(changed)
    assert all(torch.equal(v, changed[k]) for k, v in whole.state_dict().items())


def test_what_does_not_fit_is_refused():
    state = network().state_dict()
    with pytest.raises(RuntimeError, match="Missing"):
        Doubled(network()).load_state_dict({k: v for k, v in state.items() if k != "0.weight"})
    with pytest.raises(RuntimeError, match="Unexpected"):
        Doubled(network()).load_state_dict({**state, "more": torch.zeros(1)})


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_copies_have_weights_of_their_own(again):
    outer = Doubled(network()).eval()
    other = again(outer)
    assert torch.equal(other(torch.ones(2, 3)), outer(torch.ones(2, 3))) and list(other.state_dict()) == list(
        outer.state_dict()
    )
    with torch.no_grad():
        other.network[0].weight.zero_()
    assert not torch.equal(other(torch.ones(2, 3)), outer(torch.ones(2, 3)))


def test_the_network_follows_training_and_evaluation():
    inner = network()
    outer = Doubled(inner).eval()
    assert not inner.training and outer.train() is outer and inner.training
