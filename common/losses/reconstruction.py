"""How well hidden patches were rebuilt."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ConfigError

__all__ = ["masked_mse", "patches_of"]


def patches_of(image: Tensor, size: int) -> Tensor:
    """Cut an image into squares: ``[B, c, H, W] -> [B, H/p, W/p, p p c]``, rows, columns, channels."""
    batch, channels, height, width = image.shape
    if height % size or width % size:
        raise ConfigError("patches do not cover the image", got=(height, width), expected=f"multiples of {size}")
    split = image.view(batch, channels, height // size, size, width // size, size)
    return split.permute(0, 2, 4, 3, 5, 1).flatten(3)


def masked_mse(prediction: Tensor, image: Tensor, hidden: Tensor, *, normalise: bool = False) -> Tensor:
    """Mean squared error over the pixels of hidden patches: ``sum_hidden mean_pixels (p - x)^2 / #hidden``.

    Args:
        prediction: ``[B, H/p, W/p, p p c]``.
        image: ``[B, c, H, W]``.
        hidden: ``[B, H/p, W/p]`` bool, the patches that the network did not see.
        normalise: the target is each patch brought to zero mean and unit variance.

    Returns:
        A scalar.

    Raises:
        ConfigError: for shapes that do not fit, or when nothing is hidden.

    Reference:
        He et al., Masked Autoencoders, 2022, section 3.
    """
    size = image.shape[-1] // prediction.shape[2]
    target = patches_of(image, max(size, 1))
    if target.shape != prediction.shape or hidden.shape != prediction.shape[:3]:
        got = (tuple(prediction.shape), tuple(image.shape), tuple(hidden.shape))
        raise ConfigError("prediction, image and hidden patches differ in shape", got=got)
    if not bool(hidden.any()):
        raise ConfigError("nothing is hidden, so that there is nothing to learn", where="mask_ratio", expected="> 0")
    if normalise:
        variance, mean = torch.var_mean(target, -1, correction=1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
    return (prediction.float() - target).square().mean(-1)[hidden].mean()
