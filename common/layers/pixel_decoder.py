"""A light U-Net decoder that paints an image from a transformer's tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..errors import ConfigError

__all__ = ["PixelDecoder"]


class PixelDecoder(nn.Module):
    """Four times: enlarge by two, join what an earlier block knew, convolve; then one value per channel and pixel.

    Args:
        embed: channels of the embedding, stride 16.
        skips: channels of earlier blocks' tokens, from the first to the last of them; at most four.
        channels: of the image.
        widths: of the four steps, multiples of ``groups``.
        groups: of the group norms, which unlike batch norms do not depend on how a batch is split.

    Shapes:
        embedding ``[B, embed, h, w]``, tokens ``[B, h', w', C_i] -> [B, channels, 16 h, 16 w]``.

    Raises:
        ConfigError: for other than four widths, or more skips than steps.

    Reference:
        SAMora names "a U-Net decoder" only; widths after its released code, which has no skips and batch norms.
    """

    def __init__(
        self,
        *,
        embed: int = 256,
        skips: Sequence[int] = (768, 768, 768),
        channels: int = 1,
        widths: Sequence[int] = (128, 64, 32, 16),
        groups: int = 8,
    ) -> None:
        super().__init__()
        if len(widths) != 4 or len(skips) > 4 or any(w % groups for w in widths):
            expected = f"4 multiples of {groups}, <= 4 skips"
            where = "pixel decoder"
            got = (tuple(widths), len(skips))
            raise ConfigError("a decoder from stride 16 has four steps", where=where, got=got, expected=expected)
        self.up, self.join, self.mix = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        wide = embed
        for step, width in enumerate(widths):
            self.up.append(nn.ConvTranspose2d(wide, width, 2, 2))
            known = step < len(skips)
            if known:  # the last block joins first
                self.join.append(nn.Conv2d(skips[-1 - step], width, 1))
            conv = nn.Conv2d(width * (1 + known), width, 3, padding=1)
            self.mix.append(nn.Sequential(conv, nn.GroupNorm(groups, width), nn.GELU()))
            wide = width
        self.out = nn.Conv2d(wide, channels, 1)

    def forward(self, embedding: Tensor, tokens: Sequence[Tensor]) -> Tensor:
        """Paint.

        Args:
            embedding: of the encoder's neck.
            tokens: of the earlier blocks, in their order.

        Raises:
            ConfigError: for another number of blocks than there are skips.
        """
        if len(tokens) != len(self.join):
            raise ConfigError("another number of skips", got=len(tokens), expected=len(self.join))
        x = embedding
        for step, (up, mix) in enumerate(zip(self.up, self.mix, strict=True)):
            x = up(x)
            if step < len(self.join):
                skip = self.join[step](tokens[-1 - step].permute(0, 3, 1, 2))
                skip = interpolate(skip, size=x.shape[-2:], mode="bilinear", align_corners=False)
                x = torch.cat([x, skip], 1)
            x = mix(x)
        image: Tensor = self.out(x)
        return image
