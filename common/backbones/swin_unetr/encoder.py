"""The transformer half of Swin UNETR on channels-last tokens, built around MONAI's own modules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from monai.networks.nets.swin_unetr import BasicLayer, PatchMerging, SwinTransformer, SwinTransformerBlock
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ...layers.attention.window import WindowAttention
from .blocks import ResidualBlock, in_place

__all__ = ["SwinEncoder"]


class _Block(nn.Module):
    """One Swin block, `x + attention(norm(x))`, then `x + mlp(norm(x))`, tokens [B, X, Y, Z, C]."""

    def __init__(self, *, block: SwinTransformerBlock) -> None:
        super().__init__()
        self.norm1 = block.norm1
        self.attn = WindowAttention(
            attention=block.attn, window_size=tuple(block.window_size), shift_size=tuple(block.shift_size)
        )
        self.drop_path = block.drop_path
        self.norm2 = block.norm2
        self.mlp = block.mlp
        self.use_checkpoint: bool = bool(block.use_checkpoint)

    def attend(self, tokens: Tensor) -> Tensor:
        """The attention branch."""
        attended: Tensor = self.drop_path(self.attn(self.norm1(tokens)))
        return attended

    def transform(self, tokens: Tensor) -> Tensor:
        """The MLP branch."""
        transformed: Tensor = self.drop_path(self.mlp(self.norm2(tokens)))
        return transformed

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of the same shape; overwrites its input where no gradient is wanted."""
        if in_place(self.training):
            tokens += self.attend(tokens)
            flat = tokens.view(-1, tokens.shape[-1])
            at_once = 4096  # the hidden tokens then stay in a CPU's cache
            for start in range(0, flat.shape[0], at_once):
                some = flat[start : start + at_once]
                some += self.transform(some)
            return tokens
        if not torch.jit.is_scripting():
            if self.use_checkpoint and torch.is_grad_enabled():
                tokens = tokens + checkpoint(self.attend, tokens, use_reentrant=False)
                tokens = tokens + checkpoint(self.transform, tokens, use_reentrant=False)
                return tokens
        tokens = tokens + self.attend(tokens)
        return tokens + self.transform(tokens)


class _Merging(nn.Module):
    """Join 2x2x2 tokens into one of twice the channels."""

    def __init__(self, *, merging: Any) -> None:
        super().__init__()
        self.reduction = merging.reduction
        self.norm = merging.norm
        corners = [[i, j, k] for i in range(2) for j in range(2) for k in range(2)]
        if isinstance(merging, PatchMerging):  # MONAI's first version has an order of its own
            corners = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]]
        self.corners = corners

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, X, Y, Z, C] -> [B, X/2, Y/2, Z/2, 2C]."""
        x, y, z = tokens.shape[1], tokens.shape[2], tokens.shape[3]
        if x % 2 + y % 2 + z % 2 > 0:
            tokens = F.pad(tokens, [0, 0, 0, z % 2, 0, y % 2, 0, x % 2])
        parts = [tokens[:, c[0] :: 2, c[1] :: 2, c[2] :: 2] for c in self.corners]
        merged: Tensor = self.reduction(self.norm(torch.cat(parts, dim=-1)))
        return merged


class _Stage(nn.Module):
    """The blocks of one resolution and the merging that ends it."""

    def __init__(self, *, layer: BasicLayer) -> None:
        super().__init__()
        blocks = cast(Iterable[SwinTransformerBlock], layer.blocks)
        self.blocks = nn.ModuleList([_Block(block=block) for block in blocks])
        self.downsample = _Merging(merging=layer.downsample)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, X, Y, Z, C] -> [B, X/2, Y/2, Z/2, 2C]."""
        for block in self.blocks:
            tokens = block(tokens)
        merged: Tensor = self.downsample(tokens)
        return merged


def _stages(layers: nn.ModuleList) -> nn.ModuleList:
    return nn.ModuleList([_Stage(layer=cast(BasicLayer, layer)) for layer in layers])


class SwinEncoder(nn.Module):
    """MONAI's `SwinTransformer` without padded windows: same parameters, same state-dict keys, same function.

    Args:
        swin: the transformer whose modules are taken over; 3-D, attention in every stage, no attention dropout.

    Reference:
        Hatamizadeh et al., Swin UNETR, 2022; He et al., SwinUNETR-V2, 2023 (`use_v2`).
    """

    def __init__(self, *, swin: SwinTransformer) -> None:
        super().__init__()
        self.patch_embed = swin.patch_embed
        self.pos_drop = swin.pos_drop
        self.layers1, self.layers2 = _stages(swin.layers1), _stages(swin.layers2)
        self.layers3, self.layers4 = _stages(swin.layers3), _stages(swin.layers4)
        convolutions = [
            [ResidualBlock(block=block.layer) for block in getattr(swin, f"layers{i}c")] if swin.use_v2 else []
            for i in range(1, 5)
        ]
        self.layers1c = nn.ModuleList([_Wrapped(layer=block) for block in convolutions[0]])
        self.layers2c = nn.ModuleList([_Wrapped(layer=block) for block in convolutions[1]])
        self.layers3c = nn.ModuleList([_Wrapped(layer=block) for block in convolutions[2]])
        self.layers4c = nn.ModuleList([_Wrapped(layer=block) for block in convolutions[3]])

    def _out(self, tokens: Tensor, normalize: bool) -> Tensor:
        # a copy in any case: the next stage may overwrite its input
        out = F.layer_norm(tokens, [tokens.shape[-1]]) if normalize else tokens.clone()
        return out.permute(0, 4, 1, 2, 3)

    def forward(self, x: Tensor, normalize: bool = True) -> list[Tensor]:
        """Five feature maps [B, f, X/2, Y/2, Z/2] ... [B, 16f, X/32, Y/32, Z/32] of an image [B, C, X, Y, Z]."""
        tokens = self.pos_drop(self.patch_embed(x)).permute(0, 2, 3, 4, 1).contiguous()
        states = [self._out(tokens, normalize)]
        for conv in self.layers1c:
            tokens = conv(tokens)
        tokens = self.layers1[0](tokens)
        states.append(self._out(tokens, normalize))
        for conv in self.layers2c:
            tokens = conv(tokens)
        tokens = self.layers2[0](tokens)
        states.append(self._out(tokens, normalize))
        for conv in self.layers3c:
            tokens = conv(tokens)
        tokens = self.layers3[0](tokens)
        states.append(self._out(tokens, normalize))
        for conv in self.layers4c:
            tokens = conv(tokens)
        tokens = self.layers4[0](tokens)
        states.append(self._out(tokens, normalize))
        return states


class _Wrapped(nn.Module):
    """A convolution block of SwinUNETR-V2 on tokens; `layer` is its name in MONAI's state dict."""

    def __init__(self, *, layer: ResidualBlock) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, X, Y, Z, C] -> [B, X, Y, Z, C]."""
        out: Tensor = self.layer(tokens.permute(0, 4, 1, 2, 3))
        return out.permute(0, 2, 3, 4, 1).contiguous()
