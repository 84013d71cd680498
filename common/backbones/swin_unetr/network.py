"""Swin UNETR with its encoder and decoder apart, interchangeable with MONAI's weight for weight, and faster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.networks.blocks.hyena import HyenaTransformerBlock
from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR
from torch import Tensor

from ...weights import Coverage
from .blocks import ResidualBlock, UpBlock, is_lean, pointwise
from .encoder import SwinEncoder
from .weights import load_swinvit

__all__ = ["SwinUNETR"]


class SwinUNETR(MonaiSwinUNETR):
    """MONAI's Swin UNETR, split at the bottleneck and computed without padded windows and without concatenation.

    The state dict has the same keys, shapes and values; outputs and gradients are equal to rounding.

    Args:
        fast: False leaves every module as MONAI's, to compare with. 2-D networks, stages with Hyena blocks, attention
            dropout and norms other than a plain instance norm are always MONAI's.
        kwargs: everything that `monai.networks.nets.SwinUNETR` takes; `use_checkpoint` recomputes the blocks of the
            transformer in the backward pass.

    Shapes:
        image [B, in_channels, X, Y, Z] -> logits [B, out_channels, X, Y, Z]; X, Y, Z multiples of 32, not all 32.

    Reference:
        Hatamizadeh et al., Swin UNETR, 2022; window padding in closed form is ours.
    """

    __constants__ = ("lean",)  # so that the scripting compiler leaves the other branch alone

    def __init__(self, *, fast: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fast, self.lean = fast, False
        if not fast or kwargs.get("spatial_dims", 3) != 3:
            return
        hyena = any(isinstance(m, HyenaTransformerBlock) for m in self.modules())
        if not hyena and kwargs.get("attn_drop_rate", 0.0) == 0.0 and self._merges():
            self.register_module("swinViT", SwinEncoder(swin=self.swinViT))
        for i in (1, 2, 3, 4, 10):
            encoder = getattr(self, f"encoder{i}")
            if is_lean(encoder.layer):
                encoder.layer = ResidualBlock(block=encoder.layer)
        for i in (1, 2, 3, 4, 5):
            decoder = getattr(self, f"decoder{i}")
            if is_lean(decoder.conv_block):
                setattr(self, f"decoder{i}", UpBlock(block=decoder))
        self.lean = isinstance(self.decoder1, UpBlock)

    def _merges(self) -> bool:
        stages = [getattr(self.swinViT, f"layers{i}")[0] for i in range(1, 5)]
        return all(hasattr(s.downsample, "norm") and hasattr(s.downsample, "reduction") for s in stages)

    def hidden_states(self, x: Tensor) -> list[Tensor]:
        """Five feature maps [B, f, X/2..], [B, 2f, X/4..], ..., [B, 16f, X/32, Y/32, Z/32]."""
        if not torch.jit.is_scripting():
            self._check_input_size(x.shape[2:])
        states: list[Tensor] = self.swinViT(x, self.normalize)
        return states

    def bottleneck(self, hidden_states: list[Tensor]) -> Tensor:
        """The deepest feature map [B, 16f, X/32, Y/32, Z/32] as the decoder takes it."""
        deepest: Tensor = self.encoder10(hidden_states[4])
        return deepest

    def decode(self, x: Tensor, hidden_states: list[Tensor], bottleneck: Tensor) -> Tensor:
        """The decoded map [B, f, X, Y, Z] before the last 1x1x1 convolution.

        Args:
            x: the image [B, C, X, Y, Z].
            hidden_states: from :meth:`hidden_states`.
            bottleneck: what the decoder starts from, [B, 16f, X/32, Y/32, Z/32].
        """
        decoded = self.decoder5(bottleneck, hidden_states[3])
        decoded = self.decoder4(decoded, self.encoder4(hidden_states[2]))
        decoded = self.decoder3(decoded, self.encoder3(hidden_states[1]))
        decoded = self.decoder2(decoded, self.encoder2(hidden_states[0]))
        if self.lean:  # an UpBlock then; the full-size skip is let go before the last convolution
            out, residual = self.decoder1.join(decoded, self.encoder1(x))  # type: ignore[operator]
            full: Tensor = self.decoder1.conv_block.finish(out, residual)  # type: ignore[operator]
        else:
            full = self.decoder1(decoded, self.encoder1(x))
        return full

    def forward(self, x_in: Tensor) -> Tensor:
        """Logits [B, out_channels, X, Y, Z] of an image [B, in_channels, X, Y, Z]."""
        states = self.hidden_states(x_in)
        decoded = self.decode(x_in, states, self.bottleneck(states))
        if self.fast and decoded.dim() == 5:
            logits = pointwise(decoded, self.out.conv.conv.weight, self.out.conv.conv.bias).contiguous()
        else:
            logits = self.out(decoded)
        return logits

    @torch.jit.unused
    def load_swinvit(self, path: Path | str) -> Coverage:
        """Load MONAI's self-supervised encoder, see :func:`.weights.load_swinvit`."""
        return load_swinvit(self.swinViT, path)

    @torch.jit.unused
    def load_from(self, weights: Mapping[str, Any]) -> None:
        """MONAI's method of this name: takes the content of `model_swinvit.pt` instead of its path."""
        load_swinvit(self.swinViT, weights["state_dict"])
