"""The 2-D Swin-Unet, with the feed-forward of its blocks given from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from monai.networks.layers.drop_path import DropPath
from monai.networks.nets.swin_unetr import WindowAttention as MonaiWindowAttention
from torch import Tensor, nn

from ...errors import ConfigError
from ...layers.attention.window import WindowAttention
from ...layers.gating.mlp_experts import MLPExperts
from ...layers.gating.mlp_mixture import Mixed
from ...layers.gating.routing import Routing

__all__ = ["Encoded", "FeedForward", "MirroredDecoder", "SwinUnet", "start_weights"]

FeedForward = Callable[[int], nn.Module]
# Width of the tokens -> a module ``(tokens [B, H, W, C], modality [B] or None) -> Mixed``.


class Encoded(NamedTuple):
    """Deepest tokens ``[B, H/32, W/32, 8C]``, the skips from fine to coarse, and who was asked in each block."""

    tokens: Tensor
    skips: tuple[Tensor, ...]
    routings: tuple[Routing | None, ...]


class SwinUnet(nn.Module):
    """Swin encoder and mirrored Swin decoder on one image, up to full-size features.

    Args:
        feed_forward: makes the feed-forward of an encoder block.
        decoder_feed_forward: of a decoder block; the encoder's when None.
        in_channels: image channels.
        embed: width C after the patches of 4 x 4 pixels.
        depths: blocks per stage, the same in the decoder.
        num_heads: heads per stage.
        window: tokens along a window's side.
        drop_path: share of samples whose branch is skipped in the last encoder block, rising from 0.

    Shapes:
        image ``[B, in_channels, H, W]``, H and W multiples of 32 -> features ``[B, C, H, W]``.

    Raises:
        ConfigError: for stages that differ in number, or a size that is not a multiple of 32.

    Reference:
        Cao et al., Swin-Unet, 2021; names of parameters are those of its public weights.
    """

    def __init__(
        self,
        *,
        feed_forward: FeedForward,
        decoder_feed_forward: FeedForward | None = None,
        in_channels: int = 3,
        embed: int = 96,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        drop_path: float = 0.2,
    ) -> None:
        super().__init__()
        if len(depths) != 4 or len(num_heads) != 4:
            raise ConfigError("a Swin-Unet has four stages", got=f"depths {depths}, num_heads {num_heads}")
        up_forward = feed_forward if decoder_feed_forward is None else decoder_feed_forward
        widths = [embed * 2**i for i in range(4)]
        starts = [sum(depths[:i]) for i in range(4)]
        drops = [drop_path * i / max(sum(depths) - 1, 1) for i in range(sum(depths))]

        def blocks(stage: int, make: FeedForward) -> list[_Block]:
            return [
                _Block(
                    channels=widths[stage],
                    heads=num_heads[stage],
                    window=window,
                    shift=window // 2 if j % 2 else 0,
                    drop_path=drops[starts[stage] + j],
                    feed_forward=make(widths[stage]),
                )
                for j in range(depths[stage])
            ]

        self.patch_embed = _Patches(in_channels, embed)
        self.layers = nn.ModuleList(
            _Stage(blocks(i, feed_forward), downsample=_Merging(widths[i]) if i < 3 else None) for i in range(4)
        )
        self.norm = nn.LayerNorm(widths[3])
        self.layers_up = nn.ModuleList([_Expand(widths[3])])
        self.concat_back_dim = nn.ModuleList([nn.Identity()])
        for i in (2, 1, 0):
            self.layers_up.append(_Stage(blocks(i, up_forward), upsample=_Expand(widths[i]) if i else None))
            self.concat_back_dim.append(nn.Linear(2 * widths[i], widths[i]))
        self.norm_up = nn.LayerNorm(embed)
        self.up = _ExpandFourfold(embed)
        self.apply(_start)

    def encode(self, tokens: Tensor, modality: Tensor | None = None) -> Encoded:
        """Patch tokens ``[B, H/4, W/4, C]`` of :attr:`patch_embed` through the encoder."""
        skips, routings = [], []
        for stage in self.layers:
            skips.append(tokens)
            tokens, asked = stage(tokens, modality)
            routings += asked
        return Encoded(self.norm(tokens), tuple(skips), tuple(routings))

    def decode(self, encoded: Encoded, modality: Tensor | None = None) -> tuple[Tensor, tuple[Routing | None, ...]]:
        """Tokens ``[B, H/4, W/4, C]`` after the decoder's last norm, and who was asked in its blocks."""
        tokens, routings = self.layers_up[0](encoded.tokens), []
        for stage, join, skip in zip(
            self.layers_up[1:], self.concat_back_dim[1:], reversed(encoded.skips[:3]), strict=True
        ):
            tokens, asked = stage(join(torch.cat([tokens, skip], -1)), modality)
            routings += asked
        return self.norm_up(tokens), tuple(routings)

    def embed(self, image: Tensor) -> Tensor:
        """Image -> patch tokens ``[B, H/4, W/4, C]``."""
        if image.ndim != 4 or any(n % 32 for n in image.shape[2:]):
            raise ConfigError("an image's sides are multiples of 32", where="image_size", got=tuple(image.shape[2:]))
        tokens: Tensor = self.patch_embed(image)
        return tokens

    def tokens(self, image: Tensor, modality: Tensor | None = None) -> tuple[Tensor, tuple[Routing | None, ...]]:
        """Decoded tokens ``[B, H/4, W/4, C]`` and who was asked in each block, encoder first."""
        encoded = self.encode(self.embed(image), modality)
        tokens, asked = self.decode(encoded, modality)
        return tokens, (*encoded.routings, *asked)

    def enlarge(self, tokens: Tensor) -> Tensor:
        """Decoded tokens -> features ``[B, C, H, W]``, sixteen times as many values."""
        features: Tensor = self.up(tokens).permute(0, 3, 1, 2)
        return features

    def forward(self, image: Tensor, modality: Tensor | None = None) -> tuple[Tensor, tuple[Routing | None, ...]]:
        """Features ``[B, C, H, W]`` and who was asked in each block, encoder first."""
        tokens, routings = self.tokens(image, modality)
        return self.enlarge(tokens), routings

    def feed_forwards(self) -> list[nn.Module]:
        """The feed-forward of every block, encoder first."""
        stages = [s for s in chain(self.layers, self.layers_up) if isinstance(s, _Stage)]
        return [block.mlp for stage in stages for block in stage.blocks if isinstance(block, _Block)]


