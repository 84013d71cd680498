"""Volumes are their slices."""

import pytest
import torch
from torch.nn import functional as F

from common.errors import ConfigError
from common.methods.samora.stage_two.build import samora_network
from common.methods.samora.stage_two.volume import SAMoraVolume


@pytest.fixture(scope="module")
def volume_network():
    torch.manual_seed(0)
    network = samora_network(variant="tiny", image_size=64, classes=3, d_attn=8, heads=2).eval()
    return SAMoraVolume(network=network, slices=2).eval()


@torch.no_grad()
def test_each_slice_is_segmented_on_its_own(volume_network):
    volume = torch.rand(2, 1, 64, 64, 3)
    found = volume_network(volume)
    network = volume_network.network
    assert found.shape == (2, 3, 64, 64, 3)
    for b in range(2):
        for z in range(3):
            expected = network.logits(network(volume[b : b + 1, ..., z]))[0]
            assert torch.allclose(found[b, ..., z], expected, atol=1e-4)


@torch.no_grad()
def test_another_size_is_resized_and_back(volume_network):
    volume = torch.rand(1, 1, 32, 48, 2)
    found = volume_network(volume)
    image = F.interpolate(volume[..., 0], size=(64, 64), mode="bilinear", antialias=True)
    logits = volume_network.network.logits(volume_network.network(image))
    expected = F.interpolate(logits, size=(32, 48), mode="bilinear")
    assert found.shape == (1, 3, 32, 48, 2) and torch.allclose(found[..., 0], expected, atol=1e-4)


def test_it_has_the_network_s_state_and_moves_with_it(volume_network):
    network = volume_network.network
    assert volume_network.state_dict().keys() == network.state_dict().keys()
    volume_network.to(torch.float64)
    assert network.weights.dtype == torch.float64 and next(network.parameters()).dtype == torch.float64
    volume_network.to(torch.float32)
    volume_network.train()
    assert network.training and not network.base.image_encoder.training
    volume_network.eval()
    assert not network.training


def test_what_is_no_volume_is_refused(volume_network):
    with pytest.raises(ConfigError):
        volume_network(torch.rand(1, 1, 64, 64))
    with pytest.raises(ConfigError, match="at least one slice"):
        SAMoraVolume(network=volume_network.network, slices=0)
