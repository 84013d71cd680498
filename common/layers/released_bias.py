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

from ..errors import ConfigError
from .sam_attention import axis_positions

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
        a, b, c = a.to(exact), b.to(exact), c.to(exact)
        every = b.logsumexp(4) + c.logsumexp(4)  # [W, heads, d, h, keys along w]
        terms = []
        if d < b.shape[4]:
            terms.append(b[..., d:, :].logsumexp(4) + c.logsumexp(4))
        if h < c.shape[4]:
            terms.append(b[..., :d, :].logsumexp(4) + c[..., h:, :].logsumexp(4))
        outside = every[..., w:]
        inside = torch.stack(terms, -1).logsumexp(-1)[..., :w] if terms else None
        absent = outside if inside is None else torch.cat([inside, outside], -1)
        some = a[..., w:] if inside is None else a
        return (some + absent[:, :, :, :, None]).logsumexp(-1).flatten(2)

    def rows(self, start: int, stop: int) -> Tensor:
        """The bias written out for the queries from `start` to `stop`: [W, heads, stop - start, keys]."""
        w = self.lengths[2]
        first, last = start // w, -(-stop // w)  # rows of queries along w: B and C are the same within one
        a, b, c = (part.flatten(2, 3)[:, :, first:last] for part in (self.a, self.b, self.c))
        shared = b[:, :, :, :, None] + c[:, :, :, None]
        total = (shared[:, :, :, None] + a[:, :, :, :, None, None]).flatten(4).flatten(2, 3)
        total = total[:, :, start - first * w : stop - first * w]
        return total if self.virtual is None else torch.cat([total, self.virtual[:, :, start:stop, None]], 3)

    def folded(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys whose inner product contains the bias: `A + B` for each pair (i, k) and C for each (j, k).

        Args:
            q: scaled queries [W, heads, n, c].
            k: keys [W, heads, n, c], [W, heads, n + 1, c] with the virtual key as the last one.
        """
        d, h, w = self.lengths
        columns = [q]
        for part in (self.b[:, :, :, :, None] + self.a[:, :, :, :, :, None], self.c[:, :, :, :, None]):
            columns.append(part.expand(-1, -1, -1, -1, w, -1, -1).flatten(5).flatten(2, 4))
        i, j, last = torch.meshgrid(*(torch.arange(length, device=q.device) for length in (d, h, w)), indexing="ij")
        places = F.one_hot((i * w + last).flatten(), d * w), F.one_hot((j * w + last).flatten(), h * w)
        marks = F.pad(torch.cat(places, 1), (0, 0, 0, k.shape[2] - q.shape[2]))
        if self.virtual is not None:
            columns.append(self.virtual[..., None])
            marks = F.pad(marks, (0, 1))
            marks[-1, -1] = 1
        return torch.cat(columns, -1), torch.cat([k, marks.to(k.dtype).expand(*k.shape[:2], -1, -1)], -1)
