"""Forward and backward of windowed attention that keep no attention matrix.

The backward recomputes `P = softmax(S)` a few windows at a time (in cache) and needs, besides the gradients of q, k
and v, that of the position bias, which no fused kernel gives: `dS = P * (dP - sum(P dP))`, `dbias = sum_windows dS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["put_windows", "take_windows", "windows_with_gradient"]

_LOGITS_AT_ONCE = {"cpu": 1_500_000, "cuda": 200_000_000}  # a CPU is fastest when a chunk stays in its cache


def take_windows(grid: Tensor, box: list[int]) -> Tensor:
    """Copy one box of [B, X, Y, Z, C] into windows [B * repeats, tokens, C]."""
    part = grid[:, box[0] : box[0] + box[1] * box[2], box[5] : box[5] + box[6] * box[7]]
    part = part[:, :, :, box[10] : box[10] + box[11] * box[12]]
    split = part.unflatten(3, [box[11], box[12]]).unflatten(2, [box[6], box[7]]).unflatten(1, [box[1], box[2]])
    windows: Tensor = split.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, box[2] * box[7] * box[12], grid.shape[4])
    return windows


def put_windows(grid: Tensor, windows: Tensor, box: list[int]) -> None:
    """Write windows [B * repeats, tokens, C] back into their box of [B, X, Y, Z, C]."""
    part = grid[:, box[0] : box[0] + box[1] * box[2], box[5] : box[5] + box[6] * box[7]]
    part = part[:, :, :, box[10] : box[10] + box[11] * box[12]]
    split = part.unflatten(3, [box[11], box[12]]).unflatten(2, [box[6], box[7]]).unflatten(1, [box[1], box[2]])
    shape = [grid.shape[0], box[1], box[6], box[11], box[2], box[7], box[12], grid.shape[4]]
    split.copy_(windows.reshape(shape).permute(0, 1, 4, 2, 5, 3, 6, 7))


def _heads(tokens: Tensor, parts: int, heads: int) -> Tensor:
    # [windows, n, parts * C] -> [parts, windows, heads, n, C / heads]
    return tokens.view(tokens.shape[0], tokens.shape[1], parts, heads, -1).permute(2, 0, 3, 1, 4)


def _flat(parts: Tensor) -> Tensor:
    # [parts, windows, heads, n, d] -> [windows, n, parts * heads * d]
    return parts.permute(1, 3, 0, 2, 4).flatten(2)


class _Windows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, virtual: Tensor, boxes: list[list[int]], heads: int, *biases: Tensor) -> Tensor:
        channels = qkv.shape[-1] // 3
        out = qkv.new_empty((*qkv.shape[:-1], channels))
        for box, bias in zip(boxes, biases, strict=True):
            tokens = take_windows(qkv, box)
            windows, n = tokens.shape[:2]
            if bias.shape[2] > n:
                tokens = torch.cat([tokens, virtual.to(qkv.dtype).expand(windows, 1, -1)], dim=1)
            q, k, v = _heads(tokens, 3, heads)
            mask = bias.to(qkv.dtype).expand(windows, -1, -1, -1)
            attended = F.scaled_dot_product_attention(q[:, :, :n], k, v, attn_mask=mask)
            put_windows(out, attended.transpose(1, 2).reshape(windows, n, channels), box)
        ctx.boxes, ctx.heads = boxes, heads
        ctx.save_for_backward(qkv, virtual, *biases)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        qkv, virtual, *biases = ctx.saved_tensors
        grad_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
        grad_virtual = torch.zeros_like(virtual)
        grad_biases: list[Tensor] = []
        for box, bias in zip(ctx.boxes, biases, strict=True):
            tokens, grad = take_windows(qkv, box), take_windows(grad_out, box)
            limit = _LOGITS_AT_ONCE.get(qkv.device.type, _LOGITS_AT_ONCE["cuda"])
            step = max(1, limit // bias.numel())
            grad_bias, grad_tokens = torch.zeros_like(bias), []
            for some, some_grad in zip(tokens.split(step), grad.split(step), strict=True):
                some_tokens, some_virtual, some_bias = _chunk_backward(some, some_grad, virtual, bias, ctx.heads)
                grad_tokens.append(some_tokens)
                grad_bias += some_bias
                if some_virtual is not None:
                    grad_virtual += some_virtual
            put_windows(grad_qkv, torch.cat(grad_tokens), box)
            grad_biases.append(grad_bias)
        return grad_qkv, grad_virtual, None, None, *grad_biases


def _chunk_backward(
    tokens: Tensor, grad: Tensor, virtual: Tensor, bias: Tensor, heads: int
) -> tuple[Tensor, Tensor | None, Tensor]:
    # tokens [w, n, 3C], grad [w, n, C] -> gradients of tokens, of the virtual token [3C] and of the bias
    windows, n = tokens.shape[:2]
    padded = bias.shape[2] > n
    if padded:
        tokens = torch.cat([tokens, virtual.to(tokens.dtype).expand(windows, 1, -1)], dim=1)
    q, k, v = _heads(tokens, 3, heads).contiguous().flatten(1, 2)  # [w * heads, n, d]
    q, scale = q[:, :n], q.shape[-1] ** -0.5
    g = _heads(grad, 1, heads)[0].flatten(0, 1)
    logits = torch.bmm(q, k.transpose(1, 2)).view(windows, heads, n, -1).mul_(scale).add_(bias)
    weights = logits.softmax(-1).to(tokens.dtype).flatten(0, 1)
    grad_v = torch.bmm(weights.transpose(1, 2), g)
    grad_weights = torch.bmm(g, v.transpose(1, 2))
    grad_logits = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
    grad_bias = grad_logits.view(windows, heads, n, -1).sum(0, dtype=bias.dtype)
    grad_q = torch.bmm(grad_logits, k).mul_(scale)
    grad_k = torch.bmm(grad_logits.transpose(1, 2), q).mul_(scale)
    if padded:
        grad_q = F.pad(grad_q, (0, 0, 0, 1))
    stacked = torch.stack([grad_q, grad_k, grad_v]).view(3, windows, heads, tokens.shape[1], -1)
    flat = _flat(stacked)
    if not padded:
        return flat, None, grad_bias
    return flat[:, :n], flat[:, n].sum(0, dtype=virtual.dtype), grad_bias


def windows_with_gradient(
    qkv: Tensor, virtual: Tensor, biases: list[Tensor], boxes: list[list[int]], heads: int
) -> Tensor:
    """Attention in all boxes of a grid, differentiable once.

    Args:
        qkv: queries, keys and values [B, X, Y, Z, 3C].
        virtual: the bias [3C] of `qkv`: what a padded token would be.
        biases: position bias per box, [heads, n, n] or [heads, n, n + 1].
        boxes: from `window_boxes`.
        heads: number of heads, a divisor of C.

    Returns:
        attended values [B, X, Y, Z, C].
    """
    differentiable: Callable[..., Tensor] = _Windows.apply
    return differentiable(qkv, virtual, boxes, heads, *biases)
