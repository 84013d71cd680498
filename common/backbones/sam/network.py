"""SAM without prompts and with one mask per class: image encoder, prompt encoder, mask decoder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError
from .encoder import SamEncoder, SamFeatures, Step, require_image_size
from .prompt import EMBED
from .weights import load_sam

__all__ = ["VARIANTS", "Sam", "SamLogits", "sam_decoder", "sam_encoder", "sam_network"]

_PATCH = 16
VARIANTS: dict[str, dict[str, Any]] = {
    "vit_b": {"embed": 768, "depth": 12, "heads": 12, "global_blocks": (2, 5, 8, 11)},
    "vit_l": {"embed": 1024, "depth": 24, "heads": 16, "global_blocks": (5, 11, 17, 23)},
    "vit_h": {"embed": 1280, "depth": 32, "heads": 16, "global_blocks": (7, 15, 23, 31)},
    # ours, for scans on a CPU
    "small": {"embed": 192, "depth": 6, "heads": 6, "global_blocks": (2, 5), "window": 5, "width": 128, "hidden": 512},
    # ours, for tests: windows of 3 leave a remainder at 64, 112 and 224 pixels
    "tiny": {"embed": 32, "depth": 4, "heads": 2, "global_blocks": (1, 3), "window": 3, "width": 32, "hidden": 64},
}


class SamLogits(NamedTuple):
    """What the decoders say.

    Args:
        coarse: logits [B, K+1, S/4, S/4].
        fine: logits of a second decoder [B, K+1, S, S], None where there is only one.
    """

    coarse: Tensor
    fine: Tensor | None = None


class Sam(nn.Module):
    """Semantic segmentation by SAM: K+1 mask tokens, all of them returned, and no prompt.

    Args:
        image_encoder: `SamEncoder`.
        prompt_encoder: segment-anything's; only its positions and "no mask" embedding are used.
        mask_decoder: segment-anything's with one mask token per class and the background.

    Reference:
        Zhang and Liu, Customized Segment Anything Model for Medical Image Segmentation (SAMed), 2023.
    """

    def __init__(self, *, image_encoder: SamEncoder, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder

    @property
    def image_size(self) -> int:
        """Pixels along each side of an image."""
        return self.image_encoder.image_size

    @property
    def classes(self) -> int:
        """Masks, the background included (K+1)."""
        return int(self.mask_decoder.num_mask_tokens)

    def encode(self, image: Tensor, step: Step | None = None) -> SamFeatures:
        """Features of [B, 3, S, S]; `step` runs block `i` in the place of the encoder."""
        features: SamFeatures = self.image_encoder(image, step)
        return features

    def decode(self, features: SamFeatures) -> SamLogits:
        """Logits at a quarter of the image's size."""
        embedding = features.embedding
        sparse, dense = self.prompt_encoder(None, None, None)
        masks, _ = self.mask_decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        return SamLogits(masks)

    def logits(self, out: SamLogits) -> Tensor:
        """The answer [B, K+1, S, S]: coarse logits, bilinearly enlarged."""
        size = (self.image_size, self.image_size)
        return F.interpolate(out.coarse, size=size, mode="bilinear", align_corners=False)

    def forward(self, image: Tensor) -> SamLogits:
        """Logits of an image [B, 3, S, S]."""
        return self.decode(self.encode(image))


def sam_encoder(
    variant: str = "vit_b", *, image_size: int = 224, seed: int | None = None, checkpointing: bool = False
) -> SamEncoder:
    """One of SAM's image encoders with random weights.

    Args:
        variant: `vit_b`, `vit_l`, `vit_h`; ours: `small` for a CPU and `tiny` for tests.
        image_size: pixels, a multiple of 16.
        seed: draws the same weights wherever it is the same; torch's own generator is left as it was.
        checkpointing: less memory in training, see `SamEncoder`.

    Raises:
        ConfigError: for an unknown variant or an impossible size.
    """
    if variant not in VARIANTS:
        raise ConfigError("unknown SAM", where="variant", got=variant, expected=", ".join(VARIANTS))
    own = VARIANTS[variant]
    size = require_image_size(image_size)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        vit = ImageEncoderViT(
            img_size=size,
            embed_dim=own["embed"],
            depth=own["depth"],
            num_heads=own["heads"],
            out_chans=own.get("width", EMBED),
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=own.get("window", 14),
            global_attn_indexes=own["global_blocks"],
        )
        nn.init.trunc_normal_(vit.pos_embed, std=0.02)  # zero in the library, which counts on a checkpoint
    return SamEncoder(encoder=vit, checkpointing=checkpointing)


def sam_decoder(
    variant: str = "vit_b", *, image_size: int = 224, classes: int = 9, seed: int | None = None
) -> tuple[PromptEncoder, MaskDecoder]:
    """SAM's prompt encoder, and its mask decoder with one mask token per class, with random weights.

    Args:
        variant: as in :func:`sam_encoder`.
        image_size: pixels, a multiple of 16.
        classes: masks, the background included (K+1), at least 2.
        seed: of the weights, as in :func:`sam_network`.

    Raises:
        ConfigError: for an unknown variant, an impossible size or fewer than two classes.
    """
    if classes < 2:
        raise ConfigError("segmentation needs a background and a structure", where="classes", got=classes, expected=2)
    if variant not in VARIANTS:
        raise ConfigError("unknown SAM", where="variant", got=variant, expected=", ".join(VARIANTS))
    width, hidden = VARIANTS[variant].get("width", EMBED), VARIANTS[variant].get("hidden", 2048)
    grid = (require_image_size(image_size) // _PATCH,) * 2
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed + 1)
        prompts = PromptEncoder(
            embed_dim=width, image_embedding_size=grid, input_image_size=(image_size, image_size), mask_in_chans=16
        )
        decoder = MaskDecoder(
            num_multimask_outputs=classes - 1,
            transformer=TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=hidden, num_heads=8),
            transformer_dim=width,
            iou_head_hidden_dim=EMBED if width == EMBED else hidden,
        )
    return prompts, decoder


def sam_network(
    variant: str = "vit_b",
    *,
    image_size: int = 224,
    classes: int = 9,
    weights: str | Path | None = None,
    interpolation: str = "bilinear",
    seed: int | None = None,
    checkpointing: bool = False,
) -> Sam:
    """SAM with one mask token per class, from a public checkpoint or with random weights.

    Args:
        variant: as in :func:`sam_encoder`.
        image_size: pixels, a multiple of 16.
        classes: masks, the background included (K+1), at least 2.
        weights: SAM's or MedSAM's file, see `load_sam`; None keeps random weights.
        interpolation: how its position tables are resized.
        seed: of the random weights; the encoder's depend on it, the variant and the size alone.
        checkpointing: less memory in training, see `SamEncoder`.

    Raises:
        ConfigError: for an unknown variant, an impossible size or fewer than two classes.
        WeightError: when the file does not fit.
    """
    encoder = sam_encoder(variant, image_size=image_size, seed=seed, checkpointing=checkpointing)
    prompts, decoder = sam_decoder(variant, image_size=image_size, classes=classes, seed=seed)
    network = Sam(image_encoder=encoder, prompt_encoder=prompts, mask_decoder=decoder)
    if weights is not None:
        load_sam(network, weights, interpolation=interpolation)
    return network
