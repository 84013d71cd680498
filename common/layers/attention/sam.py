"""Windowed attention with a decomposed position bias, on the tokens that exist, in two or three dimensions.

SAM adds to a logit one term per axis, `q · R_a[i_a - j_a]`, and pads the grid with zeros to whole windows after the
norm. Every padded token therefore has the key `b_k` and the value `b_v` (the bias of `qkv`); all of a window collapse
into one virtual key whose bias is the log-sum of theirs, and that sum factorises over the axes:

    logit_pad = s q·b_k + log Σ_pad exp(Σ_a q·R_a),    Σ_pad = P_1 S_2 S_3 + R_1 P_2 S_3 + R_1 R_2 P_3

with the sums over real (R), padded (P) and all (S = R + P) positions of an axis: positive terms, no cancellation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError
from .window import window_boxes
from .window_grad import put_windows, take_windows

__all__ = ["AxisBias", "DecomposedAttention", "PositionBias", "axis_positions", "axis_scores", "padding_score"]

_LOGITS_AT_ONCE = 10_000_000  # position biases that are written out at a time, 40 MB in single precision


def axis_positions(table: Tensor, length: int, size: int) -> Tensor:
    """Embeddings of the distances from `length` queries to `size` keys along one axis.

    Args:
        table: one row per distance, [2 * size - 1, c]; another number of rows is interpolated linearly, as SAM does.
        length: queries, at most `size`.
        size: positions of the window along the axis.

    Returns:
        [length, size, c].
    """
    rows = 2 * size - 1
    if table.shape[0] != rows:
        table = F.interpolate(table.t()[None], size=rows, mode="linear")[0].t()
    i = torch.arange(length, device=table.device)
    j = torch.arange(size, device=table.device)
    return table[i[:, None] - j[None, :] + size - 1]


def axis_scores(q: Tensor, positions: Sequence[Tensor | None], lengths: Sequence[int]) -> list[Tensor | None]:
    """The bias of every query for every position of each axis, `q · R_a`.

    Args:
        q: unscaled queries [W, heads, n, c] of a box with `lengths` tokens along its three axes.
        positions: [length, size, c] per axis; None for an axis without bias.
        lengths: three numbers whose product is n.

    Returns:
        per axis [W, heads, n, size], or None.
    """
    grid = q.unflatten(2, tuple(lengths))
    formulas = ("bhxyzc,xkc->bhxyzk", "bhxyzc,ykc->bhxyzk", "bhxyzc,zkc->bhxyzk")
    return [
        None if table is None else torch.einsum(formula, grid, table.to(q.dtype)).flatten(2, 4)
        for formula, table in zip(formulas, positions, strict=True)
    ]


def padding_score(
    scores: Sequence[Tensor | None], lengths: Sequence[int], sizes: Sequence[int], like: Tensor
) -> Tensor:
    """Log-sum over the padded positions of a window, `log Σ_pad exp(Σ_a score_a)`.

    Args:
        scores: per axis [W, heads, n, size], None where every position has score zero.
        lengths: real positions per axis; the padded ones follow.
        sizes: positions per axis.
        like: [W, heads, n, ...], for an axis without scores.

    Returns:
        [W, heads, n], in at least single precision.
    """
    terms: list[Tensor] = []
    real = like.new_zeros(like.shape[:3], dtype=torch.promote_types(like.dtype, torch.float32))
    for axis in reversed(range(len(sizes))):
        score = scores[axis]
        if score is None:
            score = real.new_zeros(1).expand(*real.shape, sizes[axis])
        score = score.to(real.dtype)
        every = score.logsumexp(-1)
        terms = [term + every for term in terms]  # what later axes pad, at any position of this one
        if lengths[axis] < sizes[axis]:
            terms.append(score[..., lengths[axis] :].logsumexp(-1) + real)
        real = real + score[..., : lengths[axis]].logsumexp(-1)
    return torch.stack(terms, -1).logsumexp(-1)


class PositionBias(Protocol):
    """The position bias of one box of windows; built from what `AxisBias` is built from."""

    def __init__(
        self, q: Tensor, tables: Sequence[Tensor | None], lengths: Sequence[int], sizes: Sequence[int]
    ) -> None:
        """Prepare the bias of some queries."""

    @staticmethod
    def folds(q: Tensor) -> bool:
        """Whether the bias is better carried by queries and keys than written out."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, fold: bool) -> Tensor:
        """`softmax(s q k^T + bias) v`, [W, heads, n, c], of queries and of keys with the virtual one as the last."""


