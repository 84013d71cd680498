"""Instance norm and leaky ReLU in one pass over channels-last voxels, in place, exact and without saving its input.

With `y = lrelu((x - mean) / std)` the normalised input is a function of the output alone, `lrelu(y, 1 / slope)`, so the
backward pass needs `y` and one number per channel. (torch's own channels-last batch and group norms lose three digits
on a map of a million voxels; its instance norm copies the map into another layout.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["instance_norm_"]


def _accurate(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _rows(sample: Tensor) -> Tensor:
    # [C, X, Y, Z], channels last -> a view [X Y Z, C]
    return sample.permute(1, 2, 3, 0).view(-1, sample.shape[0])


def _sum(rows: Tensor, at_once: int = 2048) -> Tensor:
    """Sum over rows [n, C] -> float64 [C]: matrix products of parts short enough for single precision."""
    parts = rows.shape[0] // at_once
    total = rows[parts * at_once :].sum(0, dtype=torch.float64)
    if parts > 0:
        ones = torch.ones([1, 1, at_once], dtype=rows.dtype, device=rows.device).expand(parts, -1, -1)
        total += torch.bmm(ones, rows[: parts * at_once].view(parts, at_once, -1)).sum([0, 1], dtype=torch.float64)
    return total


def _dot(a: Tensor, b: Tensor, at_once: int = 2048) -> Tensor:
    """`sum_n a b` of two [n, C] -> float64 [C]. The diagonal of a product: wasteful to count, fast to run."""
    parts = a.shape[0] // at_once
    total = (a[parts * at_once :] * b[parts * at_once :]).sum(0, dtype=torch.float64)
    if parts > 0:
        left = a[: parts * at_once].view(parts, at_once, -1)
        right = b[: parts * at_once].view(parts, at_once, -1)
        total += torch.bmm(left.transpose(1, 2), right).diagonal(dim1=1, dim2=2).sum(0, dtype=torch.float64)
    return total


def _at_once(rows: Tensor) -> int:
    return max(2048, 2097152 // rows.shape[1])  # few calls, little memory


def _normalise_(rows: Tensor, eps: float, slope: float) -> Tensor:
    # overwrites rows; returns 1 / std [C]
    dtype = _accurate(rows)
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    for some in rows.split(_at_once(rows)):
        total += _sum(some.to(dtype))
    mean = (total / rows.shape[0]).to(dtype)
    square = torch.zeros_like(total)
    for some in rows.split(_at_once(rows)):
        centred = some.sub_(mean) if some.dtype == dtype else some - mean
        square += _dot(centred, centred)
    scale = (square / rows.shape[0] + eps).rsqrt().to(dtype)
    for some in rows.split(_at_once(rows)):
        if some.dtype == dtype:
            some.mul_(scale)
        else:
            some.copy_((some - mean) * scale)
        if slope != 1.0:
            F.leaky_relu_(some, slope)
    return scale


def _input_gradient(rows: Tensor, grad: Tensor, scale: Tensor, slope: float) -> Tensor:
    """`dx = (g - mean(g) - x^ mean(g x^)) / std` with `g` behind the leaky ReLU and `x^` the normalised input."""
    first, second = torch.zeros_like(scale, dtype=torch.float64), torch.zeros_like(scale, dtype=torch.float64)
    behind = torch.ops.aten.leaky_relu_backward
    result = torch.empty_like(rows)
    size = _at_once(rows)
    for y, g, out in zip(rows.split(size), grad.split(size), result.split(size), strict=True):
        behind.grad_input(g, y, slope, True, grad_input=out)
        g = out.to(scale.dtype)
        first += _sum(g)
        second += _dot(g, F.leaky_relu(y, 1 / slope).to(scale.dtype))
    first, second = ((t / -rows.shape[0] * scale).to(scale.dtype) for t in (first, second))
    for y, out in zip(rows.split(size), result.split(size), strict=True):
        rest = F.leaky_relu(y, 1 / slope).to(scale.dtype)
        torch.addcmul(first, rest, second, out=rest)
        out.copy_(torch.addcmul(rest, out.to(scale.dtype), scale, out=rest))
    return result


def _full_precision() -> torch.autocast:
    # matrix products obey autocast, sums must not
    return torch.autocast("cpu", enabled=False)


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, slope: float) -> Tensor:
        with _full_precision():
            scales = torch.stack([_normalise_(_rows(sample), eps, slope) for sample in x])
        ctx.slope = slope
        ctx.mark_dirty(x)
        ctx.save_for_backward(x, scales)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        y, scales = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        result = torch.empty_like(y)
        with _full_precision():
            for i in range(y.shape[0]):
                _rows(result[i]).copy_(_input_gradient(_rows(y[i]), _rows(grad[i]), scales[i], ctx.slope))
        return result, None, None


def instance_norm_(x: Tensor, eps: float, slope: float) -> Tensor:
    """`lrelu((x - mean) / sqrt(var + eps))` per sample and channel, overwriting a channels-last map.

    Args:
        x: [B, C, X, Y, Z], strides channels last, more than one voxel.
        eps: added to the (biased) variance.
        slope: of the leaky ReLU, above 0; 1.0 for none.

    Returns:
        `x` itself, overwritten; differentiable once.
    """
    if torch.jit.is_scripting():
        for sample in x:
            _normalise_(_rows(sample), eps, slope)
        return x
    elif torch.is_grad_enabled() and x.requires_grad:
        differentiable: Callable[..., Tensor] = _InstanceNorm.apply
        return differentiable(x, eps, slope)
    else:
        with _full_precision():
            for sample in x:
                _normalise_(_rows(sample), eps, slope)
        return x
