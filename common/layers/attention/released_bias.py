"""The position bias of SAM-Med3D as it was released, on real tokens only.

The released code adds three terms per axis with its key axis last everywhere, so that a query q = (d, h, w) and a key
(i, j, k) get

    bias = A[q, k] + B[(d, h, i), k] + C[(d, h, j), k]

with `A = q · R_d`, `B = q · R_h`, `C = q · R_w`, instead of `A[q, i] + B[q, j] + C[q, k]`. B and C are read at other
queries: those of the same row whose place along w is the key's i or j, a padded token where that place is padding.
For a fixed k the sum over padded keys still separates:

    Σ_pad = Σ_k e^A[q,k] (Σ_i e^B Σ_j e^C  -  [k is real] Σ_i real e^B Σ_j real e^C)

and the difference is written as a sum of positive terms, `P_B S_C + R_B P_C`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import ConfigError
from .sam import attend_written, axis_positions

__all__ = ["ReleasedBias"]


class ReleasedBias:
    """The mis-indexed bias that SAM-Med3D's weights were trained with, for a box of windows.

    Args:
        q: unscaled queries [W, heads, n, c]; [W, heads, n + 1, c] with the padded tokens' as the last one where the
            box has any.
        tables: distances along d, h and w, [2 * size - 1, c] each.
        lengths: tokens of the box along its three axes.
        sizes: positions of a window along them, equal; the rest is padding.

    Raises:
        ConfigError: for windows that are no cubes or an axis without table, where the released code has no meaning.

    Reference:
        Wang et al., SAM-Med3D, 2023, and its public `image_encoder3D`. `AxisBias` is what its text means.
    """

    def __init__(
        self, q: Tensor, tables: Sequence[Tensor | None], lengths: Sequence[int], sizes: Sequence[int]
    ) -> None:
        size = sizes[0]
        d, h, w = lengths
        if len(set(sizes)) != 1 or any(table is None for table in tables):
            raise ConfigError(
                "the released position bias needs cubic windows and a table for each axis",
                where="rel_pos='released'",
                got=f"window {tuple(sizes)}, {sum(table is not None for table in tables)} tables",
                hint="use a cubic image, or rel_pos='intended'",
            )
        n = math.prod(lengths)
        grid = q[:, :, :n].unflatten(2, (d, h, w))
        rows = grid
        if w < size:  # places along w that only padded tokens have
            absent = q[:, :, n:, None, None].expand(-1, -1, d, h, size - w, -1)
            rows = torch.cat([grid, absent], 4)
        along = [axis_positions(t, size, size).to(q.dtype) for t in tables if t is not None]
        self.lengths = (d, h, w)
        # queries of the box by keys along w; the same for the places along w that B and C read
        a = torch.einsum("bndhwc,dkc->bndhwk", grid, along[0][:d])
        self.b = torch.einsum("bndhic,hkc->bndhik", rows, along[1][:h])
        self.c = torch.einsum("bndhjc,jkc->bndhjk", rows, along[2])
        self.virtual = self._padding(a, self.b, self.c).to(q.dtype) if self.lengths != tuple(sizes) else None
        self.a = a[..., :w]
        self.b = self.b[..., :d, :w]
        self.c = self.c[..., :h, :w]

    def _padding(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        # log-sum of the bias over padded keys: [W, heads, n]
        d, h, w = self.lengths
        exact = torch.promote_types(a.dtype, torch.float32)
        b_real, b_absent, b_every = _sums(b.to(exact), d)
        _, c_absent, c_every = _sums(c.to(exact), h)
        outside = (b_every + c_every)[..., w:]  # keys whose place along w is padding: all of them, [W, heads, d, h, k]
        terms = []
        if b_absent is not None:
            terms.append(b_absent + c_every)
        if c_absent is not None:
            terms.append(b_real + c_absent)
        if not terms:
            return (a.to(exact)[..., w:] + outside[:, :, :, :, None]).logsumexp(-1).flatten(2)
        inside = terms[0] if len(terms) == 1 else torch.logaddexp(*terms)
        absent = torch.cat([inside[..., :w], outside], -1)
        return (a.to(exact) + absent[:, :, :, :, None]).logsumexp(-1).flatten(2)

    @staticmethod
    def folds(q: Tensor) -> bool:
        """Folded unless gradients flow, which sum over queries faster where the bias is written out."""
        return not (torch.is_grad_enabled() and q.requires_grad)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, fold: bool) -> Tensor:
        """Attended values [W, heads, n, c]; folded, only A and the padding are carried by queries and keys."""
        return self._attend_folded(q, k, v) if fold else attend_written(q, k, v, self.rows)

    def rows(self, start: int, stop: int) -> Tensor:
        """The bias written out for the queries from `start` to `stop`: [W, heads, stop - start, keys]."""
        w = self.lengths[2]
        first, last = start // w, -(-stop // w)  # rows of queries along w: B and C are the same within one
        a, b, c = (part.flatten(2, 3)[:, :, first:last] for part in (self.a, self.b, self.c))
        shared = b[:, :, :, :, None] + c[:, :, :, None]
        total = (shared[:, :, :, None] + a[:, :, :, :, None, None]).flatten(4).flatten(2, 3)
        total = total[:, :, start - first * w : stop - first * w]
        return total if self.virtual is None else torch.cat([total, self.virtual[:, :, start:stop, None]], 3)

    def _attend_folded(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # queries of one row along w share the mask B + C: places along w become the batch, windows and heads one axis
        windows, heads, n, channels = q.shape
        d, h, w = self.lengths
        keys, unit = k.shape[2], channels**0.5  # the attention divides by it again
        beside_q = [q, self.a.flatten(2, 4) * unit]
        marks = torch.eye(w, dtype=q.dtype, device=q.device).repeat(d * h, 1)
        if self.virtual is not None:
            beside_q.append(self.virtual[..., None] * unit)
            marks = F.pad(marks, (0, 1, 0, 1))
            marks[n, w] = 1
        beside_k = [k, marks.expand(windows, heads, -1, -1)]
        spare = -(channels + marks.shape[1]) % 8  # fused kernels on a GPU want multiples of 8, and one width
        if q.is_cuda and spare:
            beside_q.append(q.new_zeros(windows, heads, n, spare))
            beside_k.append(k.new_zeros(windows, heads, keys, spare))
        wide_q = torch.cat([part.unflatten(2, (d * h, w)).permute(3, 0, 1, 2, 4) for part in beside_q], -1)
        wide_k = torch.cat(beside_k, -1)
        wide_v = F.pad(v, (0, wide_k.shape[3] - channels))
        mask = F.pad((self.b[:, :, :, :, :, None] + self.c[:, :, :, :, None]).flatten(4), (0, keys - n))
        out: Tensor = F.scaled_dot_product_attention(
            wide_q.flatten(1, 2),
            wide_k.flatten(0, 1).expand(w, -1, -1, -1),
            wide_v.flatten(0, 1).expand(w, -1, -1, -1),
            attn_mask=mask.flatten(2, 3).flatten(0, 1)[None],
            scale=1 / unit,
        )
        # one copy into the layout that the projection reads, seen as [W, heads, n, c]
        attended: Tensor = out[..., :channels].unflatten(1, (windows, heads)).permute(1, 3, 0, 2, 4).flatten(1, 2)
        return attended.transpose(1, 2)


def _sums(scores: Tensor, real: int) -> tuple[Tensor, Tensor | None, Tensor]:
    # log-sums of [.., places, keys] over real, padded (if there are any) and all places
    inner = scores[..., :real, :].logsumexp(-2)
    if real == scores.shape[-2]:
        return inner, None, inner
    outer = scores[..., real:, :].logsumexp(-2)
    return inner, outer, torch.logaddexp(inner, outer)
