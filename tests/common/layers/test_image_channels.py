"""A grey image stands for all channels of a colour network; any other number is refused."""

import pytest
import torch

from common.errors import ConfigError
from common.layers.image_channels import repeated


def test_grey_becomes_every_channel_and_colour_stays():
    grey, colour = torch.randn(2, 1, 4, 5), torch.randn(2, 3, 4, 5)
    assert torch.equal(repeated(grey, 3), torch.cat([grey, grey, grey], 1))
    assert torch.equal(repeated(colour, 3), colour)


@pytest.mark.parametrize("channels", [2, 4])
def test_other_numbers_of_channels(channels):
    with pytest.raises(ConfigError, match="1 or 3"):
        repeated(torch.zeros(1, channels, 4, 4), 3)
