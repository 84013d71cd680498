"""Swin UNETR with its encoder and decoder apart, interchangeable with MONAI's weight for weight."""

from __future__ import annotations

from typing import Any

from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR
from torch import Tensor

__all__ = ["SwinUNETR"]


class SwinUNETR(MonaiSwinUNETR):
    """MONAI's Swin UNETR, split at the bottleneck.

    Args:
        fast: compute the same function with padding-free windows and a lean decoder; False is MONAI's own path.
        kwargs: everything that `monai.networks.nets.SwinUNETR` takes.
    """

    def __init__(self, *, fast: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fast = fast

    def hidden_states(self, x: Tensor) -> list[Tensor]:
        """Five feature maps [B, f, X/2..], [B, 2f, X/4..], ..., [B, 16f, X/32, Y/32, Z/32]."""
        self._check_input_size(x.shape[2:])
        states: list[Tensor] = self.swinViT(x, self.normalize)
        return states

    def bottleneck(self, hidden_states: list[Tensor]) -> Tensor:
        """The deepest feature map [B, 16f, X/32, Y/32, Z/32] as the decoder takes it."""
        deepest: Tensor = self.encoder10(hidden_states[4])
        return deepest

    def decode(self, x: Tensor, hidden_states: list[Tensor], bottleneck: Tensor) -> Tensor:
        """The decoded map [B, f, X, Y, Z] before the last 1x1x1 convolution."""
        skip1 = self.encoder1(x)
        skip2 = self.encoder2(hidden_states[0])
        skip3 = self.encoder3(hidden_states[1])
        skip4 = self.encoder4(hidden_states[2])
        decoded = self.decoder5(bottleneck, hidden_states[3])
        decoded = self.decoder4(decoded, skip4)
        decoded = self.decoder3(decoded, skip3)
        decoded = self.decoder2(decoded, skip2)
        full: Tensor = self.decoder1(decoded, skip1)
        return full

    def forward(self, x_in: Tensor) -> Tensor:
        """Logits [B, out_channels, X, Y, Z] of an image [B, in_channels, X, Y, Z]."""
        states = self.hidden_states(x_in)
        logits: Tensor = self.out(self.decode(x_in, states, self.bottleneck(states)))
        return logits
