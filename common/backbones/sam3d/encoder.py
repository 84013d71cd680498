"""SAM-Med3D's image encoder, with exact attention on real tokens only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from segment_anything.modeling.common import MLPBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...errors import ConfigError
from ...layers.attention.released_bias import ReleasedBias
from ...layers.attention.sam import AxisBias, DecomposedAttention, PositionBias
from ...layers.channel_norm import ChannelNorm
from ..sam.encoder import SamBlock, require_image_size

__all__ = ["REL_POS", "Sam3DEncoder"]

AXES = ("d", "h", "w")
# a bias per axis adds few columns to the keys of a cube: folded it is faster everywhere, and no mask is kept
REL_POS: dict[str, tuple[type[PositionBias], bool | None]] = {
    "released": (ReleasedBias, None),
    "intended": (AxisBias, True),
}


class _Attention(nn.Module):
    # parameters under the released names; `DecomposedAttention` computes with them
    def __init__(self, embed: int, heads: int, size: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(embed, 3 * embed)
        self.proj = nn.Linear(embed, embed)
        for axis in AXES:
            setattr(self, f"rel_pos_{axis}", nn.Parameter(torch.zeros(2 * size - 1, embed // heads)))


class _Block(nn.Module):
    # the parts of a block; `SamBlock` runs them
    window_size: int
    norm1: nn.Module
    attn: nn.Module
    norm2: nn.Module
    mlp: nn.Module

    def __init__(self, embed: int, heads: int, window: int, grid: int) -> None:
        super().__init__()
        self.window_size = window
        self.norm1 = nn.LayerNorm(embed, eps=1e-6)
        self.attn = _Attention(embed, heads, window or grid)
        self.norm2 = nn.LayerNorm(embed, eps=1e-6)
        self.mlp = MLPBlock(embedding_dim=embed, mlp_dim=4 * embed)


class _Patches(nn.Module):
    def __init__(self, embed: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(1, embed, patch, patch)

    def forward(self, image: Tensor) -> Tensor:
        # patches do not overlap, so that the convolution is one matrix product
        p = self.proj.kernel_size[0]
        x, y, z = (side // p for side in image.shape[2:])
        patches = image.reshape(image.shape[0], x, p, y, p, z, p).permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
        return nn.functional.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class Sam3DEncoder(nn.Module):
    """A vision transformer on cubes of voxels with windowed and global blocks, and a convolutional neck.

    State-dict keys and function are those of the released `ImageEncoderViT3D`; no padded token is computed.

    Args:
        image_size: voxels along each side, a multiple of `patch`.
        patch: voxels along each side of a patch.
        embed: width C of the tokens.
        depth: blocks.
        heads: attention heads, a divisor of `embed`.
        width: channels of the embedding.
        window: tokens along each side of a window; may be larger than the grid.
        global_blocks: blocks that attend over the whole grid.
        rel_pos: `released` (the bias that public weights were trained with) or `intended` (what the text says).
        checkpointing: keep only the tokens between blocks for the backward pass and compute the rest again.

    Raises:
        ConfigError: for impossible sizes, an unknown bias or a global block that does not exist.

    Reference:
        Wang et al., SAM-Med3D, 2023. The bias: see `ReleasedBias`.
    """

    def __init__(
        self,
        *,
        image_size: int = 128,
        patch: int = 16,
        embed: int = 768,
        depth: int = 12,
        heads: int = 12,
        width: int = 384,
        window: int = 14,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
        rel_pos: str = "intended",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        _check(rel_pos, window, embed, heads, depth, global_blocks)
        self.image_size = require_image_size(image_size, patch)
        self.patch_size = patch
        self.rel_pos = rel_pos
        self.checkpointing = checkpointing
        grid = image_size // patch
        self.patch_embed = _Patches(embed, patch)
        self.pos_embed = nn.Parameter(torch.empty(1, grid, grid, grid, embed))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        bias, fold = REL_POS[rel_pos]
        attention = partial(DecomposedAttention, axes=AXES, bias=bias, fold=fold)
        windows = [0 if index in global_blocks else window for index in range(depth)]
        self.blocks = nn.ModuleList(
            [SamBlock(block=_Block(embed, heads, size, grid), attention=attention) for size in windows]
        )
        self.neck = nn.Sequential(
            nn.Conv3d(embed, width, 1, bias=False),
            ChannelNorm(width),
            nn.Conv3d(width, width, 3, padding=1, bias=False),
            ChannelNorm(width),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Embedding of an image.

        Args:
            image: [B, 1, S, S, S], z-scored.

        Returns:
            [B, width, S/patch, S/patch, S/patch].

        Raises:
            ConfigError: for an image of another size.
        """
        expected = (1, *(self.image_size,) * 3)
        if image.ndim != 5 or tuple(image.shape[1:]) != expected:
            raise ConfigError(
                "the image does not have the encoder's size",
                got=tuple(image.shape),
                expected=("B", *expected),
                hint="crop or pad it, or build the network with this image_size (a multiple of the patch size)",
            )
        tokens: Tensor = self.patch_embed(image) + self.pos_embed
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        embedding: Tensor = self.neck(tokens.permute(0, 4, 1, 2, 3))
        return embedding


def _check(rel_pos: str, window: int, embed: int, heads: int, depth: int, global_blocks: Sequence[int]) -> None:
    if rel_pos not in REL_POS:
        raise ConfigError("unknown position bias", where="rel_pos", got=rel_pos, expected=", ".join(REL_POS))
    if window < 1:
        raise ConfigError("a window has at least one token along each side", where="window", got=window)
    if heads < 1 or embed % heads:
        raise ConfigError("heads share the width equally", where="heads", got=heads, expected=f"a divisor of {embed}")
    if not set(global_blocks) <= set(range(depth)):
        raise ConfigError(
            "a global block does not exist", where="global_blocks", got=tuple(global_blocks), expected=f"0..{depth - 1}"
        )
