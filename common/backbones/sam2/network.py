"""SAM2 as a prompt-free network for slices: its image path only, one mask token per class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError
from ..sam.encoder import Step
from ..sam.network import SamLogits
from ..sam.prompt import EMBED
from .hiera import Sam2Encoder, Sam2Features

__all__ = ["INSTALL", "SAM2_VARIANTS", "Sam2", "require_sam2", "sam2_encoder", "sam2_network"]

INSTALL = (
    "python -m pip install wheel==0.45.1; SAM2_BUILD_CUDA=0 python -m pip install --no-build-isolation sam2==1.1.0"
)

# `grid`: side of the learnt background positions
SAM2_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "hiera_t": {
        "embed": 96, "heads": 1, "stages": (1, 2, 7, 2), "global_blocks": (5, 7, 9), "grid": 7,
        "windows": (8, 4, 14, 7),
    },
    "hiera_s": {
        "embed": 96, "heads": 1, "stages": (1, 2, 11, 2), "global_blocks": (7, 10, 13), "grid": 7,
        "windows": (8, 4, 14, 7),
    },
    "hiera_b+": {
        "embed": 112, "heads": 2, "stages": (2, 3, 16, 3), "global_blocks": (12, 16, 20), "grid": 14,
        "windows": (8, 4, 14, 7),
    },
    "hiera_l": {
        "embed": 144, "heads": 2, "stages": (2, 6, 36, 4), "global_blocks": (23, 33, 43), "grid": 7,
        "windows": (8, 4, 16, 8),
    },
    # windows of 6 and 3 leave a remainder at 64, 128 and 224 pixels
    "tiny": {
        "embed": 16, "heads": 1, "stages": (1, 1, 3, 1), "global_blocks": (3,), "grid": 7,
        "windows": (8, 4, 6, 3), "width": 32, "hidden": 64,
    },
}  # fmt: skip


class Sam2(nn.Module):
    """SAM2 without prompts and memory: an image in, one mask per class out.

    State-dict keys are those of SAM2's image path (``image_encoder``, ``sam_prompt_encoder``, ``sam_mask_decoder``,
    ``no_mem_embed``).

    Args:
        image_encoder: Hiera with its neck.
        prompt_encoder: SAM2's ``PromptEncoder``; only its positions and its "no mask" are used.
        mask_decoder: SAM2's ``MaskDecoder`` with K+1 mask tokens and high-resolution features.

    Reference:
        Ravi et al., SAM 2, 2024. The heads that score masks and objects are kept for the sake of the keys, unused
        and frozen.
    """

    def __init__(self, *, image_encoder: Sam2Encoder, prompt_encoder: nn.Module, mask_decoder: Any) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.sam_prompt_encoder: Any = prompt_encoder
        self.sam_mask_decoder = mask_decoder
        self.no_mem_embed = nn.Parameter(torch.empty(1, 1, mask_decoder.transformer_dim))
        nn.init.trunc_normal_(self.no_mem_embed, std=0.02)
        mask_decoder.iou_prediction_head.requires_grad_(False)
        if mask_decoder.pred_obj_scores:
            mask_decoder.pred_obj_score_head.requires_grad_(False)

    @property
    def image_size(self) -> int:
        """Pixels along each side of an image."""
        return self.image_encoder.image_size

    @property
    def classes(self) -> int:
        """Masks, the background included (K+1)."""
        return int(self.sam_mask_decoder.num_mask_tokens)

    @property
    def prompt_encoder(self) -> Any:
        """The prompt encoder, under the name that it has in SAM."""
        return self.sam_prompt_encoder

    @property
    def mask_decoder(self) -> Any:
        """The mask decoder, under the name that it has in SAM."""
        return self.sam_mask_decoder

    def encode(self, image: Tensor, step: Step | None = None) -> Sam2Features:
        """Features of an image [B,3,S,S]; `step` runs a block in place of the encoder."""
        features: Sam2Features = self.image_encoder(image, step)
        return features

    def decode(self, features: Sam2Features) -> SamLogits:
        """Coarse logits [B,K+1,S/4,S/4] of the encoder's features."""
        decoder = self.sam_mask_decoder
        batch = features.embedding.shape[0]
        sparse, dense = self.sam_prompt_encoder(points=None, boxes=None, masks=None)
        s0, s1 = features.fine
        logits = decoder.predict_masks(
            image_embeddings=features.embedding + self.no_mem_embed.view(1, -1, 1, 1),
            image_pe=self.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse.expand(batch, -1, -1),
            dense_prompt_embeddings=dense,
            repeat_image=False,
            high_res_features=[decoder.conv_s0(s0), decoder.conv_s1(s1)],
        )[0]
        return SamLogits(logits, None)

    def logits(self, out: SamLogits) -> Tensor:
        """The answer [B,K+1,S,S]: coarse logits, brought to the image's size (bilinear)."""
        size = (self.image_size, self.image_size)
        return F.interpolate(out.coarse, size=size, mode="bilinear", align_corners=False)

    def forward(self, image: Tensor) -> SamLogits:
        """Logits of an image [B,3,S,S]."""
        return self.decode(self.encode(image))


