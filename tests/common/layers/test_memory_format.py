"""Channels last changes where values lie and nothing else but rounding."""

import copy

import pytest
import torch
from torch import nn

from common.layers.memory_format import with_layout


def network(dims):
    torch.manual_seed(0)
    conv, norm = (nn.Conv2d, nn.InstanceNorm2d) if dims == 2 else (nn.Conv3d, nn.InstanceNorm3d)
    up = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
    layers = [conv(2, 12, 3, padding=1), norm(12, affine=True), nn.LeakyReLU(), conv(12, 24, 3, 2, 1), up(24, 3, 2, 2)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_training_is_the_same_but_for_rounding(dims):
    plain = network(dims)
    last = with_layout(copy.deepcopy(plain), channels_last=True)
    order = torch.channels_last if dims == 2 else torch.channels_last_3d
    assert last[0].weight.is_contiguous(memory_format=order) and not last[0].weight.is_contiguous()
    for net in (plain, last):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        generator = torch.Generator().manual_seed(1)
        for _ in range(5):
            optimizer.zero_grad()
            net(torch.randn(2, 2, *[8] * dims, generator=generator)).square().mean().backward()
            optimizer.step()
    for (name, a), b in zip(plain.state_dict().items(), last.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=name)
    again = network(dims)
    again.load_state_dict(last.state_dict())
    image = torch.randn(1, 2, *[8] * dims)
    torch.testing.assert_close(again(image), last(image), rtol=1e-4, atol=1e-5)


def test_by_default_nothing_changes():
    plain = network(3)
    before = [(p.data_ptr(), p.stride()) for p in plain.parameters()]
    assert with_layout(plain) is plain and [(p.data_ptr(), p.stride()) for p in plain.parameters()] == before
