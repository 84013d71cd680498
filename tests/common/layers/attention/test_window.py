"""Padding-free windows against MONAI's padded, rolled and masked ones.

Also the test of ``common.layers.attention.window_grad``.
"""

import itertools

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinTransformerBlock, compute_mask, get_window_size

from common.layers.attention.window import WindowAttention, axis_segments, window_biases, window_boxes

WINDOW = (7, 7, 7)
# full, one short, spilled over the window before (8, 10, 16, 64 = 9 * 7 + 1), shrunk, shrunk along one axis only
GRIDS = [(12, 12, 12), (6, 6, 6), (3, 3, 3), (8, 10, 16), (14, 7, 9), (24, 12, 4), (1, 8, 2)]
SHIFTS = [(0, 0, 0), (3, 3, 3)]


def trained_like(dim=12, heads=3, shift=(0, 0, 0), qkv_bias=True):
    torch.manual_seed(0)
    block = SwinTransformerBlock(dim, heads, WINDOW, shift, qkv_bias=qkv_bias)
    for name, parameter in block.named_parameters():
        std = 0.4 if name.endswith("qkv.weight") else 1.0
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=std)
    return block


def padded(block, x):
    """MONAI's own path: pad, roll, mask, attend, roll back, crop."""
    window, shift = get_window_size(x.shape[1:4], WINDOW, (3, 3, 3))
    size = [-(-n // w) * w for n, w in zip(x.shape[1:4], window, strict=True)]
    return block.forward_part1(x, compute_mask(size, window, shift, x.device).to(x.dtype))


def ours(block, x):
    attention = WindowAttention(attention=block.attn, window_size=WINDOW, shift_size=block.shift_size)
    return attention(block.norm1(x))


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("grid", GRIDS)
def test_equals_the_padded_computation_with_gradients(grid, shift, dtype, tolerance):
    block = trained_like(shift=shift).to(dtype)
    x = torch.randn(2, *grid, 12, dtype=dtype, requires_grad=True)
    weight = torch.randn_like(x)
    parameters = [x, *block.norm1.parameters(), *block.attn.parameters()]
    expected, got = padded(block, x), ours(block, x)
    assert relative(got, expected) < tolerance
    with torch.no_grad():
        assert relative(ours(block, x), expected) < tolerance
    gradients = zip(
        torch.autograd.grad(got, parameters, weight), torch.autograd.grad(expected, parameters, weight), strict=True
    )
    for mine, theirs in gradients:
        assert relative(mine, theirs) < 10 * tolerance


def test_without_qkv_bias_padded_tokens_are_zero_keys():
    block = trained_like(shift=(3, 3, 3), qkv_bias=False)
    x = torch.randn(1, 8, 9, 10, 12)
    assert relative(ours(block, x), padded(block, x)) < 1e-5


@pytest.mark.slow
@pytest.mark.selected
@pytest.mark.parametrize("grid", [(48, 48, 48), (64, 64, 64), (48, 48, 16), (32, 32, 32), (24, 24, 24)])
@pytest.mark.parametrize("shift", SHIFTS)
def test_equals_the_padded_computation_on_real_grids(grid, shift):
    block = trained_like(shift=shift)
    x = torch.randn(1, *grid, 12)
    with torch.no_grad():
        assert relative(ours(block, x), padded(block, x)) < 1e-5


@pytest.mark.parametrize("shift", [0, 3, 1, 6])
def test_segments_cover_every_token_once_and_agree_with_rolled_windows(shift):
    for size, window in itertools.product(range(8, 75), [7]):
        seen = []
        padded_size = -(-size // window) * window
        for start, repeat, length, offset, pads in axis_segments(size, window, shift):
            for token in range(start, start + repeat * length):
                position = (token - shift) % padded_size % window  # place in its window after the roll
                assert position == offset + (token - start) % length
                seen.append(token)
            # the padded tokens follow the last real one and stay in its window
            assert offset + length + pads <= window
            assert pads == 0 or (start + repeat * length == size and repeat == 1)
        assert sorted(seen) == list(range(size))


def test_the_virtual_keys_bias_is_the_padded_keys_log_sum():
    block = trained_like()
    boxes = window_boxes([8, 7, 7], [7, 7, 7], [0, 0, 0])
    box = boxes[1]
    assert box == [7, 1, 1, 0, 6, 0, 1, 7, 0, 0, 0, 1, 7, 0, 0]
    attention = block.attn
    bias = window_biases(attention.relative_position_bias_table, attention.relative_position_index, [7, 7, 7], [box])[0]
    full = attention.relative_position_bias_table[attention.relative_position_index.flatten()].view(343, 343, -1)
    real = torch.arange(343) < 49  # the first of seven slices
    expected = full[real][:, ~real].exp().sum(1).log().t()
    torch.testing.assert_close(bias[:, :, -1], expected)
    torch.testing.assert_close(bias[:, :, :-1], full[real][:, real].permute(2, 0, 1))


def test_gradient_against_finite_differences():
    block = trained_like(dim=2, heads=1, shift=(3, 3, 3)).double()
    x = torch.randn(1, 1, 9, 1, 2, dtype=torch.float64, requires_grad=True)
    attention = WindowAttention(attention=block.attn, window_size=WINDOW, shift_size=(3, 3, 3))
    assert torch.autograd.gradcheck(attention, (x,))


def test_half_precision_and_autocast_stay_close():
    block = trained_like(shift=(3, 3, 3))
    x = torch.randn(1, 8, 8, 8, 12, requires_grad=True)
    expected = padded(block, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = ours(block, x)
    assert relative(got.float(), expected) < 0.05
    got.float().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_scripted_equals_eager():
    block = trained_like(shift=(3, 3, 3))
    attention = WindowAttention(attention=block.attn, window_size=WINDOW, shift_size=(3, 3, 3)).eval()
    scripted = torch.jit.script(attention)
    for grid in [(8, 9, 10), (12, 6, 7)]:
        x = torch.randn(1, *grid, 12)
        with torch.no_grad():
            torch.testing.assert_close(scripted(x), attention(x))
