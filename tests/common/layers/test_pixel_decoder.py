import pytest
import torch
from torch.nn import functional as F

from common.errors import ConfigError
from common.layers.pixel_decoder import PixelDecoder


@torch.inference_mode()
@pytest.mark.parametrize("skips", [(), (6,), (6, 5, 4)])
def test_equals_its_formula(skips):
    decoder = PixelDecoder(embed=8, skips=skips, channels=3, widths=(8, 8, 4, 4), groups=2).eval()
    embedding, tokens = torch.randn(2, 8, 2, 3), [torch.randn(2, 4, 6, c) for c in skips]
    x, weights = embedding, dict(decoder.named_parameters())
    for step in range(4):
        x = F.conv_transpose2d(x, weights[f"up.{step}.weight"], weights[f"up.{step}.bias"], stride=2)
        if step < len(skips):
            source = tokens[len(skips) - 1 - step]
            flat = source @ weights[f"join.{step}.weight"][..., 0, 0].T + weights[f"join.{step}.bias"]
            x = torch.cat([x, F.interpolate(flat.permute(0, 3, 1, 2), size=x.shape[2:], mode="bilinear")], 1)
        x = F.conv2d(x, weights[f"mix.{step}.0.weight"], weights[f"mix.{step}.0.bias"], padding=1)
        groups = x.view(2, 2, -1)
        x = (
            (groups - groups.mean(2, keepdim=True)) / (groups.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
        ).view_as(x)
        x = F.gelu(x * weights[f"mix.{step}.1.weight"][:, None, None] + weights[f"mix.{step}.1.bias"][:, None, None])
    expected = F.conv2d(x, weights["out.weight"], weights["out.bias"])
    found = decoder(embedding, tokens)
    assert found.shape == (2, 3, 32, 48)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_makes_no_decoder():
    for wrong in ({"widths": (8, 8, 8)}, {"skips": (1,) * 5}, {"widths": (8, 8, 8, 9)}):
        with pytest.raises(ConfigError):
            PixelDecoder(**wrong)
    decoder = PixelDecoder(embed=8, skips=(4,), widths=(8, 8, 8, 8))
    with pytest.raises(ConfigError):
        decoder(torch.randn(1, 8, 2, 2), [])
