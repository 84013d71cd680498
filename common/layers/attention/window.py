"""Shifted-window attention on the tokens that exist, equal to the padded computation.

A Swin layer pads its grid with zeros to a multiple of the window after the norm, so that every padded token has the
same key `b_k` and value `b_v` (the bias of `qkv`). All padded tokens of a window collapse into one virtual key:

    sum_pad exp(q b_k s + bias_pad) = exp(q b_k s + log sum_pad exp(bias_pad))

Windows that the shift cuts in two are attended part by part instead of with a mask of -100. Along one axis a grid has
at most four kinds of such parts ("segments"), in 3-D a handful of "boxes"; each box is one batched attention call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .window_grad import put_windows, take_windows, windows_with_gradient

__all__ = ["WindowAttention", "axis_segments", "window_biases", "window_boxes"]


def axis_segments(size: int, window: int, shift: int) -> list[list[int]]:
    """Cut one axis into the parts of windows that attend to themselves.

    Args:
        size: tokens along the axis.
        window: tokens along a window, at most `size`.
        shift: tokens by which the windows are shifted, 0 or less than `window`.

    Returns:
        rows `[start, repeat, length, offset, pads]`: `repeat` parts of `length` tokens from token `start` on, the
        first at position `offset` of its window and followed by `pads` padded tokens.
    """
    segments: list[list[int]] = []
    if shift > 0:
        segments.append([0, 1, shift, window - shift, 0])
    cut = (size + window - 1) // window - (1 if shift > 0 else 0)  # windows that the shift leaves in one piece
    full = min((size - shift) // window, cut)
    if full > 0:
        segments.append([shift, full, window, 0, 0])
    start = shift + full * window
    if start < size:
        # a window that runs past the grid, or the first part of the one that the shift cuts
        space = window if full < cut else window - shift
        segments.append([start, 1, size - start, 0, space - (size - start)])
    return segments


def window_boxes(grid: list[int], window: list[int], shift: list[int]) -> list[list[int]]:
    """All boxes of a 3-D grid: rows of 15 integers, the segments of the three axes one after the other."""
    boxes: list[list[int]] = []
    for x in axis_segments(grid[0], window[0], shift[0]):
        for y in axis_segments(grid[1], window[1], shift[1]):
            for z in axis_segments(grid[2], window[2], shift[2]):
                boxes.append(x + y + z)
    return boxes


def _box_bias(table: Tensor, index: Tensor, window: list[int], box: list[int]) -> Tensor:
    # [heads, n, n], or [heads, n, n + 1] with the virtual key of the padded tokens
    sizes = [box[2] + box[4], box[7] + box[9], box[12] + box[14]]
    x = torch.arange(box[3], box[3] + sizes[0], device=index.device)
    y = torch.arange(box[8], box[8] + sizes[1], device=index.device)
    z = torch.arange(box[13], box[13] + sizes[2], device=index.device)
    position = (x[:, None, None] * window[1] + y[None, :, None]) * window[2] + z[None, None, :]
    real = position[: box[2], : box[7], : box[12]].reshape(-1)
    n = real.numel()
    rows = index.index_select(0, real).index_select(1, position.reshape(-1))
    bias = table.index_select(1, rows.reshape(-1)).view(table.shape[0], n, sizes[0], sizes[1], sizes[2])
    present = bias[:, :, : box[2], : box[7], : box[12]].reshape(table.shape[0], n, n)
    if box[4] + box[9] + box[14] == 0:
        return present
    absent = torch.zeros(sizes[0], sizes[1], sizes[2], dtype=torch.bool, device=index.device)
    absent[: box[2], : box[7], : box[12]] = True
    virtual = bias.masked_fill(absent, float("-inf")).flatten(2).logsumexp(dim=2, keepdim=True)
    return torch.cat([present, virtual], dim=2)


def window_biases(table: Tensor, index: Tensor, window: list[int], boxes: list[list[int]]) -> list[Tensor]:
    """The position bias of every box.

    Args:
        table: relative position biases [(2w-1)^3, heads].
        index: row of `table` for each pair of window positions [w^3, w^3]; a window that shrank to a small grid
            reads its upper left corner, as MONAI does.
        window: the window's three sizes.
        boxes: from :func:`window_boxes`.

    Returns:
        one tensor [heads, n, n] per box, [heads, n, n + 1] where the box has padded tokens.
    """
    transposed = table.t().contiguous()
    return [_box_bias(transposed, index, window, box) for box in boxes]


def _attend(qkv: Tensor, virtual: Tensor, biases: list[Tensor], boxes: list[list[int]], heads: int) -> Tensor:
    channels = qkv.shape[-1] // 3
    out = torch.empty(
        [qkv.shape[0], qkv.shape[1], qkv.shape[2], qkv.shape[3], channels], dtype=qkv.dtype, device=qkv.device
    )
    for i in range(len(boxes)):
        tokens = take_windows(qkv, boxes[i])
        windows, n = tokens.shape[0], tokens.shape[1]
        if biases[i].shape[2] > n:
            tokens = torch.cat([tokens, virtual.to(tokens.dtype).expand(windows, 1, -1)], dim=1)
        q, k, v = tokens.view(windows, tokens.shape[1], 3, heads, channels // heads).permute(2, 0, 3, 1, 4).unbind(0)
        bias = biases[i].to(qkv.dtype).unsqueeze(0).expand(windows, -1, -1, -1)
        attended = F.scaled_dot_product_attention(q[:, :, :n], k, v, attn_mask=bias)
        put_windows(out, attended.transpose(1, 2).reshape(windows, n, channels), boxes[i])
    return out


class WindowAttention(nn.Module):
    """Multi-head attention in (shifted) windows, `softmax(q k^T / sqrt(d) + bias) v`, without padded tokens.

    Args:
        attention: MONAI's `WindowAttention`, whose parameters (and so state-dict keys) are taken over.
        window_size: the window's three sizes.
        shift_size: by how many tokens the windows are shifted, three numbers.

    Shapes:
        tokens [B, X, Y, Z, C] after the norm -> [B, X, Y, Z, C].

    Reference:
        Liu et al., Swin Transformer, 2021; MONAI's padding and its window that shrinks to a small grid are kept.
        A part that the shift cuts off is left out where MONAI adds -100 to its logits (a weight below 1e-43).
    """

    def __init__(self, *, attention: Any, window_size: tuple[int, ...], shift_size: tuple[int, ...]) -> None:
        super().__init__()
        self.heads: int = int(attention.num_heads)
        self.window_size = [int(w) for w in window_size]
        self.shift_size = [int(s) for s in shift_size]
        self.relative_position_bias_table = attention.relative_position_bias_table
        self.register_buffer("relative_position_index", attention.relative_position_index)
        self.qkv = attention.qkv
        self.proj = attention.proj
        self.proj_drop = attention.proj_drop

    def forward(self, tokens: Tensor) -> Tensor:
        """Attended tokens [B, X, Y, Z, C]."""
        grid = [tokens.shape[1], tokens.shape[2], tokens.shape[3]]
        window: list[int] = []
        shift: list[int] = []
        for axis in range(3):
            shrunk = grid[axis] <= self.window_size[axis]
            window.append(grid[axis] if shrunk else self.window_size[axis])
            shift.append(0 if shrunk else self.shift_size[axis])
        boxes = window_boxes(grid, window, shift)
        index = torch.jit.annotate(Tensor, self.relative_position_index)
        biases = window_biases(self.relative_position_bias_table, index, window, boxes)
        bias = self.qkv.bias
        virtual = bias if bias is not None else torch.zeros_like(self.qkv.weight[:, 0])
        qkv = self.qkv(tokens)
        if torch.jit.is_scripting():
            out = _attend(qkv, virtual, biases, boxes, self.heads)
        elif torch.is_grad_enabled() and not torch.compiler.is_compiling():
            out = windows_with_gradient(qkv, virtual, biases, boxes, self.heads)
        else:
            out = _attend(qkv, virtual, biases, boxes, self.heads)
        attended: Tensor = self.proj_drop(self.proj(out))
        return attended
