"""Hiera, the image encoder of SAM2, with exact attention on real tokens only and blocks that can be run in parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ...errors import ConfigError
from ...layers.attention.window import axis_segments
from ..sam.encoder import BlockStart, PublishedBlock, Step

__all__ = ["HieraAttention", "HieraBlock", "Sam2Encoder", "Sam2Features"]

STRIDE = 32  # pixels per token of the last stage


class Sam2Features(NamedTuple):
    """What the encoder knows of an image; the first three are those of SAM's encoder.

    Args:
        embedding: after the neck, [B,256,S/16,S/16].
        tokens: what the neck joins there: the third stage's channels, then the fourth's, brought to the same grid
            (nearest), [B,S/16,S/16,C].
        inner: tokens after each block, at the block's own resolution and width, when asked for.
        fine: after the neck at strides 4 and 8, [B,256,S/4,S/4] and [B,256,S/8,S/8].
    """

    embedding: Tensor
    tokens: Tensor
    inner: tuple[Tensor, ...] = ()
    fine: tuple[Tensor, ...] = ()


class HieraAttention(nn.Module):
    """``softmax(pool(q) kᵀ / √d) v`` in windows, projected, without computing a padded token.

    SAM2 pads the grid with zeros after the norm, so that a padded token has the key and value ``b_k, b_v`` (the bias
    of ``qkv``): all of a window are one virtual key whose logit carries ``log(number of them)``. Pooling keeps the
    largest of 2 x 2 queries and never mixes real and padded ones, because sides and windows are even there.

    Args:
        attention: SAM2's ``MultiScaleAttention``, whose parameters and state-dict keys are taken over.
        window: tokens along a side of a window; 0 attends over the whole grid.

    Raises:
        ConfigError: when queries are pooled in windows of odd size.

    Reference:
        Ryali et al., Hiera, 2023; Ravi et al., SAM 2, 2024. Equal to the padded computation up to rounding.
    """

    def __init__(self, *, attention: Any, window: int) -> None:
        super().__init__()
        self.heads, self.window = int(attention.num_heads), int(window)
        self.qkv, self.proj, self.q_pool = attention.qkv, attention.proj, attention.q_pool
        if self.q_pool is not None and self.window % 2:
            raise ConfigError("queries are pooled in twos", where="Hiera", got=window, expected="an even window")

    def attend(self, qkv: Tensor) -> Tensor:
        """Attended and projected tokens [B,h',w',C'] of [B,h,w,3C'].

        Raises:
            ConfigError: when queries are pooled and the grid's sides are odd.
        """
        h, w = qkv.shape[1:3]
        if self.q_pool is not None and (h % 2 or w % 2):
            raise ConfigError("queries are pooled in twos", where="Hiera", got=(h, w), expected="even sides")
        rows = axis_segments(h, self.window or h, 0)
        columns = axis_segments(w, self.window or w, 0)
        strips = [_joined([self._attend_box(qkv, row, column) for column in columns], 2) for row in rows]
        attended: Tensor = self.proj(_joined(strips, 1))
        return attended

    def forward(self, tokens: Tensor) -> Tensor:
        """Attended tokens [B,h',w',C'] of normed ones [B,h,w,C]."""
        return self.attend(self.qkv(tokens))

    def _attend_box(self, qkv: Tensor, row: list[int], column: list[int]) -> Tensor:
        # one kind of windows: m x n of them, a x b real tokens each
        (top, m, a, _, below), (left, n, b, _, beside) = row, column
        box = qkv[:, top : top + m * a, left : left + n * b]
        box = box.unflatten(1, (m, a)).unflatten(3, (n, b)).transpose(2, 3)  # [B,m,n,a,b,3C]
        batch, channels = box.shape[0], box.shape[-1] // 3
        q, k, v = box.reshape(batch * m * n, a * b, 3 * channels).chunk(3, dim=2)
        mask = None
        pads = (a + below) * (b + beside) - a * b
        if pads:
            k, v, mask = self._with_padding(k, v, pads)
        if self.q_pool is not None:
            a, b = a // 2, b // 2
            pooled = self.q_pool(q.unflatten(1, (2 * a, 2 * b)).permute(0, 3, 1, 2))
            q = pooled.permute(0, 2, 3, 1).flatten(1, 2).contiguous()  # fused kernels want whole heads in memory
        q, k, v = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        grid = out.transpose(1, 2).reshape(batch, m, n, a, b, channels)
        return grid.transpose(2, 3).reshape(batch, m * a, n * b, channels)

    def _with_padding(self, k: Tensor, v: Tensor, pads: int) -> tuple[Tensor, Tensor, Tensor]:
        # the virtual key and value of `pads` padded tokens, and what is added to the logits
        bias = self.qkv.bias
        bias = k.new_zeros(3 * k.shape[2]) if bias is None else bias.to(k.dtype)
        _, key, value = bias.expand(k.shape[0], 1, -1).chunk(3, dim=2)
        weight = k.new_tensor(pads).log().view(1, 1, 1, 1)
        return torch.cat([k, key], 1), torch.cat([v, value], 1), F.pad(weight, (k.shape[1], 0))


class MultiScaleBlock(PublishedBlock, Protocol):
    """SAM2's block: some halve the grid and double the width."""

    dim: int
    dim_out: int
    pool: nn.Module | None
    drop_path: nn.Module
    proj: nn.Module


class HieraBlock(nn.Module):
    """A block of Hiera in the parts that SAM's blocks have; some blocks halve the grid and double the width.

    ``block(x)`` is ``finish(shortcut, attend(attn.qkv(normed)))`` with ``shortcut, normed = start(x)``.

    Args:
        block: SAM2's ``MultiScaleBlock``, whose parameters and state-dict keys are taken over.
    """

    def __init__(self, *, block: MultiScaleBlock) -> None:
        super().__init__()
        self.window_size = int(block.window_size)
        self.dim, self.dim_out = int(block.dim), int(block.dim_out)
        self.norm1, self.pool = block.norm1, block.pool
        self.attn = HieraAttention(attention=block.attn, window=self.window_size)
        self.drop_path, self.norm2, self.mlp = block.drop_path, block.norm2, block.mlp
        self.proj = block.proj if self.dim != self.dim_out else None

    def start(self, x: Tensor) -> BlockStart:
        """The (projected and pooled) residual [B,h',w',C'] and the normed tokens [B,h,w,C] of `x` [B,h,w,C]."""
        normed = self.norm1(x)
        if self.proj is None:
            return BlockStart(x, normed)
        shortcut = self.proj(normed)
        if self.pool is not None:
            shortcut = self.pool(shortcut.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return BlockStart(shortcut, normed)

    def attend(self, qkv: Tensor) -> Tensor:
        """Attended and projected tokens [B,h',w',C'] of [B,h,w,3C']."""
        return self.attn.attend(qkv)

    def finish(self, shortcut: Tensor, attended: Tensor) -> Tensor:
        """The block's output [B,h',w',C'] of its residual and its attended tokens."""
        tokens = shortcut + self.drop_path(attended)
        out: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """[B,h,w,C] -> [B,h',w',C']."""
        shortcut, normed = self.start(x)
        return self.finish(shortcut, self.attend(self.attn.qkv(normed)))


class Sam2Encoder(nn.Module):
    """Hiera and its pyramid neck behind the interface of SAM's encoder; state-dict keys of SAM2's image encoder.

    Args:
        trunk: SAM2's ``Hiera``; its blocks are replaced by :class:`HieraBlock`.
        neck: SAM2's ``FpnNeck``.
        image_size: side of the image in pixels, a multiple of 32.
        checkpointing: keep only the tokens between blocks for the backward pass and compute the rest again.

    Raises:
        ConfigError: when the image size is no multiple of 32.

    Reference:
        Ravi et al., SAM 2, 2024. The neck's lowest resolution (stride 32) is used inside the neck only, as there.
    """

    patch_size = 16  # pixels per position of the embedding, as in SAM

    def __init__(self, *, trunk: Any, neck: Any, image_size: int, checkpointing: bool = False) -> None:
        super().__init__()
        if image_size < STRIDE or image_size % STRIDE:
            raise ConfigError(
                "SAM2's image size is a multiple of 32",
                where="image_size",
                got=image_size,
                expected=f"32, 64, ..., such as {max(1, round(image_size / STRIDE)) * STRIDE}",
            )
        self.image_size, self.checkpointing = int(image_size), checkpointing
        trunk.blocks = nn.ModuleList(HieraBlock(block=block) for block in trunk.blocks)
        self.trunk, self.neck = trunk, neck
        self.stage_ends = tuple(int(i) for i in trunk.stage_ends)
        self.embed_dim = sum(self.blocks[i].dim_out for i in self.stage_ends[-2:])

    @property
    def blocks(self) -> Sequence[HieraBlock]:
        """Hiera's blocks in order."""
        blocks: Sequence[HieraBlock] = self.trunk.blocks
        return blocks

    def embed(self, image: Tensor) -> Tensor:
        """Patches with their positions [B,S/4,S/4,C] of an image [B,3,S,S].

        Raises:
            ConfigError: for an image of another size.
        """
        expected = (3, self.image_size, self.image_size)
        if image.ndim != 4 or tuple(image.shape[1:]) != expected:
            raise ConfigError(
                "the image does not have the encoder's size",
                got=tuple(image.shape),
                expected=("B", *expected),
                hint="resize the image, or build the network with this image_size (a multiple of 32)",
            )
        tokens: Tensor = self.trunk.patch_embed(image)
        placed: Tensor = tokens + self.trunk._get_pos_embed(tokens.shape[1:3])
        return placed

    def run_block(self, index: int, tokens: Tensor) -> Tensor:
        """Block `index` on tokens [B,h,w,C]; the step that is taken unless a caller has its own."""
        block = self.blocks[index]
        if self.checkpointing and torch.is_grad_enabled():
            again: Tensor = checkpoint(block, tokens, use_reentrant=False)
            return again
        out: Tensor = block(tokens)
        return out

    def finish(self, stages: list[Tensor], inner: tuple[Tensor, ...] = ()) -> Sam2Features:
        """The neck on the four stages' tokens [B,S/4,S/4,C] to [B,S/32,S/32,8C]."""
        maps = [stage.permute(0, 3, 1, 2) for stage in stages]
        pyramid = self.neck(maps)[0]
        deep = F.interpolate(maps[3], scale_factor=2.0, mode="nearest")
        tokens = torch.cat([maps[2], deep], dim=1).permute(0, 2, 3, 1)
        return Sam2Features(pyramid[2], tokens, inner, (pyramid[0], pyramid[1]))

    def forward(self, image: Tensor, step: Step | None = None, inner: bool = False) -> Sam2Features:
        """Features of an image.

        Args:
            image: [B,3,S,S], values 0..1 or normalised as the weights were trained.
            step: runs block `i` on its input tokens; None runs the blocks as they are.
            inner: also return the tokens after each block.
        """
        run = self.run_block if step is None else step
        tokens = self.embed(image)
        stages, kept = [], []
        for index in range(len(self.blocks)):
            tokens = run(index, tokens)
            if index in self.stage_ends:
                stages.append(tokens)
            if inner:
                kept.append(tokens)
        return self.finish(stages, tuple(kept))


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