def sam2_encoder(
    variant: str = "hiera_b+", *, image_size: int = 224, seed: int | None = None, checkpointing: bool = False
) -> Sam2Encoder:
    """One of SAM2's image encoders with random weights.

    Args:
        variant: ``hiera_t``, ``hiera_s``, ``hiera_b+``, ``hiera_l`` (of SAM 2 and 2.1), or ``tiny`` for tests.
        image_size: pixels, a multiple of 32.
        seed: draws the same weights wherever it is the same; torch's own generator is left as it was.
        checkpointing: less memory in training, see :class:`Sam2Encoder`.

    Raises:
        ConfigError: for an unknown variant, an impossible size, or when the package ``sam2`` is missing.
    """
    if variant not in SAM2_VARIANTS:
        raise ConfigError("unknown SAM2", where="variant", got=variant, expected=", ".join(SAM2_VARIANTS))
    require_sam2()
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck

    own = SAM2_VARIANTS[variant]
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        trunk = Hiera(
            embed_dim=own["embed"],
            num_heads=own["heads"],
            stages=own["stages"],
            global_att_blocks=own["global_blocks"],
            window_pos_embed_bkg_spatial_size=(own["grid"], own["grid"]),
            window_spec=own["windows"],
        )
        for positions in (trunk.pos_embed, trunk.pos_embed_window):  # zero in the library
            nn.init.trunc_normal_(positions, std=0.02)
        neck = FpnNeck(
            position_encoding=nn.Identity(),  # its sines serve the memory only
            d_model=own.get("width", EMBED),
            backbone_channel_list=trunk.channel_list,
            fpn_top_down_levels=[2, 3],
            fpn_interp_model="nearest",
        )
    return Sam2Encoder(trunk=trunk, neck=neck, image_size=image_size, checkpointing=checkpointing)


def sam2_network(
    variant: str = "hiera_b+",
    *,
    image_size: int = 224,
    classes: int = 9,
    seed: int | None = None,
    checkpointing: bool = False,
) -> Sam2:
    """SAM2's image path with random weights and one mask token per class; `load_sam2` fills it.

    Args:
        variant: as in :func:`sam2_encoder`.
        image_size: pixels, a multiple of 32.
        classes: masks, the background included (K+1), at least 2.
        seed: of the random weights; the encoder's depend on it and the variant alone.
        checkpointing: less memory in training, see :class:`Sam2Encoder`.

    Raises:
        ConfigError: for an unknown variant, an impossible size, fewer than two classes, or without ``sam2``.
    """
    if classes < 2:
        raise ConfigError("segmentation needs a background and a structure", where="classes", got=classes, expected=2)
    encoder = sam2_encoder(variant, image_size=image_size, seed=seed, checkpointing=checkpointing)
    from sam2.modeling.sam.mask_decoder import MaskDecoder
    from sam2.modeling.sam.prompt_encoder import PromptEncoder
    from sam2.modeling.sam.transformer import TwoWayTransformer

    width, hidden = SAM2_VARIANTS[variant].get("width", EMBED), SAM2_VARIANTS[variant].get("hidden", 2048)
    grid = (image_size // encoder.patch_size,) * 2
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed + 1)
        prompts = PromptEncoder(
            embed_dim=width, image_embedding_size=grid, input_image_size=(image_size, image_size), mask_in_chans=16
        )
        decoder = MaskDecoder(
            transformer_dim=width,
            transformer=TwoWayTransformer(depth=2, embedding_dim=width, num_heads=8, mlp_dim=hidden),
            num_multimask_outputs=classes - 1,
            iou_head_hidden_dim=EMBED if width == EMBED else hidden,
            use_high_res_features=True,
            iou_prediction_use_sigmoid=True,
            pred_obj_scores=True,
            pred_obj_scores_mlp=True,
        )
        return Sam2(image_encoder=encoder, prompt_encoder=prompts, mask_decoder=decoder)


def require_sam2() -> None:
    """Make sure that Meta's package can be imported.

    Raises:
        ConfigError: when it cannot, with the command that installs it.
    """
    try:
        import sam2.modeling  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "SAM2 needs the package sam2, which cannot be imported", where="SAM2", got=error, hint=INSTALL
        ) from error
