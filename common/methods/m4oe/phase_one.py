"""M4oE's first phase: each modality's experts learn to rebuild hidden parts of its slices."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ...backbones.swin_unet.network import MirroredDecoder, SwinUnet, start_weights
from ...data.slices.views import SliceViews
from ...errors import ConfigError
from ...layers.gating.mlp_mixture import MLP
from ...layers.image_channels import repeated
from ...layers.same_weights import SameWeights
from ...layers.slice_by_slice import slice_by_slice
from ...layers.window_mask import window_mask
from ...losses.reconstruction import masked_mse
from .network import swin_unet_with_experts

__all__ = ["M4oEExpertLoss", "MaskedAutoencoder", "MaskedVolume", "Rebuilt", "m4oe_autoencoder", "started_grey"]

PATCH = 4


class Rebuilt(NamedTuple):
    """Prediction ``[B, H/4, W/4, 16 c]``, and which patches were hidden ``[B, H/4, W/4]``."""

    prediction: Tensor
    hidden: Tensor


class MaskedAutoencoder(nn.Module):
    """A Swin-Unet's encoder that sees part of a slice, and a mirrored decoder that rebuilds the rest.

    Args:
        backbone: the Swin-Unet whose encoder is trained; its decoder takes no part.
        decoder: rebuilds; dropped after this phase.
        in_channels: image channels c.
        embed: width C of the backbone's first tokens.
        mask_ratio: share of squares that are hidden.
        mask_side: patches along a hidden square's side.
        modalities: number of modalities; predictions are differences to a grey value of each, see
            :func:`started_grey`.

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
        modalities: int = 1,
    ) -> None:
        super().__init__()
        self.backbone, self.decoder = backbone, decoder
        self.in_channels, self.mask_ratio, self.mask_side = in_channels, mask_ratio, mask_side
        self.mask_token = nn.Parameter(torch.empty(embed))
        nn.init.normal_(self.mask_token, std=0.02)
        self.rebuild = nn.Linear(embed, PATCH * PATCH * in_channels)
        nn.init.xavier_uniform_(self.rebuild.weight)
        nn.init.zeros_(self.rebuild.bias)
        self.grey = nn.Parameter(torch.zeros(modalities))

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
        own = torch.zeros(len(image), dtype=torch.long, device=image.device) if modality is None else modality
        return Rebuilt(self.rebuild(decoded) + self.grey[own][:, None, None, None], hidden)

    def filled(self, image: Tensor, rebuilt: Rebuilt) -> Tensor:
        """``[B, 1, H, W]``, the mean of the channels: the image where it was seen, the prediction where it was hidden.

        Predictions of a network that rebuilds patches of unit variance are no grey values of the image.
        """
        hidden = rebuilt.hidden.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)[:, None]
        return torch.where(hidden, self._pixels(rebuilt.prediction).to(image.dtype), image.mean(1, keepdim=True))

    def show(self, image: Tensor, modality: Tensor) -> tuple[Tensor, Tensor]:
        """What is seen of slices (NaN where hidden), and :meth:`filled`; always the same squares are hidden.

        Args:
            image: ``[B, 1 or c, H, W]``.
            modality: ``[B]``.
        """
        hidden = window_mask(len(image), image.shape[2] // PATCH, image.shape[3] // PATCH, ratio=self.mask_ratio,
                             side=self.mask_side, generator=torch.Generator().manual_seed(0))  # fmt: skip
        rebuilt = self(image, modality, hidden)
        unseen = Rebuilt(torch.full_like(rebuilt.prediction, torch.nan), rebuilt.hidden)
        return self.filled(image, unseen), self.filled(image, rebuilt)

    def _pixels(self, patches: Tensor) -> Tensor:
        batch, rows, columns = patches.shape[:3]
        pixels = patches.unflatten(3, (PATCH, PATCH, self.in_channels)).mean(5)
        whole: Tensor = pixels.transpose(2, 3).reshape(batch, 1, rows * PATCH, columns * PATCH)
        return whole


