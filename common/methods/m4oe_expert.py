"""M4oE's first phase: each modality's experts learn to rebuild hidden parts of its slices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..backbones.swin_unet import MirroredDecoder, SwinUnet
from ..errors import ConfigError
from ..losses.reconstruction import masked_mse
from .m4oe import repeated

__all__ = ["M4oEExpertLoss", "MaskedAutoencoder", "Rebuilt", "window_mask"]

PATCH = 4


class Rebuilt(NamedTuple):
    """Prediction ``[B, H/4, W/4, 16 c]``, and which patches were hidden ``[B, H/4, W/4]``."""

    prediction: Tensor
    hidden: Tensor


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
        raise ConfigError("some squares are hidden and some are not", where="mask_ratio", got=ratio,
                          expected=f"1 .. {rows * columns - 1} of {rows * columns} squares")  # fmt: skip
    order = torch.rand(batch, rows * columns, generator=generator).argsort(1)
    hidden = torch.zeros(batch, rows * columns, dtype=torch.bool).scatter_(1, order[:, :count], True)
    return hidden.view(batch, rows, columns).repeat_interleave(side, 1).repeat_interleave(side, 2)


class MaskedAutoencoder(nn.Module):
    """A Swin-Unet's encoder that sees part of a slice, and a mirrored decoder that rebuilds the rest.

    Args:
        backbone: the Swin-Unet whose encoder is trained; its decoder takes no part.
        decoder: rebuilds; dropped after this phase.
        in_channels: image channels c.
        embed: width C of the backbone's first tokens.
        mask_ratio: share of squares that are hidden.
        mask_side: patches along a hidden square's side.

    Shapes:
        image ``[B, 1 or c, H, W]``, modality ``[B]`` -> :class:`Rebuilt`.

    Reference:
        M4oE, section 2.1; Xu et al., Swin MAE, 2022: a hidden token is replaced by a learned one.
    """

    def __init__(
        self,
        *,
        backbone: SwinUnet,
        decoder: MirroredDecoder,
        in_channels: int = 3,
        embed: int = 96,
        mask_ratio: float = 0.75,
        mask_side: int = 4,
    ) -> None:
        super().__init__()
        self.backbone, self.decoder = backbone, decoder
        self.in_channels, self.mask_ratio, self.mask_side = in_channels, mask_ratio, mask_side
        self.mask_token = nn.Parameter(torch.empty(embed))
        nn.init.normal_(self.mask_token, std=0.02)
        self.rebuild = nn.Linear(embed, PATCH * PATCH * in_channels)
        nn.init.xavier_uniform_(self.rebuild.weight)
        nn.init.zeros_(self.rebuild.bias)

    def forward(self, image: Tensor, modality: Tensor | None = None, hidden: Tensor | None = None) -> Rebuilt:
        """Hide, encode, decode.

        Args:
            image: slices.
            modality: whose expert encodes each.
            hidden: ``[B, H/4, W/4]`` bool; drawn when None.
        """
        image = repeated(image, self.in_channels)
        tokens = self.backbone.embed(image)
        if hidden is None:
            hidden = window_mask(*tokens.shape[:3], ratio=self.mask_ratio, side=self.mask_side)
        hidden = hidden.to(tokens.device)
        tokens = torch.where(hidden[..., None], self.mask_token.to(tokens.dtype), tokens)
        decoded = self.decoder(self.backbone.encode(tokens, modality).tokens, modality)
        return Rebuilt(self.rebuild(decoded), hidden)


class M4oEExpertLoss(nn.Module):
    """Mean squared error on the hidden patches.

    Args:
        normalise: rebuild patches of unit variance instead of grey values.
    """

    def __init__(self, normalise: bool = False) -> None:
        super().__init__()
        self.normalise = normalise

    def forward(self, outputs: Rebuilt, image: Tensor) -> dict[str, Tensor]:
        """Terms of the loss, ``loss`` first."""
        channels = outputs.prediction.shape[-1] // PATCH**2
        image = repeated(image, channels)
        loss = masked_mse(outputs.prediction, image, outputs.hidden, normalise=self.normalise)
        return {"loss": loss, "mse": loss.detach()}
