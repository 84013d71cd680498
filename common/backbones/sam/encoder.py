"""SAM's image encoder with exact attention on real tokens only, open to callers that run its blocks themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...errors import ConfigError
from ...layers.attention.sam import DecomposedAttention

__all__ = ["BlockParts", "BlockStart", "PublishedBlock", "SamBlock", "SamEncoder", "SamFeatures", "Step"]

Step = Callable[[int, Tensor], Tensor]


class BlockStart(NamedTuple):
    """What a block computes before its attention: the residual [B,h',w',C'] and the normed tokens [B,h,w,C]."""

    shortcut: Tensor
    normed: Tensor


class PublishedBlock(Protocol):
    """A block of SAM's encoders as its authors built it: the parameters that one of ours takes over."""

    window_size: int
    norm1: nn.Module
    attn: Any
    norm2: nn.Module
    mlp: nn.Module


class BlockParts(Protocol):
    """A block whose parts can be run one by one, of SAM's encoder or of SAM2's."""

    window_size: int

    @property
    def attn(self) -> Any:
        """Its attention, whose `qkv` is [..., C] -> [..., 3C]."""

    def start(self, x: Tensor) -> BlockStart:
        """The residual and the normed tokens of `x` [B, h, w, C]."""

    def attend(self, qkv: Tensor) -> Tensor:
        """Attended and projected tokens [B, h', w', C'] of [B, h, w, 3C]."""

    def finish(self, shortcut: Tensor, attended: Tensor) -> Tensor:
        """The block's output [B, h', w', C'] of its residual and its attended tokens."""

    def __call__(self, tokens: Tensor) -> Tensor:
        """[B, h, w, C] -> [B, h', w', C']."""


class SamFeatures(NamedTuple):
    """What the encoder knows of an image.

    Args:
        embedding: after the neck, [B, 256, S/16, S/16].
        tokens: before the neck, [B, S/16, S/16, C].
        inner: tokens after each block, when asked for.
    """

    embedding: Tensor
    tokens: Tensor
    inner: tuple[Tensor, ...] = ()


class SamBlock(nn.Module):
    """`y = x + proj(attention(norm1(x)))`, `out = y + mlp(norm2(y))`, in parts that can be run one by one.

    `block(x)` is `finish(shortcut, attend(attn.qkv(normed)))` with `shortcut, normed = start(x)`.

    Args:
        block: segment-anything's `Block`, whose parameters and state-dict keys are taken over.
        attention: builds the attention from `attention=` and `window=`.
    """

    def __init__(
        self, *, block: PublishedBlock, attention: Callable[..., DecomposedAttention] = DecomposedAttention
    ) -> None:
        super().__init__()
        self.window_size = int(block.window_size)
        self.norm1 = block.norm1
        self.attn = attention(attention=block.attn, window=self.window_size)
        self.norm2 = block.norm2
        self.mlp = block.mlp

    def start(self, x: Tensor) -> BlockStart:
        """The residual and the normed tokens of `x` [B, h, w, C]."""
        return BlockStart(x, self.norm1(x))

    def attend(self, qkv: Tensor) -> Tensor:
        """Attended and projected tokens [B, h, w, C] of [B, h, w, 3C]."""
        return self.attn.attend(qkv)

    def finish(self, shortcut: Tensor, attended: Tensor) -> Tensor:
        """The block's output [B, h, w, C] of its residual and its attended tokens."""
        tokens = shortcut + attended
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, C] -> [B, h, w, C]."""
        shortcut, normed = self.start(x)
        return self.finish(shortcut, self.attend(self.attn.qkv(normed)))


class SamEncoder(nn.Module):
    """`embed`, the blocks, the neck: the same function and state-dict keys as segment-anything's encoder.

    Args:
        encoder: segment-anything's `ImageEncoderViT`, whose parameters are taken over.
        checkpointing: keep only the tokens between blocks for the backward pass and compute the rest again.

    Raises:
        ConfigError: when the image size is no multiple of the patch size.

    Reference:
        Kirillov et al., Segment Anything, 2023. Sizes other than 1024 read a resized checkpoint (`load_sam`).
    """

    def __init__(self, *, encoder: Any, checkpointing: bool = False) -> None:
        super().__init__()
        self.patch_size = int(encoder.patch_embed.proj.kernel_size[0])
        self.image_size = require_image_size(int(encoder.img_size), self.patch_size)
        self.embed_dim = int(encoder.patch_embed.proj.out_channels)
        self.checkpointing = checkpointing
        self.patch_embed = encoder.patch_embed
        self.pos_embed = encoder.pos_embed
        self.blocks = nn.ModuleList([SamBlock(block=block) for block in encoder.blocks])
        self.neck = encoder.neck

    def embed(self, image: Tensor) -> Tensor:
        """Patches with their positions [B, S/16, S/16, C] of an image [B, 3, S, S].

        Raises:
            ConfigError: for an image of another size.
        """
        expected = (self.patch_embed.proj.in_channels, self.image_size, self.image_size)
        if image.ndim != 4 or tuple(image.shape[1:]) != expected:
            raise ConfigError(
                "the image does not have the encoder's size",
                got=tuple(image.shape),
                expected=("B", *expected),
                hint="resize the image, or build the network with this image_size (a multiple of the patch size)",
            )
        tokens: Tensor = self.patch_embed(image)
        return tokens if self.pos_embed is None else tokens + self.pos_embed

    def run_block(self, index: int, tokens: Tensor) -> Tensor:
        """Block `index` on tokens [B, h, w, C]; the step that is taken unless a caller has its own."""
        block = self.blocks[index]
        if self.checkpointing and torch.is_grad_enabled():
            again: Tensor = checkpoint(block, tokens, use_reentrant=False)
            return again
        out: Tensor = block(tokens)
        return out

    def finish(self, tokens: Tensor) -> Tensor:
        """The neck: [B, h, w, C] -> [B, 256, h, w]."""
        embedding: Tensor = self.neck(tokens.permute(0, 3, 1, 2))
        return embedding

    def forward(self, image: Tensor, step: Step | None = None, inner: bool = False) -> SamFeatures:
        """Features of an image.

        Args:
            image: [B, 3, S, S], values 0..1 or normalised as the weights were trained.
            step: runs block `i` on its input tokens; None runs the blocks as they are.
            inner: also return the tokens after each block.
        """
        run = self.run_block if step is None else step
        tokens = self.embed(image)
        kept = []
        for index in range(len(self.blocks)):
            tokens = run(index, tokens)
            if inner:
                kept.append(tokens)
        return SamFeatures(self.finish(tokens), tokens, tuple(kept))


def require_image_size(size: int, patch: int = 16) -> int:
    """The size itself.

    Raises:
        ConfigError: unless it is a positive multiple of the patch size.
    """
    if size <= 0 or size % patch:
        raise ConfigError(
            "the image size is no multiple of the patch size",
            where="image_size",
            got=size,
            expected=f"a multiple of {patch}, such as {max(1, round(size / patch)) * patch}",
        )
    return size
