"""Which patches of an image are hidden from a network that learns to rebuild them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ConfigError

__all__ = ["window_mask"]


def window_mask(
    batch: int, height: int, width: int, *, ratio: float, side: int, generator: torch.Generator | None = None
) -> Tensor:
    """Hide whole squares of patches, so that nothing hidden can be read off its neighbour.

    ``n = round(ratio * squares)`` of the squares of each sample are hidden, different ones for each.

    Args:
        batch: samples B.
        height: patches along y, a multiple of ``side``.
        width: patches along x, a multiple of ``side``.
        ratio: share of squares to hide, above 0 and below 1.
        side: patches along a square's side.
        generator: of random numbers.

    Returns:
        ``[B, height, width]`` bool, True where hidden.

    Raises:
        ConfigError: for a ratio that hides nothing or everything, or squares that do not cover the patches.

    Reference:
        Xu et al., Swin MAE, 2022, section 3.2 (4 x 4 patches a square, ratio 0.75).
    """
    if height % side or width % side:
        raise ConfigError("squares do not cover the patches", where="mask_side", got=(height, width, side))
    rows, columns = height // side, width // side
    count = round(ratio * rows * columns)
    if not 0 < count < rows * columns:
        expected = f"1 .. {rows * columns - 1} of {rows * columns} squares"
        raise ConfigError("some squares are hidden and some are not", where="mask_ratio", got=ratio, expected=expected)
    order = torch.rand(batch, rows * columns, generator=generator).argsort(1)
    hidden = torch.zeros(batch, rows * columns, dtype=torch.bool).scatter_(1, order[:, :count], True)
    return hidden.view(batch, rows, columns).repeat_interleave(side, 1).repeat_interleave(side, 2)