class AxisBias:
    """The position bias of one box of windows, for real keys and for the virtual key of the padded ones.

    Args:
        q: unscaled queries [W, heads, n, c]; [W, heads, n + 1, c] with the padded tokens' as the last one where the
            box has any (this bias does not read it).
        tables: distances per axis [2 * size - 1, c], None for an axis without bias.
        lengths: tokens of the box along its three axes.
        sizes: positions of a window along them; the rest is padding.
    """

    def __init__(
        self, q: Tensor, tables: Sequence[Tensor | None], lengths: Sequence[int], sizes: Sequence[int]
    ) -> None:
        positions = [
            None if table is None else axis_positions(table, length, size)
            for table, length, size in zip(tables, lengths, sizes, strict=True)
        ]
        q = q[:, :, : math.prod(lengths)]
        scores = axis_scores(q, positions, lengths)
        padded = tuple(lengths) != tuple(sizes)
        self.lengths = tuple(lengths)
        self.virtual = padding_score(scores, lengths, sizes, q).to(q.dtype) if padded else None
        self.scores = [None if s is None else s[..., :length] for s, length in zip(scores, lengths, strict=True)]

    @staticmethod
    def folds(q: Tensor) -> bool:
        """Folded where gradients flow or on a GPU."""
        return q.is_cuda or (torch.is_grad_enabled() and q.requires_grad)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, fold: bool) -> Tensor:
        """Attended values [W, heads, n, c]."""
        if not fold:
            return attend_written(q, k, v, self.rows)
        # no bias tensor at all, so that fused kernels run forward and backward
        channels = q.shape[3]
        wide_q, wide_k = self.folded(q * channels**-0.5, k)
        wide_v = F.pad(v, (0, wide_q.shape[3] - channels))  # fused kernels want one width
        return F.scaled_dot_product_attention(wide_q, wide_k, wide_v, scale=1.0)[..., :channels]

    def rows(self, start: int, stop: int) -> Tensor | None:
        """The bias written out for the queries from `start` to `stop`: [W, heads, stop - start, keys]."""
        total: Tensor | None = None
        for axis, score in enumerate(self.scores):
            if score is None:
                continue
            shape = [1, 1, 1]
            shape[axis] = self.lengths[axis]
            part = score[:, :, start:stop].unflatten(3, shape)
            total = part if total is None else total + part
        if total is None:
            if self.virtual is None:
                return None
            some = self.virtual[:, :, start:stop, None]
            total = some.new_zeros(*some.shape[:3], *self.lengths)
        total = total.expand(*total.shape[:3], *self.lengths).flatten(3)
        return total if self.virtual is None else torch.cat([total, self.virtual[:, :, start:stop, None]], 3)

    def folded(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys whose inner product contains the bias: scores beside q, a one for each place beside k.

        Args:
            q: scaled queries [W, heads, n, c].
            k: keys [W, heads, n, c], [W, heads, n + 1, c] with the virtual key as the last one.
        """
        n = q.shape[2]
        columns, marks = [q], [k]
        for axis, score in enumerate(self.scores):
            if score is None:
                continue
            place = torch.arange(self.lengths[axis], device=q.device)
            shape = [1, 1, 1]
            shape[axis] = -1
            place = place.view(shape).expand(self.lengths).reshape(-1)
            mark = F.pad(F.one_hot(place, self.lengths[axis]), (0, 0, 0, k.shape[2] - n))
            columns.append(score)
            marks.append(mark.to(k.dtype).expand(*k.shape[:2], -1, -1))
        if self.virtual is not None:
            last = F.pad(k.new_zeros(n, 1), (0, 0, 0, 1), value=1.0)
            columns.append(self.virtual[..., None])
            marks.append(last.expand(*k.shape[:2], -1, -1))
        return torch.cat(columns, -1), torch.cat(marks, -1)


def attend_written(q: Tensor, k: Tensor, v: Tensor, rows: Callable[[int, int], Tensor | None]) -> Tensor:
    """Attention with the bias as a mask, some queries at a time.

    Args:
        q: queries [W, heads, n, c].
        k: keys [W, heads, keys, c].
        v: values of the same shape.
        rows: the bias of the queries from `start` to `stop`, [W, heads, stop - start, keys].

    Returns:
        [W, heads, n, c].
    """
    n, keys = q.shape[2], k.shape[2]
    step = max(1, _LOGITS_AT_ONCE // (q.shape[0] * q.shape[1] * keys))
    parts = []
    for start in range(0, n, step):
        stop = min(start + step, n)
        parts.append(F.scaled_dot_product_attention(q[:, :, start:stop], k, v, attn_mask=rows(start, stop)))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


class DecomposedAttention(nn.Module):
    """`softmax(s q k^T + Σ_a q·R_a) v` in windows, projected, without computing a padded token.

    Args:
        attention: SAM's (or SAM-Med3D's) attention, whose parameters and state-dict keys are taken over: `qkv`,
            `proj`, `num_heads` and, with a position bias, `rel_pos_<axis>`.
        window: tokens along each axis of a window; 0 attends over the whole grid.
        axes: names of the axes, two or three: `("h", "w")` or `("d", "h", "w")`.
        fold: carry the bias inside q and k (no bias tensor) instead of writing it out in pieces; None lets the bias
            choose.
        bias: what computes the position bias of a box of windows.

    Raises:
        ConfigError: for another number of axes or a negative window.

    Reference:
        Kirillov et al., Segment Anything, 2023; Li et al., MViTv2, 2022 (decomposed bias). Equal to the padded
        computation up to rounding, also for windows larger than the grid.
    """

    def __init__(
        self,
        *,
        attention: Any,
        window: int = 0,
        axes: Sequence[str] = ("h", "w"),
        fold: bool | None = None,
        bias: type[PositionBias] = AxisBias,
    ) -> None:
        super().__init__()
        if len(axes) not in (2, 3):
            raise ConfigError("attention runs over two or three axes", got=tuple(axes), expected="h, w or d, h, w")
        if window < 0:
            raise ConfigError("a window has a size", got=window, expected="0 (the whole grid) or more tokens")
        self.heads = int(attention.num_heads)
        self.window = window
        self.axes = tuple(axes)
        self.fold = fold
        self.bias = bias
        self.qkv = attention.qkv
        self.proj = attention.proj
        for axis in self.axes if getattr(attention, "use_rel_pos", True) else ():
            setattr(self, f"rel_pos_{axis}", getattr(attention, f"rel_pos_{axis}"))

    def attend(self, qkv: Tensor) -> Tensor:
        """Attended tokens [B, *grid, C] of the fused projection [B, *grid, 3C] of real tokens."""
        flat = len(self.axes) == 2
        grid = qkv.unsqueeze(1) if flat else qkv
        size = list(grid.shape[1:4])
        window = [self.window] * 3 if self.window else list(size)
        if flat:
            window[0] = 1
        boxes = window_boxes(size, window, [0, 0, 0])
        if len(boxes) == 1 and boxes[0][1] == boxes[0][6] == boxes[0][11] == 1:
            out = self._attend_box(grid.flatten(1, 3), boxes[0]).unflatten(1, size)
        else:
            out = grid.new_empty(*grid.shape[:4], grid.shape[4] // 3)
            for box in boxes:
                put_windows(out, self._attend_box(take_windows(grid, box), box), box)
        attended: Tensor = self.proj(out.squeeze(1) if flat else out)
        return attended

    def forward(self, tokens: Tensor) -> Tensor:
        """Attended tokens of the same shape [B, *grid, C]."""
        return self.attend(self.qkv(tokens))

    def _tables(self) -> list[Tensor | None]:
        found: list[Tensor | None] = [getattr(self, f"rel_pos_{axis}", None) for axis in self.axes]
        return [None, *found] if len(self.axes) == 2 else found

    def _virtual(self, like: Tensor) -> Tensor:
        bias = self.qkv.bias
        return like.new_zeros(like.shape[-1]) if bias is None else bias.to(like.dtype)

    def _attend_box(self, tokens: Tensor, box: list[int]) -> Tensor:
        # [windows, n, 3C] -> [windows, n, C]
        lengths = [box[2], box[7], box[12]]
        sizes = [box[2] + box[4], box[7] + box[9], box[12] + box[14]]
        windows, n = tokens.shape[:2]
        if lengths != sizes:
            tokens = torch.cat([tokens, self._virtual(tokens).expand(windows, 1, -1)], 1)
        q, k, v = tokens.view(windows, tokens.shape[1], 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.bias(q, self._tables(), lengths, sizes)
        q = q[:, :, :n]
        return bias.attend(q, k, v, fold=self._folds(q)).transpose(1, 2).flatten(2)

    def _folds(self, q: Tensor) -> bool:
        return self.bias.folds(q) if self.fold is None else self.fold
