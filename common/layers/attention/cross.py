"""Attention between two sets of tokens, with 3-D positions in normalised crop coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.blocks.mlp import MLPBlock
from torch import Tensor, nn

from ...errors import ConfigError

__all__ = ["Attended", "Attention", "AttentionBlock", "from_tokens", "sincos_position", "squared_distance", "to_tokens"]


class Attended(NamedTuple):
    """Tokens ``[B, N, C]`` and, where asked for, the attention weights ``[B, heads, N, M]`` (each row sums to one)."""

    tokens: Tensor
    weights: Tensor | None


def to_tokens(volume: Tensor) -> Tensor:
    """``[B, C, X, Y, Z]`` to ``[B, N, C]`` with ``N = X*Y*Z``, z fastest."""
    return volume.flatten(2).transpose(1, 2)


def from_tokens(tokens: Tensor, grid: Sequence[int]) -> Tensor:
    """Inverse of :func:`to_tokens`."""
    if tokens.shape[1] != math.prod(grid):
        raise ConfigError("tokens do not fill the grid", got=tuple(tokens.shape), expected=f"N = {math.prod(grid)}")
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *grid)


def sincos_position(grid: Sequence[int], channels: int, like: Tensor, *, top: float = 32.0) -> Tensor:
    """Sines and cosines of the voxel centres of a grid, in coordinates that run from 0 to 1 over the crop.

    ``u = (i + 0.5) / n``; each axis gets ``channels // 6`` frequencies ``pi * top**(j / (J - 1))``. Two grids of
    different size over the same crop therefore agree on where a point is. Channels left over are zero.

    Args:
        grid: tokens along each of the three axes.
        channels: width of the tokens, at least 6.
        like: tensor whose device and dtype the result takes.
        top: highest frequency in half periods per crop.

    Returns:
        ``[1, N, channels]``.

    Raises:
        ConfigError: for a grid that is not three-dimensional or fewer than six channels.
    """
    count = channels // 6
    if len(grid) != 3 or count < 1:
        raise ConfigError("positions need three axes and six channels", got=(tuple(grid), channels))
    steps = torch.arange(count, device=like.device, dtype=torch.float32) / max(count - 1, 1)
    omega = math.pi * top**steps
    axes = [(torch.arange(n, device=like.device, dtype=torch.float32) + 0.5) / n for n in grid]
    parts = []
    for u in torch.meshgrid(*axes, indexing="ij"):
        angle = u.reshape(-1, 1) * omega
        parts += [angle.sin(), angle.cos()]
    return F.pad(torch.cat(parts, 1), (0, channels - 6 * count))[None].to(like.dtype)


def squared_distance(grid: Sequence[int], other: Sequence[int], like: Tensor) -> Tensor:
    """How far the voxel centres of two grids over the same crop are apart, in voxels of the coarser one.

    ``d^2[i, j] = sum_axis (min(n, m) ((i + 0.5) / n - (j + 0.5) / m))^2``.

    Args:
        grid: tokens n along each of the three axes.
        other: tokens m of the other grid.
        like: tensor whose device and dtype the result takes.

    Returns:
        ``[N, M]``.

    Raises:
        ConfigError: for a grid that is not three-dimensional.
    """
    if len(grid) != 3 or len(other) != 3:
        raise ConfigError("distances need three axes", got=(tuple(grid), tuple(other)))
    axes = []
    for n, m in zip(grid, other, strict=True):
        here = (torch.arange(n, device=like.device, dtype=torch.float32) + 0.5) / n
        there = (torch.arange(m, device=like.device, dtype=torch.float32) + 0.5) / m
        axes.append(((here[:, None] - there) * min(n, m)).square())
    x, y, z = axes
    total = x[:, None, None, :, None, None] + y[None, :, None, None, :, None] + z[None, None, :, None, None, :]
    return total.reshape(math.prod(grid), math.prod(other)).to(like.dtype)


class Attention(nn.Module):
    """Multi-head attention ``softmax(q k^T / sqrt(d)) v`` whose positions enter queries and keys, not values.

    Args:
        channels: width of queries and output, a multiple of ``heads``.
        heads: number of heads.

    Raises:
        ConfigError: when ``channels`` is not a multiple of ``heads``.
    """

    def __init__(self, *, channels: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ConfigError("channels must be a multiple of the heads", got=f"{channels} channels, {heads} heads")
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, bias: Tensor | None = None
    ) -> Attended:
        """Attend from ``query [B, N, C]`` to ``key, value [B, M, C]``; the weights cost the plain ``[N, M]`` way.

        ``bias [heads, N, M]`` is added to the logits.
        """
        q, k, v = self._split(self.query(query)), self._split(self.key(key)), self._split(self.value(value))
        weights = None
        if need_weights:
            logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            weights = (logits if bias is None else logits + bias).softmax(-1)
            x = weights @ v
        else:
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias[None].to(q.dtype))
        return Attended(self.out(x.transpose(1, 2).flatten(2)), weights)


class AttentionBlock(nn.Module):
    """Pre-norm residual block: ``y = x + Attn(LN(x) + p, LN(c) + p_c, LN(c)); z = y + MLP(LN(y))``.

    Without a context the block is self-attention and has one norm for queries and keys. With ``local``, head ``h`` adds
    ``-exp(r_h) d^2`` to its logits, ``d`` the distance between query and key; the learned ``exp(r_h)`` start between 2
    (its own place) and 2/256 (everywhere), so that what is where need not be learned from scratch.

    Args:
        channels: width C of the tokens.
        heads: number of heads.
        cross: whether the block attends to a context.
        mlp_ratio: hidden width of the MLP over C; 0 leaves the MLP away.
        local: whether the heads start with a reach of their own.

    Raises:
        ConfigError: for a context given to a self-attention block or missing from a cross-attention block.
    """

    def __init__(self, *, channels: int, heads: int, cross: bool, mlp_ratio: float = 4.0, local: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.norm_context = nn.LayerNorm(channels) if cross else None
        self.attention = Attention(channels=channels, heads=heads)
        self.norm_mlp = nn.LayerNorm(channels) if mlp_ratio else None
        self.mlp = MLPBlock(channels, int(channels * mlp_ratio)) if mlp_ratio else None
        self.reach = nn.Parameter(math.log(2.0) - torch.linspace(0, math.log(256.0), heads)) if local else None

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        position: Tensor | None = None,
        context_position: Tensor | None = None,
        need_weights: bool = False,
        distance: Tensor | None = None,
    ) -> Attended:
        """``x [B, N, C]``, ``context [B, M, C]``, positions ``[1, N or M, C]`` -> ``Attended([B, N, C], weights)``.

        A local block also needs the squared distances ``[N, M]``.

        Raises:
            ConfigError: for a context or distances where there must be none, or the other way round.
        """
        if (context is None) != (self.norm_context is None):
            raise ConfigError("a cross-attention block needs a context and a self-attention block takes none")
        if (distance is None) != (self.reach is None):
            raise ConfigError("a local block needs distances and another one takes none", where="distance")
        q = self.norm(x)
        if context is None or self.norm_context is None:
            value, context_position = q, position
        else:
            if context.shape[0] != x.shape[0] or context.shape[-1] != x.shape[-1]:
                raise ConfigError("context and queries differ", got=tuple(context.shape), expected=tuple(x.shape))
            value = self.norm_context(context)
        key = value if context_position is None else value + context_position
        bias = None
        if self.reach is not None and distance is not None:
            bias = -self.reach.exp()[:, None, None] * distance
        attended, weights = self.attention(q if position is None else q + position, key, value, need_weights, bias)
        x = x + attended
        if self.mlp is not None and self.norm_mlp is not None:
            x = x + self.mlp(self.norm_mlp(x))
        return Attended(x, weights)
