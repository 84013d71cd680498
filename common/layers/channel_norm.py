"""Layer norm over the channels of a map, each voxel on its own."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["ChannelNorm"]


class ChannelNorm(nn.LayerNorm):
    """`(x - mean_c x) / sqrt(var_c x + eps) * weight + bias` for maps [B, C, ...] of any number of axes.

    Args:
        channels: C.
        eps: added to the variance; segment-anything's 1e-6.
    """

    def __init__(self, channels: int, *, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> the same shape."""
        return self.last(x.movedim(1, -1)).movedim(-1, 1)

    def last(self, x: Tensor) -> Tensor:
        """The same for channels on the last axis, [..., C] -> the same shape."""
        return super().forward(x)