def m4oe_autoencoder(
    *,
    modalities: Sequence[str],
    in_channels: int = 3,
    embed: int = 96,
    depths: Sequence[int] = (2, 2, 2, 2),
    num_heads: Sequence[int] = (3, 6, 12, 24),
    window: int = 7,
    drop_path: float = 0.1,
    mask_ratio: float = 0.75,
    mask_side: int = 4,
    init: str = "swin",
) -> MaskedAutoencoder:
    """The autoencoder of the first phase: slices are encoded by their own modality's experts, the rest is shared.

    Args:
        modalities: names of the experts, in their order.
        in_channels: image channels of the backbone.
        embed: width C of the first tokens, a multiple of the first stage's heads.
        depths: blocks per stage.
        num_heads: attention heads per stage.
        window: tokens along a window's side.
        drop_path: rate of the deepest block, rising linearly from 0.
        mask_ratio: share of squares that are hidden.
        mask_side: patches along a hidden square's side.
        init: ``swin``, or ``fan_in`` for narrow networks, see
            :func:`~common.backbones.swin_unet.network.start_weights`.
    """
    sizes: dict[str, Any] = {
        "embed": embed, "depths": depths, "num_heads": num_heads, "window": window, "drop_path": drop_path,
    }  # fmt: skip
    backbone = swin_unet_with_experts(
        experts=len(modalities), gate="none", moe_decoder=False, in_channels=in_channels, **sizes
    )
    decoder = MirroredDecoder(feed_forward=MLP, **sizes)
    network = MaskedAutoencoder(backbone=backbone, decoder=decoder, in_channels=in_channels, embed=embed,
                                mask_ratio=mask_ratio, mask_side=mask_side, modalities=len(modalities))  # fmt: skip
    start_weights(network, init)
    return network


@torch.no_grad()
def started_grey(network: MaskedAutoencoder, slices: SliceViews) -> MaskedAutoencoder:
    """The network with each modality's grey value at the mean of its slices, from where it is trained like the rest.

    Without it a modality whose background is far from zero, as in CT, first teaches the decoder to paint one grey
    everywhere: its biases grow until nothing of the slice gets through, and a small network stays there.

    Args:
        network: changed in place.
        slices: with ``image`` and ``modality_id``, before random transforms.
    """
    means: dict[int, list[float]] = {}
    for number in range(len(cast(Sized, slices.volumes))):
        volume = slices.volumes[number]
        means.setdefault(int(volume["modality_id"]), []).append(float(torch.as_tensor(volume["image"]).double().mean()))
    for modality, values in means.items():
        network.grey[modality] = sum(values) / len(values)
    return network


class MaskedVolume(SameWeights):
    """Hide the same squares of every slice of a volume along its last axis and rebuild them.

    Args:
        network: of slices; its parameters keep their names.
        slices: slices per forward pass, >= 1.
        modality: index of the modality of volumes that are given without one.
        seed: of the squares that are hidden.

    Shapes:
        volume ``[B, 1 or c, H, W, Z]`` -> ``[B, 1, H, W, Z]``: the input where it was seen (the mean of its channels),
        the prediction where it was hidden.

    Raises:
        ConfigError: for a volume that has no depth, or fewer than one slice per pass.
    """

    network: MaskedAutoencoder

    def __init__(self, *, network: MaskedAutoencoder, slices: int = 8, modality: int = 0, seed: int = 0) -> None:
        super().__init__(network)
        if slices < 1:
            raise ConfigError("at least one slice per forward pass", where="slices", got=slices)
        self.slices, self.modality, self.seed = slices, modality, seed

    def forward(self, volume: Tensor, modality: Tensor | None = None) -> Tensor:
        """Rebuild.

        Args:
            volume: ``[B, 1 or c, H, W, Z]``, H and W multiples of 32.
            modality: ``[B]``; the default one when None.
        """
        network, random = self.network, torch.Generator().manual_seed(self.seed)
        modality = torch.full((volume.shape[0],), self.modality) if modality is None else modality

        def step(image: Tensor, own: Tensor) -> Tensor:
            hidden = squares.expand(len(image), -1, -1)
            return network.filled(image, network(image, own, hidden))

        rows, columns = volume.shape[2] // PATCH, volume.shape[3] // PATCH
        squares = window_mask(1, rows, columns, ratio=network.mask_ratio, side=network.mask_side, generator=random)
        return slice_by_slice(volume, self.slices, (modality,), step)


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
