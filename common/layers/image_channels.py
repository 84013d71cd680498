"""Grey images for networks that expect several channels."""

from __future__ import annotations

from torch import Tensor

from ..errors import ConfigError

__all__ = ["repeated"]


def repeated(image: Tensor, channels: int) -> Tensor:
    """An image ``[B, 1 or c, H, W]`` with c channels, one grey one repeated.

    Raises:
        ConfigError: for another number of channels.
    """
    if image.shape[1] not in (1, channels):
        raise ConfigError("the image has other channels", got=image.shape[1], expected=f"1 or {channels}")
    return image.expand(-1, channels, *image.shape[2:])
