"""Instance norm in place, channels last, against torch's own."""

import pytest
import torch
from torch.nn import functional as F

from common.layers.instance_norm import instance_norm_

LAST = torch.channels_last_3d


def reference(x, eps, slope):
    out = F.instance_norm(x, eps=eps)
    return out if slope == 1.0 else F.leaky_relu(out, slope)


@pytest.mark.parametrize(
    "shape", [(1, 3, 4, 5, 6), (2, 5, 3, 1, 2), (3, 8, 21, 20, 22), (1, 1, 2, 2, 2), (1, 96, 32, 32, 30)]
)
@pytest.mark.parametrize("slope", [0.01, 1.0, 0.2])
def test_equals_torch_with_gradients(shape, slope):
    torch.manual_seed(0)
    x = (torch.randn(shape, dtype=torch.float64) * 3 + 5).contiguous(memory_format=LAST).requires_grad_()
    weight = torch.randn(shape, dtype=torch.float64)
    expected = reference(x, 1e-5, slope)
    got = instance_norm_(x.clone(memory_format=torch.preserve_format), 1e-5, slope)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    (mine,) = torch.autograd.grad(got, x, weight)
    (theirs,) = torch.autograd.grad(expected, x, weight)
    torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-8)


def test_overwrites_its_input_without_gradient():
    x = torch.randn(2, 4, 5, 6, 7).contiguous(memory_format=LAST)
    expected = reference(x.clone(), 1e-5, 0.01)
    assert instance_norm_(x, 1e-5, 0.01) is x
    torch.testing.assert_close(x, expected)


def test_a_large_map_with_an_offset_keeps_its_digits():
    torch.manual_seed(0)
    x = (torch.randn(1, 4, 64, 64, 64) * 2 + 30).contiguous(memory_format=LAST)
    exact = reference(x.double(), 1e-5, 1.0)
    assert (instance_norm_(x, 1e-5, 1.0).double() - exact).abs().max() < 1e-5


def test_half_precision_accumulates_in_single():
    torch.manual_seed(0)
    x = (torch.randn(1, 4, 32, 32, 32) + 2).bfloat16().contiguous(memory_format=LAST)
    exact = reference(x.double(), 1e-5, 0.01)
    assert (instance_norm_(x, 1e-5, 0.01).double() - exact).abs().max() < 0.05


def test_half_precision_gradient():
    torch.manual_seed(0)
    x = (torch.randn(1, 4, 32, 32, 32) + 2).bfloat16().contiguous(memory_format=LAST).requires_grad_()
    weight = torch.randn(x.shape).bfloat16()
    exact = x.detach().double().requires_grad_()
    (theirs,) = torch.autograd.grad(reference(exact, 1e-5, 1.0), exact, weight.double())
    (mine,) = torch.autograd.grad(instance_norm_(x.clone(), 1e-5, 1.0), x, weight)
    assert mine.dtype == torch.bfloat16
    assert (mine.double() - theirs).norm() / theirs.norm() < 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_touch_the_sums(dtype):
    torch.manual_seed(0)
    x = (torch.randn(1, 4, 16, 16, 16) * 20).contiguous(memory_format=LAST)
    weight = torch.randn(x.shape)
    theirs = x.clone().requires_grad_()
    expected = reference(theirs, 1e-5, 0.01)
    expected.backward(weight)
    with torch.autocast("cpu", dtype=dtype):
        torch.testing.assert_close(instance_norm_(x.clone(), 1e-5, 0.01), expected)
        mine = x.clone().requires_grad_()
        instance_norm_(mine.clone(), 1e-5, 0.01).backward(weight)
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)
