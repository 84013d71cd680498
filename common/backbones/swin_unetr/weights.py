"""MONAI's self-supervised Swin encoder (`model_swinvit.pt`) for Swin UNETR."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ...weights import Coverage, load_weights

__all__ = ["SELF_SUPERVISED_HEADS", "load_swinvit"]

SELF_SUPERVISED_HEADS = (
    "norm.*",
    "rotation_pre.*",
    "rotation_head.*",
    "contrastive_pre.*",
    "contrastive_head.*",
    "conv.*",
    "mask_token",
)


def load_swinvit(encoder: nn.Module, source: Path | str | Mapping[str, Tensor]) -> Coverage:
    """Load a pre-trained encoder; whatever else the network has stays as it is.

    The public file names its tensors `module.layers1.0.blocks.0.mlp.fc1.weight`, MONAI's network calls the same one
    `layers1.0.blocks.0.mlp.linear1.weight`; stripping `module.` and loading leniently loads nothing of the MLPs, or
    nothing at all.

    Args:
        encoder: the `swinViT` of a Swin UNETR with one input channel and `feature_size` 48.
        source: `model_swinvit.pt`, or its names and tensors.

    Returns:
        what was loaded and what was not; unused may only be the heads of the self-supervised tasks.

    Raises:
        WeightError: unless every tensor of the encoder is found with its shape. Only the convolutions of
            SwinUNETR-V2, which the public file does not have, may be missing.
    """
    has_convolutions = any(name.startswith("layers1c.") for name in encoder.state_dict())
    return load_weights(
        encoder,
        source,
        strip=("module.", "swinViT."),
        rename={r"\.mlp\.fc([12])\.": r".mlp.linear\1."},
        allow_missing=("layers?c.*",) if has_convolutions else (),
        allow_unexpected=SELF_SUPERVISED_HEADS,
        where=None if isinstance(source, Path | str) else "load_swinvit",
    )
