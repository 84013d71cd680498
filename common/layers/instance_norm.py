"""Instance norm and leaky ReLU in one pass over channels-last voxels, in place, exact and without saving its input.

With `y = lrelu((x - mean) / std)` the normalised input is a function of the output alone, `lrelu(y, 1 / slope)`, so the
backward pass needs `y` and one number per channel. (torch's own channels-last batch and group norms lose three digits
on a map of a million voxels; its instance norm copies the map into another layout.)
"""

from __future__ import annotations

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


def _normalise_(rows: Tensor, eps: float, slope: float, at_once: int = 8192) -> Tensor:
    # overwrites rows; returns 1 / std [C]
    dtype = _accurate(rows)
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    for start in range(0, rows.shape[0], at_once):
        total += rows[start : start + at_once].sum(0, dtype=dtype)
    mean = (total / rows.shape[0]).to(dtype)
    square = torch.zeros_like(total)
    for start in range(0, rows.shape[0], at_once):
        square += (rows[start : start + at_once] - mean).square_().sum(0)
    scale = (square / rows.shape[0] + eps).rsqrt().to(dtype)
    for start in range(0, rows.shape[0], at_once):
        some = rows[start : start + at_once].sub_(mean).mul_(scale)
        if slope != 1.0:
            F.leaky_relu_(some, slope)
    return scale


def _input_gradient(rows: Tensor, grad: Tensor, scale: Tensor, slope: float, at_once: int = 8192) -> Tensor:
    """`dx = (g - mean(g) - x^ mean(g x^)) / std` with `g` behind the leaky ReLU and `x^` the normalised input."""
    first, second = torch.zeros_like(scale, dtype=torch.float64), torch.zeros_like(scale, dtype=torch.float64)
    result = torch.empty_like(rows)
    parts = range(0, rows.shape[0], at_once)
    for start in parts:
        y, g = rows[start : start + at_once], grad[start : start + at_once]
        g = torch.ops.aten.leaky_relu_backward(g, y, slope, True)
        result[start : start + at_once] = g
        first += g.sum(0, dtype=scale.dtype)
        second += g.mul_(F.leaky_relu(y, 1 / slope)).sum(0, dtype=scale.dtype)
    first, second = ((t / rows.shape[0] * scale).to(scale.dtype) for t in (first, second))
    for start in parts:
        some = result[start : start + at_once].mul_(scale).sub_(first)
        some.sub_(F.leaky_relu(rows[start : start + at_once], 1 / slope).mul_(second))
    return result


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, slope: float) -> Tensor:
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
        normed: Tensor = _InstanceNorm.apply(x, eps, slope)  # type: ignore[no-untyped-call]
        return normed
    else:
        for sample in x:
            _normalise_(_rows(sample), eps, slope)
        return x
