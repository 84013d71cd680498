"""The frozen encoder that all of SAMora's experts share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ...backbones.sam.network import Sam, sam_network
from ...backbones.sam.weights import load_sam

# isort: split
from ...backbones.sam2.network import Sam2, sam2_network
from ...backbones.sam2.weights import load_sam2
from ...errors import ConfigError
from ...layers.lora.files import base_hash

__all__ = ["CARD", "ENCODERS", "frozen_encoder", "hash_of"]

ENCODERS = ("sam", "sam2")
CARD = "card.json"
# What an expert says of itself; the first stage writes it beside PEFT's files, and the second reads it.
_PUBLIC_TOKENS = 4  # of the published decoders, so that a public file fits as a whole


def frozen_encoder(
    *,
    base: str = "sam",
    variant: str | None = None,
    image_size: int = 224,
    weights: str | Path | None = None,
    seed: int = 0,
    interpolation: str = "bilinear",
    checkpointing: bool = False,
) -> nn.Module:
    """SAM's or SAM2's image encoder, frozen.

    Args:
        base: ``sam`` (H-SAM has the same encoder) or ``sam2``.
        variant: size; None is ``vit_b``, of SAM2 ``hiera_b+``.
        image_size: pixels along each side.
        weights: public file of SAM, MedSAM or SAM2; None: random ones that depend on the seed alone.
        seed: of the random weights.
        interpolation: how SAM's positions are resized.
        checkpointing: less memory in training.

    Raises:
        ConfigError: for an unknown base or variant, or an impossible size.
        WeightError: for weights that do not fit.
    """
    if base not in ENCODERS:
        hint = "H-SAM's encoder is SAM's: --base sam" if base == "hsam" else None
        raise ConfigError("unknown base", where="base", got=base, expected=", ".join(ENCODERS), hint=hint)
    sizes: dict[str, Any] = {"image_size": image_size, "classes": _PUBLIC_TOKENS, "seed": seed}
    network: Sam | Sam2
    if base == "sam":
        network = sam_network(variant or "vit_b", checkpointing=checkpointing, **sizes)
        if weights is not None:
            load_sam(network, weights, interpolation=interpolation)
    else:
        network = sam2_network(variant or "hiera_b+", checkpointing=checkpointing, **sizes)
        if weights is not None:
            load_sam2(network, weights)
    return network.image_encoder.requires_grad_(False).eval()


def hash_of(network: nn.Module) -> str | None:
    """What tells the base of an expert's network apart; None for a network without one (a teacher)."""
    encoder = getattr(network, "encoder", None)
    return None if encoder is None else base_hash(encoder)
