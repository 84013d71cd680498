"""Layer norm over channels, one voxel at a time."""

import pytest
import torch

from common.layers.channel_norm import ChannelNorm


@pytest.mark.parametrize("shape", [(2, 5), (1, 4, 3), (2, 6, 3, 2), (1, 8, 2, 3, 4)])
def test_every_voxel_is_normalised_over_its_channels(shape):
    torch.manual_seed(0)
    norm = ChannelNorm(shape[1], eps=1e-3)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(shape)
    got = norm(x)
    assert got.shape == x.shape
    rows = x.movedim(1, -1).reshape(-1, shape[1])
    for row, out in zip(rows, got.movedim(1, -1).reshape(-1, shape[1]), strict=True):
        mean = sum(row) / len(row)
        variance = sum((value - mean) ** 2 for value in row) / len(row)
        expected = (row - mean) / (variance + 1e-3) ** 0.5 * norm.weight + norm.bias
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.last(x.movedim(1, -1)), got.movedim(1, -1))
    assert set(norm.state_dict()) == {"weight", "bias"}
