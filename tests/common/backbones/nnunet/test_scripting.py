"""nnU-Net's networks as TorchScript: the same answers at any size, also from a copy and after a pickle."""

import copy
import io
import pickle

import pytest
import torch

from common.backbones.nnunet.network import build_network


def built(plans, seed=0):
    torch.manual_seed(seed)
    return build_network(plans, "3d_fullres", in_channels=1, out_channels=3)


def pickled(network):
    return pickle.loads(pickle.dumps(network))


UNEVEN = {"strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2))}


@pytest.mark.parametrize("options, other", [({}, pickled), ({"resenc": True}, copy.deepcopy), (UNEVEN, copy.deepcopy)])
def test_a_scripted_network_answers_as_the_network_does(nnunet_plans, options, other):
    network = built(nnunet_plans(**options)).eval()
    scripted, buffer = torch.jit.script(other(network)), io.BytesIO()
    torch.jit.save(scripted, buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    with torch.no_grad():
        for size in ((16, 16, 16), (24, 16, 32)):
            image = torch.rand(2, 1, *size)
            torch.testing.assert_close(loaded(image), network(image))


def test_what_is_recorded_are_the_weights_of_that_moment(nnunet_plans):
    network, other = built(nnunet_plans()), built(nnunet_plans(), seed=1)
    network.load_state_dict(other.state_dict())
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(image), other.eval()(image))


def test_scripting_leaves_the_network_as_it_was(nnunet_plans):
    network = built(nnunet_plans()).train()
    keys = list(network.state_dict())
    torch.jit.script(network)
    assert network.training and list(network.state_dict()) == keys
