"""SAM-Med3D: an image is encoded once, then every click is answered by a small decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError
from .decoder import MaskDecoder3D, MaskLogits, mask_decoder_3d
from .encoder import Sam3DEncoder
from .prompt import PromptEncoder3D, Prompts
from .weights import load_sam_med3d

__all__ = ["VARIANTS", "Sam3D", "sam3d_network"]

VARIANTS: dict[str, dict[str, Any]] = {
    # the only one with public weights; windows of 14 around a grid of 8
    "vit_b_ori": {
        "image": 128, "patch": 16, "embed": 768, "depth": 12, "heads": 12, "width": 384, "window": 14,
        "global_blocks": (2, 5, 8, 11), "hidden": 2048, "iou_hidden": 256,
    },
    # a laptop trains it; windows are larger than the grid as in the released one
    "small": {
        "image": 64, "patch": 8, "embed": 96, "depth": 4, "heads": 4, "width": 96, "window": 14,
        "global_blocks": (1, 3), "hidden": 256, "iou_hidden": 96,
    },
    # for tests; windows of 3 leave a remainder on a grid of 4
    "tiny": {
        "image": 32, "patch": 8, "embed": 24, "depth": 3, "heads": 2, "width": 48, "window": 3,
        "global_blocks": (2,), "hidden": 2048, "iou_hidden": 32,
    },
}  # fmt: skip


class Sam3D(nn.Module):
    """Promptable segmentation of cubes of voxels: `decode(encode(image), prompts(...))`.

    State-dict keys are the released 324, and `prompt_encoder.box_embeddings.weight` where there are boxes.

    Args:
        image_encoder: `Sam3DEncoder`.
        prompt_encoder: `PromptEncoder3D`.
        mask_decoder: `MaskDecoder3D`; other decoders of the same shape may take its place in :meth:`decode`.

    Reference:
        Wang et al., SAM-Med3D, 2023.
    """

    def __init__(
        self, *, image_encoder: Sam3DEncoder, prompt_encoder: PromptEncoder3D, mask_decoder: MaskDecoder3D
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder

    @property
    def image_size(self) -> int:
        """Voxels along each side of an image."""
        return self.image_encoder.image_size

    @property
    def boxes(self) -> bool:
        """Whether box prompts can be read."""
        return self.prompt_encoder.box_embeddings is not None

    def encode(self, image: Tensor) -> Tensor:
        """Embedding [B, C, g, g, g] of [B, 1, S, S, S]; keep it as long as the image is asked about."""
        embedding: Tensor = self.image_encoder(image)
        return embedding

    def prompts(
        self,
        *,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> Prompts:
        """What the user says, encoded; without anything no token and "no mask", for a batch of 1.

        Args:
            points: voxels [B, N, 3] of the image.
            labels: [B, N]: 1 inside, 0 outside, -1 no point.
            boxes: voxels [B, 2, 3], low corner first; six NaN for no box.
            masks: earlier low-resolution logits [B, 1, s, s, s], s = 4g.

        Raises:
            PromptError: for shapes that do not fit, or boxes that this network cannot read.
        """
        found: Prompts = self.prompt_encoder(points=points, labels=labels, boxes=boxes, masks=masks)
        return found

    def decode(
        self, embedding: Tensor, prompts: Prompts, *, decoder: MaskDecoder3D | None = None, multimask: bool = False
    ) -> MaskLogits:
        """Low-resolution logits of an embedding under prompts.

        Args:
            embedding: [B, C, g, g, g], or [1, C, g, g, g] that all prompts share.
            prompts: from :meth:`prompts`.
            decoder: another decoder than the network's own.
            multimask: three masks for an ambiguous prompt instead of one.

        Raises:
            PromptError: when the batches do not fit.
        """
        run = self.mask_decoder if decoder is None else decoder
        found: MaskLogits = run(
            embedding, self.prompt_encoder.dense_positions(), prompts.sparse, prompts.dense, multimask=multimask
        )
        return found

    def upsample(self, low_res: Tensor) -> Tensor:
        """Logits [B, M, s, s, s] at the image's size [B, M, S, S, S] (trilinear)."""
        return F.interpolate(low_res, size=(self.image_size,) * 3, mode="trilinear", align_corners=False)

    def forward(self, image: Tensor, points: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """Logits [B, 1, S, S, S] of an image and its first clicks."""
        return self.upsample(self.decode(self.encode(image), self.prompts(points=points, labels=labels)).masks)


def sam3d_network(
    variant: str = "vit_b_ori",
    *,
    image_size: int | None = None,
    rel_pos: str | None = None,
    boxes: bool = False,
    weights: str | Path | None = None,
    seed: int | None = None,
    checkpointing: bool = False,
) -> Sam3D:
    """SAM-Med3D from a public checkpoint or with random weights.

    Args:
        variant: `vit_b_ori` (the released one), `small` for a laptop, `tiny` for tests.
        image_size: voxels, a multiple of the patch size; None takes the variant's (128, 64, 32).
        rel_pos: position bias, `released` or `intended`; None takes what weights need: released with a file,
            intended without.
        boxes: can read boxes, which released weights have to be trained for.
        weights: a file, see `load_sam_med3d`; None keeps random weights.
        seed: of the random weights, the encoder's for themselves; torch's own generator is left as it was.
        checkpointing: less memory in training, see `Sam3DEncoder`.

    Raises:
        ConfigError: for an unknown variant or bias, or an impossible size.
        WeightError: when the file does not fit.
    """
    if variant not in VARIANTS:
        raise ConfigError("unknown SAM-Med3D", where="variant", got=variant, expected=", ".join(VARIANTS))
    own = VARIANTS[variant]
    size = own["image"] if image_size is None else image_size
    if rel_pos is None:
        rel_pos = "intended" if weights is None else "released"
    shape = {name: own[name] for name in ("patch", "embed", "depth", "heads", "width", "window", "global_blocks")}
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        encoder = Sam3DEncoder(image_size=size, rel_pos=rel_pos, checkpointing=checkpointing, **shape)
        if seed is not None:
            torch.manual_seed(seed + 1)
        decoder = mask_decoder_3d(own["width"], hidden=own["hidden"], iou_hidden=own["iou_hidden"])
        prompts = PromptEncoder3D(channels=own["width"], image_size=size, grid=size // encoder.patch_size, boxes=boxes)
        network = Sam3D(image_encoder=encoder, prompt_encoder=prompts, mask_decoder=decoder)
        if weights is not None:
            load_sam_med3d(network, weights)  # may draw embeddings of box corners that the file does not have
    return network
