"""H-SAM: SAM's encoder with two mask decoders, the second of which builds on the first one's masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from segment_anything.modeling import PromptEncoder
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError
from ..sam.encoder import SamEncoder, SamFeatures, Step
from ..sam.network import VARIANTS, SamLogits, sam_network
from ..sam.prompt import EMBED
from .decoder import NOISE_LEVELS, CoarseDecoder, FineDecoder

__all__ = ["STAGES", "HSam", "hsam_network"]

STAGES = (3, 2)
PATCH = 16


class HSam(nn.Module):
    """Semantic segmentation by SAM with a hierarchical decoder, without prompts.

    Args:
        image_encoder: `SamEncoder`.
        prompt_encoder: segment-anything's; only its positions and "no mask" embedding are used.
        mask_decoder: coarse masks at a quarter of the image's size.
        mask_decoder2: fine masks at the image's size.
        stage: what answers: 3 = the mean of both decoders' logits, 2 = the second decoder alone.
        embedding_noise: in training the second decoder sees the embedding with Gaussian noise of this share of its
            range, >= 0.

    Raises:
        ConfigError: for an unknown stage or negative noise.

    Reference:
        Cheng et al., Unleashing the Potential of SAM for Medical Adaptation via Hierarchical Decoding, CVPR 2024.
        Both decoders run at every size that the encoder takes; theirs are built for 224 and 512 pixels.
    """

    uses_labels = True  # `decode` and `forward` take the labels, which steer noise in training

    def __init__(
        self,
        *,
        image_encoder: SamEncoder,
        prompt_encoder: PromptEncoder,
        mask_decoder: CoarseDecoder,
        mask_decoder2: FineDecoder,
        stage: int = 3,
        embedding_noise: float = 0.2,
    ) -> None:
        super().__init__()
        if stage not in STAGES:
            raise ConfigError("unknown stage", where="H-SAM", got=stage, expected="3 (both decoders) or 2 (the second)")
        if embedding_noise < 0:
            raise ConfigError("noise cannot be negative", where="embedding_noise", got=embedding_noise, expected=">= 0")
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.mask_decoder2 = mask_decoder2
        self.stage, self.embedding_noise = stage, float(embedding_noise)

    @property
    def image_size(self) -> int:
        """Pixels along each side of an image."""
        return self.image_encoder.image_size

    @property
    def classes(self) -> int:
        """Masks, the background included (K+1)."""
        return int(self.mask_decoder.num_mask_tokens)

    def encode(self, image: Tensor, step: Step | None = None) -> SamFeatures:
        """Features of [B,3,S,S]; `step` runs block `i` in the place of the encoder."""
        features: SamFeatures = self.image_encoder(image, step)
        return features

    def decode(self, features: SamFeatures, labels: Tensor | None = None) -> SamLogits:
        """Logits of both decoders, [B,K+1,S/4,S/4] and [B,K+1,S,S].

        Args:
            features: of the encoder.
            labels: [B,H,W] or [B,1,H,W], class indices; in training they steer the noise on what the second decoder
                is told, see :func:`class_noise`. None leaves that noise out.
        """
        embedding = features.embedding
        positions = self.prompt_encoder.get_dense_pe()
        dense = self.prompt_encoder(None, None, None)[1]
        coarse = self.mask_decoder(embedding, positions, dense)
        if self.training and self.embedding_noise:
            spread = (embedding.amax() - embedding.amin()).detach()
            embedding = embedding + self.embedding_noise * spread * torch.randn_like(embedding)
        return SamLogits(coarse.logits, self.mask_decoder2(embedding, positions, dense, coarse, labels))

    def logits(self, out: SamLogits) -> Tensor:
        """The answer [B,K+1,S,S].

        Raises:
            ConfigError: when there is no second decoder's answer.
        """
        if out.fine is None:
            raise ConfigError("H-SAM answers with both decoders", where="H-SAM", got="coarse logits only")
        if self.stage == 2:
            return out.fine
        size = (self.image_size, self.image_size)
        return (F.interpolate(out.coarse, size=size, mode="bilinear", align_corners=False) + out.fine) / 2

    def forward(self, image: Tensor, labels: Tensor | None = None) -> SamLogits:
        """Logits of an image [B,3,S,S]; labels as in :meth:`decode`."""
        return self.decode(self.encode(image), labels)


def hsam_network(
    variant: str = "vit_b",
    *,
    image_size: int = 224,
    classes: int = 9,
    stage: int = 3,
    grid: int | None = None,
    selection: str = "positions",
    embedding_noise: float = 0.2,
    noise: Sequence[float] = NOISE_LEVELS,
    dropout: float = 0.2,
    similarity_dropout: float = 0.1,
    seed: int | None = None,
    checkpointing: bool = False,
) -> HSam:
    """H-SAM with random weights; encoder and prompt encoder are those that `sam_network` draws from the same seed.

    Args:
        variant: as in `sam_network`.
        image_size: pixels, a multiple of 16.
        classes: masks, the background included (K+1), at least 2.
        stage: what answers, see :class:`HSam`.
        grid: tokens per side that the second decoder's weights over positions belong to; None = image_size / 16.
            14 takes weights of the public 224-pixel network at any size, 32 those of the 512-pixel one.
        selection: ``positions`` or ``released``, see :class:`FineDecoder`.
        embedding_noise: see :class:`HSam`.
        noise: see :class:`FineDecoder`; () is what the public code does at 512 pixels.
        dropout: probability (0..1) inside the second decoder's transformer.
        similarity_dropout: probability (0..1) on the similarities; 0 is what the public code does at 512 pixels.
        seed: of the random weights.
        checkpointing: less memory in training, see `SamEncoder`.

    Raises:
        ConfigError: for an unknown variant or stage, or an impossible size.
    """
    plain = sam_network(variant, image_size=image_size, classes=classes, seed=seed, checkpointing=checkpointing)
    width, hidden = VARIANTS[variant].get("width", EMBED), VARIANTS[variant].get("hidden", 2048)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed + 2)
        coarse = CoarseDecoder(classes=classes, width=width, mlp_dim=hidden)
        fine = FineDecoder(
            classes=classes,
            grid=image_size // PATCH if grid is None else grid,
            width=width,
            mlp_dim=hidden,
            selection=selection,
            noise=noise,
            dropout=dropout,
            similarity_dropout=similarity_dropout,
        )
    return HSam(
        image_encoder=plain.image_encoder,
        prompt_encoder=plain.prompt_encoder,
        mask_decoder=coarse,
        mask_decoder2=fine,
        stage=stage,
        embedding_noise=embedding_noise,
    )