class MirroredDecoder(nn.Module):
    """The Swin encoder backwards, without skips: what a masked autoencoder rebuilds an image with.

    Args:
        feed_forward: makes the feed-forward of a block.
        embed: width C of the encoder's first tokens.
        depths: blocks per stage of the encoder.
        num_heads: heads per stage of the encoder.
        window: tokens along a window's side.
        drop_path: as of the encoder that it mirrors: its blocks skip as often as the encoder's of the same width.

    Shapes:
        deepest tokens ``[B, H/32, W/32, 8C]`` -> ``[B, H/4, W/4, C]``.

    Reference:
        Xu et al., Swin MAE, 2022.
    """

    def __init__(
        self,
        *,
        feed_forward: FeedForward,
        embed: int = 96,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = [_Expand(8 * embed)]
        for i in (2, 1, 0):
            width = embed * 2**i
            drops = [drop_path * (sum(depths[:i]) + j) / max(sum(depths) - 1, 1) for j in range(depths[i])]
            blocks = [
                _Block(
                    channels=width,
                    heads=num_heads[i],
                    window=window,
                    shift=window // 2 if j % 2 else 0,
                    drop_path=drop,
                    feed_forward=feed_forward(width),
                )
                for j, drop in enumerate(drops)
            ]
            stages.append(_Stage(blocks, upsample=_Expand(width) if i else None))
        self.stages = nn.ModuleList(stages)
        self.norm = nn.LayerNorm(embed)
        self.apply(_start)

    def forward(self, tokens: Tensor, modality: Tensor | None = None) -> Tensor:
        """Decode."""
        tokens = self.stages[0](tokens)
        for stage in self.stages[1:]:
            tokens, _ = stage(tokens, modality)
        decoded: Tensor = self.norm(tokens)
        return decoded


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def start_weights(network: nn.Module, init: str) -> None:
    """Start every linear layer and convolution with a deviation of ``1 / sqrt(inputs)`` in place of Swin's 0.02.

    At 768 channels the two are nearly alike; at 32 Swin's 0.02 makes each branch of a block a ninth of that, and a
    narrow network needs hundreds of updates to grow out of it. Gates keep theirs: they start undecided.

    Args:
        network: changed in place, before anything is loaded into it.
        init: ``swin`` leaves it as it was built, with 0.02; ``fan_in`` starts it by its layers' inputs.

    Raises:
        ConfigError: for another ``init``.

    Reference:
        Ours; the deviation is LeCun's.
    """
    if init not in ("swin", "fan_in"):
        raise ConfigError("unknown way to start weights", where="init", got=init, expected="swin or fan_in")
    if init == "swin":
        return
    for name, module in network.named_modules():
        if name.rpartition(".")[2] == "gate":
            continue
        if isinstance(module, MLPExperts):
            weights: list[Tensor] = [module.hidden_weight, module.out_weight]
        else:
            weights = [module.weight] if isinstance(module, nn.Linear | nn.Conv2d) else []
        for weight in weights:
            # the inputs of one output; experts are stacked along the first axis
            fan_in = weight.shape[-1] if weight.ndim == 3 else weight[0].numel()
            nn.init.trunc_normal_(weight, std=fan_in**-0.5, a=-2.0, b=2.0)


class _Patches(nn.Module):
    """Non-overlapping 4 x 4 patches, ``[B, c, H, W] -> [B, H/4, W/4, C]``."""

    def __init__(self, channels: int, embed: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, embed, 4, 4)
        self.norm = nn.LayerNorm(embed)

    def forward(self, image: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.proj(image).permute(0, 2, 3, 1))
        return tokens


class _Block(nn.Module):
    """``x + DP(WMSA(LN(x)))``, then ``x + DP(F(LN(x)))`` (M4oE, equation 1); tokens ``[B, H, W, C]``."""

    def __init__(
        self, *, channels: int, heads: int, window: int, shift: int, drop_path: float, feed_forward: nn.Module
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        # a plane of windows is a volume that is one token thick
        attention = MonaiWindowAttention(channels, heads, (window, window), qkv_bias=True)
        self.attn = WindowAttention(attention=attention, window_size=(window, window, 1), shift_size=(shift, shift, 0))
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = feed_forward

    def forward(self, tokens: Tensor, modality: Tensor | None) -> tuple[Tensor, Routing | None]:
        attended = self.attn(self.norm1(tokens).unsqueeze(3)).squeeze(3)
        tokens = tokens + self.drop_path(attended)
        mixed: Mixed = self.mlp(self.norm2(tokens), modality)
        return tokens + self.drop_path(mixed.tokens), mixed.routing


class _Stage(nn.Module):
    """Blocks of one resolution, and what leads to the next."""

    def __init__(
        self, blocks: Sequence[_Block], *, downsample: nn.Module | None = None, upsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample, self.upsample = downsample, upsample

    def forward(self, tokens: Tensor, modality: Tensor | None) -> tuple[Tensor, list[Routing | None]]:
        asked = []
        for block in self.blocks:
            tokens, routing = block(tokens, modality)
            asked.append(routing)
        for change in (self.downsample, self.upsample):
            if change is not None:
                tokens = change(tokens)
        return tokens, asked


class _Merging(nn.Module):
    """Join 2 x 2 tokens: ``[B, H, W, C] -> [B, H/2, W/2, 2C]``, rows before columns as in the public weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(4 * channels)

    def forward(self, tokens: Tensor) -> Tensor:
        corners = [tokens[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(corners, -1)))
        return merged


def _shuffle(tokens: Tensor, factor: int) -> Tensor:
    # [B, H, W, f f C] -> [B, f H, f W, C]
    batch, height, width, channels = tokens.shape
    split = tokens.view(batch, height, width, factor, factor, channels // factor**2).transpose(2, 3)
    return split.reshape(batch, height * factor, width * factor, -1)


class _Expand(nn.Module):
    """Patch expanding: ``[B, H, W, C] -> [B, 2H, 2W, C/2]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(channels // 2)

    def forward(self, tokens: Tensor) -> Tensor:
        expanded: Tensor = self.norm(_shuffle(self.expand(tokens), 2))
        return expanded


class _ExpandFourfold(nn.Module):
    """The last expanding: ``[B, H, W, C] -> [B, 4H, 4W, C]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, 16 * channels, bias=False)
        self.norm = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor) -> Tensor:
        expanded: Tensor = self.norm(_shuffle(self.expand(tokens), 4))
        return expanded
