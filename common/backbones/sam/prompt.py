"""The prompt encoder of SAM and MedSAM, from the public 314-key checkpoint layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from segment_anything.modeling import PromptEncoder
from torch import Tensor

from ...errors import WeightError
from ...weights import Coverage, load_weights, read_state_dict

__all__ = ["EMBED", "load_prompt_encoder", "prompt_encoder"]

EMBED = 256
PREFIX = "prompt_encoder."


def prompt_encoder(weights: str | Path | None = None) -> PromptEncoder:
    """Build SAM's prompt encoder (256 channels, 1024-pixel frame) and freeze it.

    Args:
        weights: ``sam_vit_b_01ec64.pth``, ``medsam_vit_b.pth`` or a self-trained MedSAM file; None keeps the random
            initial values, which still tell boxes apart.

    Returns:
        The encoder in eval mode without gradients.
    """
    encoder = PromptEncoder(
        embed_dim=EMBED, image_embedding_size=(64, 64), input_image_size=(1024, 1024), mask_in_chans=16
    )
    if weights is not None:
        load_prompt_encoder(encoder, weights)
    encoder.requires_grad_(False)
    return encoder.eval()


def load_prompt_encoder(encoder: PromptEncoder, source: str | Path | Mapping[str, Tensor]) -> Coverage:
    """Fill the encoder from a SAM or MedSAM checkpoint; every one of its tensors must be found.

    Args:
        encoder: SAM's prompt encoder.
        source: file or state dict in the public layout, with or without a ``module.`` prefix.

    Raises:
        WeightError: when the checkpoint has no prompt encoder or misses a part of it.
    """
    state = source if isinstance(source, Mapping) else read_state_dict(Path(source))[0]
    where = "state dict" if isinstance(source, Mapping) else str(source)
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    own = {key.removeprefix(PREFIX): value for key, value in plain.items() if key.startswith(PREFIX)}
    if not own:
        raise WeightError(
            "the checkpoint holds no prompt encoder",
            where=where,
            got=", ".join(list(plain)[:3]) or "no tensors",
            expected="keys that start with prompt_encoder., as in sam_vit_b_01ec64.pth or medsam_vit_b.pth",
        )
    return load_weights(encoder, own, where=where)
