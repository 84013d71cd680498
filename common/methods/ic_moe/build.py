"""An IC-MoE from plain values, as a configuration or a trained model's card gives them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...backbones.sam.encoder import SamEncoder
from ...backbones.sam.head import SamHead
from ...backbones.sam.network import Sam, sam_decoder, sam_encoder
from ...backbones.sam.weights import load_sam
from ...errors import ConfigError
from ...labels import LabelSpace
from ...layers.fusion.voting import PixelVoting
from .encoders import EXPERTS, SAMED, ExpertEncoders
from .network import ContrastMaps, ICMoE, needed

__all__ = ["ic_moe_network", "trained_network"]


def ic_moe_network(
    *,
    labels: LabelSpace,
    variant: str = "vit_b",
    image_size: int = 256,
    sam_weights: str | Path | None = None,
    interpolation: str = "bilinear",
    base_seed: int | None = 0,
    answer: str = "vote",
    score: str = "similarity",
    n_threshold: int | None = None,
    balance: str = "train",
    fusion_alpha: float = 0.5,
    candidate_mean: str = "mean",
    semantic_blocks: int = 2,
    adapter_ratio: float = 0.25,
    adapter_init: str = "zero",
    lora_rank: int = 4,
    sgcl: float = 0.1,
    contrast_features: str = "embedding",
    fgbg_grad: bool = False,
    normalise: str = "imagenet",
    checkpointing: bool = False,
    cache_gb: float = 0.0,
) -> ICMoE:
    """Compose encoders, decoders, vote and contrast.

    Args:
        labels: structures that exclude each other.
        variant: of SAM: ``vit_b``, ``vit_l``, ``vit_h``; ours: ``small`` for a CPU, ``tiny`` for tests.
        image_size: pixels along each side, a multiple of 16.
        sam_weights: public file of SAM or MedSAM for all three experts; None: random weights.
        interpolation: how its position tables are resized, ``bilinear`` or ``bicubic``.
        base_seed: of random weights.
        answer: see :class:`ICMoE`.
        score: see :class:`~common.layers.fusion.voting.PixelVoting`.
        n_threshold: see there.
        balance: see there.
        fusion_alpha: see :class:`ICMoE`.
        candidate_mean: see :class:`ICMoE`.
        semantic_blocks: see :class:`ExpertEncoders`.
        adapter_ratio: see :class:`ExpertEncoders`.
        adapter_init: see :class:`ExpertEncoders`.
        lora_rank: see :class:`ExpertEncoders`.
        sgcl: weight of SgCL in the loss; 0: no maps are built.
        contrast_features: see :class:`ICMoE`.
        fgbg_grad: see :class:`ICMoE`.
        normalise: see :class:`ICMoE`.
        checkpointing: see :class:`ExpertEncoders`.
        cache_gb: see :class:`ExpertEncoders`.

    Raises:
        ConfigError: for an unknown or impossible choice, or structures that overlap.
        WeightError: for weights that do not fit.
    """
    if not labels.exclusive:
        problem = "the structures of a picture exclude each other here"
        expected = "structures that do not overlap"
        raise ConfigError(problem, where="labels", got=", ".join(labels.names), expected=expected)
    experts = needed(answer)
    encoder = sam_encoder(variant, image_size=image_size, seed=base_seed)
    heads = {}
    starts = {**{expert: number for number, expert in enumerate(EXPERTS)}, SAMED: EXPERTS.index("adaptive")}
    for expert, number in starts.items():  # each decoder has its own start, whichever experts there are
        if expert in experts:
            seed = None if base_seed is None else base_seed + number
            prompts, decoder = sam_decoder(variant, image_size=image_size, classes=labels.num_classes, seed=seed)
            if sam_weights is not None:
                whole = Sam(image_encoder=encoder, prompt_encoder=prompts, mask_decoder=decoder)
                load_sam(whole, sam_weights, interpolation=interpolation)
            heads[expert] = SamHead(prompt_encoder=prompts, mask_decoder=decoder)
    with torch.random.fork_rng(devices=[], enabled=base_seed is not None):
        if base_seed is not None:
            torch.manual_seed(base_seed + len(EXPERTS))
        maps = _maps(encoder, contrast_features) if sgcl else None
        encoders = ExpertEncoders(
            encoder=encoder, experts=experts, semantic_blocks=semantic_blocks, adapter_ratio=adapter_ratio,
            adapter_init=adapter_init, lora_rank=lora_rank, checkpointing=checkpointing, cache_gb=cache_gb,
        )  # fmt: skip
    return ICMoE(
        encoders=encoders, heads=heads, answer=answer, fusion_alpha=fusion_alpha, candidate_mean=candidate_mean,
        voting=PixelVoting(score=score, n_threshold=n_threshold, balance=balance), contrast=maps,
        contrast_features=contrast_features, fgbg_grad=fgbg_grad, normalise=normalise,
    )  # fmt: skip


def trained_network(settings: Mapping[str, Any], labels: LabelSpace) -> ICMoE:
    """The network of a trained model, without weights.

    Args:
        settings: arguments of :func:`ic_moe_network`, as the model's card has them.
        labels: structures of the model.

    Raises:
        ConfigError: for settings that no such network has.
    """
    unknown = sorted(set(settings) - set(inspect.signature(ic_moe_network).parameters))
    if unknown:
        hint = "was it trained by a newer version?"
        raise ConfigError("the model's card has settings that no IC-MoE has", where="network", got=unknown, hint=hint)
    return ic_moe_network(**settings, labels=labels)


def _maps(encoder: SamEncoder, features: str) -> ContrastMaps:
    neck: Any = encoder.neck
    wide, narrow = encoder.embed_dim, int(neck[0].out_channels)
    if features == "tokens":
        return ContrastMaps(channels=wide, width=narrow)
    return ContrastMaps(channels=narrow, width=wide)
