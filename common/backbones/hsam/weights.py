"""Public checkpoints for H-SAM: SAM's and MedSAM's, and H-SAM's own file of LoRA matrices and decoders."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...errors import WeightError
from ...weights import Coverage, load_weights
from ..sam.network import Sam
from ..sam.weights import load_sam, read_sam
from .network import HSam

__all__ = ["load_hsam"]

logger = logging.getLogger(__name__)

FINE = "mask_decoder2."
_TWIN = "prompt_encoder2."  # the released network registers its one prompt encoder twice
_PER_CLASS = ("mask_tokens.", "output_hypernetworks_mlps2.", "iou_prediction_head.", "med_sel.")
# norms of the released guided attention that its forward pass never calls
_UNUSED = tuple(f"cross_attn_{a}.norm{i}." for a in ("token_to_image", "image_to_token") for i in (1, 2, 3))


def load_hsam(
    network: HSam, source: str | Path | Mapping[str, Tensor], *, interpolation: str = "bilinear", level: str = "samed"
) -> Coverage:
    """Fill H-SAM from a public checkpoint; nothing is changed when it is refused.

    SAM's and MedSAM's 314 tensors fill everything but the second decoder, which keeps its values, as in the released
    code. H-SAM's own file fills both decoders and the prompt encoder; its LoRA matrices (``w_a_000``, ...) become the
    expert `level`, and SAM must have been loaded before. Groups with one member per class keep their values where the
    file has another number of classes.

    Args:
        network: with the ``grid`` that the file's second decoder was trained on (14 at 224 pixels, 32 at 512).
        source: a file or a state dict.
        interpolation: `bilinear` or `bicubic`, of SAM's position tables.
        level: name of the expert that the LoRA matrices become.

    Returns:
        what was loaded.

    Raises:
        WeightError: when anything else does not fit.
        ConfigError: for an unknown interpolation.
    """
    state, where = read_sam(source)
    fine = {n.removeprefix(FINE): state.pop(n) for n in list(state) if n.startswith(FINE)}
    state = {n: t for n, t in state.items() if not n.startswith(_TWIN)}
    decoder = network.mask_decoder2
    before = {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
    second = _load_fine(network, fine, where) if fine else Coverage((), missing=_all_of(before))
    first = Sam(
        image_encoder=network.image_encoder, prompt_encoder=network.prompt_encoder, mask_decoder=network.mask_decoder
    )
    try:
        found = load_sam(first, state, interpolation=interpolation, level=level)
    except Exception:
        with torch.no_grad():
            decoder.load_state_dict(before)
        raise
    return Coverage(
        (*found.matched, *(FINE + n for n in second.matched)),
        missing=(*found.missing, *((FINE + n, shape) for n, shape in second.missing)),
        mismatched=found.mismatched,
    )


def _load_fine(network: HSam, state: dict[str, Tensor], where: str) -> Coverage:
    decoder = network.mask_decoder2
    state = {n: t for n, t in state.items() if not any(part in n for part in _UNUSED)}
    norm = state.get("norm1.weight")
    if norm is not None and norm.shape[0] != decoder.grid**2:
        side = round(norm.shape[0] ** 0.5)
        raise WeightError(
            "the second decoder was trained on another grid of tokens",
            where=where,
            got=f"{side} x {side}",
            expected=f"{decoder.grid} x {decoder.grid}",
            hint=f"build the network with grid={side}; it runs at any image size",
        )
    tokens = state.get("mask_tokens.weight")
    allowed: tuple[str, ...] = ()
    if tokens is not None and tokens.shape[0] != network.classes:
        state = {n: t for n, t in state.items() if not n.startswith(_PER_CLASS)}
        allowed = tuple(group + "*" for group in _PER_CLASS)
    if decoder.selection != "released":
        logger.warning(
            "%s: trained where the selection of positions is 1 everywhere; selection='released' reproduces it, "
            "with selection=%r its untrained weights take part",
            where,
            decoder.selection,
        )
    return load_weights(decoder, state, where=where, allow_missing=allowed)


def _all_of(state: Mapping[str, Tensor]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, tuple(tensor.shape)) for name, tensor in state.items())
