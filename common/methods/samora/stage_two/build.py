"""A SAMora from plain values, as a configuration or a trained model's card gives them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ....backbones.hsam.decoder import NOISE_LEVELS
from ....backbones.hsam.network import HSam, hsam_network
from ....backbones.sam.network import Sam, sam_network

# isort: split
from ....backbones.sam2.network import Sam2, sam2_network
from ....errors import ConfigError
from ....layers.fusion.fusers import GatedSum, WeightedSum
from ....layers.fusion.hl_attention import LEVELS, HLAttention
from ....layers.lora.experts import add_experts
from .network import SAMora
from .start import load_base

__all__ = ["BASES", "FUSERS", "base_network", "block_widths", "samora_network", "trained_network"]

BASES = ("sam", "hsam", "sam2")
FUSERS = ("hl_attn", "lac", "mole", "lorahub", "single", "none")


def base_network(
    base: str = "sam", variant: str | None = None, *, image_size: int = 224, classes: int, seed: int | None = 0,
    weights: str | Path | None = None, interpolation: str = "bilinear", stage: int = 3,
    decoder_grid: int | None = None, selection: str = "positions", class_noise: Sequence[float] = NOISE_LEVELS,
    similarity_dropout: float = 0.1,
) -> Sam | HSam | Sam2:  # fmt: skip
    """SAM, H-SAM or SAM2 for slices, from a public file or with random weights that depend on the seed alone.

    Args:
        base: ``sam``, ``hsam`` or ``sam2``.
        variant: its size; None is ``vit_b``, of SAM2 ``hiera_b+``.
        image_size: pixels along each side.
        classes: K+1.
        seed: of the random weights; experts belong to one base, so both stages need the same.
        weights: public file of SAM, MedSAM, H-SAM or SAM2.
        interpolation: how SAM's positions are resized, ``bilinear`` or ``bicubic``.
        stage: of H-SAM: 3 answers with both decoders, 2 with the second one.
        decoder_grid: ``grid`` of :func:`~common.backbones.hsam.network.hsam_network`.
        selection: of H-SAM, see there; its public weights need ``released``.
        class_noise: ``noise`` of H-SAM, see there.
        similarity_dropout: of H-SAM, see there.

    Raises:
        ConfigError: for an unknown base or variant, or an impossible size.
        WeightError: for weights that do not fit.
    """
    if base not in BASES:
        raise ConfigError("unknown base", where="base", got=base, expected=", ".join(BASES))
    sizes: dict[str, Any] = {"image_size": image_size, "classes": classes, "seed": seed}
    network: Sam | HSam | Sam2
    if base == "sam2":
        network = sam2_network(variant or "hiera_b+", **sizes)
    elif base == "hsam":
        network = hsam_network(
            variant or "vit_b", **sizes, stage=stage, grid=decoder_grid, selection=selection, noise=class_noise,
            similarity_dropout=similarity_dropout,
        )  # fmt: skip
    else:
        network = sam_network(variant or "vit_b", **sizes)
    if weights is not None:
        load_base(network, weights, interpolation=interpolation)
    return network


def block_widths(encoder: nn.Module) -> list[int]:
    """Channels of each block's output."""
    blocks: Any = encoder.blocks
    return [int(block.attn.proj.out_features) for block in blocks]


def samora_network(
    *,
    base: str = "sam",
    variant: str | None = None,
    image_size: int = 224,
    classes: int,
    base_seed: int | None = 0,
    base_weights: str | Path | None = None,
    interpolation: str = "bilinear",
    stage: int = 3,
    decoder_grid: int | None = None,
    selection: str = "positions",
    class_noise: Sequence[float] = NOISE_LEVELS,
    similarity_dropout: float = 0.1,
    levels: Sequence[str] = LEVELS,
    rank: int = 4,
    lora: str = "qv",
    fuser: str = "hl_attn",
    order: str = "2-1-1",
    query_rule: str = "level",
    expert_signal: str = "block_residual",
    d_attn: int = 128,
    heads: int = 8,
    window: str = "block",
    residual: str = "queries",
    self_attention: bool = False,
    temperature: float = 1.0,
    lac: str = "weights",
    lac_weights: Sequence[float] | None = None,
    train_experts: bool = False,
    train_prompt_encoder: bool = False,
    checkpointing: bool = False,
    cache_gb: float = 0.0,
) -> SAMora:
    """Compose base, experts and fusers.

    Args:
        base: see :func:`base_network`.
        variant: see :func:`base_network`.
        image_size: pixels along each side.
        classes: K+1.
        base_seed: see :func:`base_network`.
        base_weights: see :func:`base_network`.
        interpolation: see :func:`base_network`.
        stage: see :func:`base_network`.
        decoder_grid: see :func:`base_network`.
        selection: see :func:`base_network`.
        class_noise: see :func:`base_network`.
        similarity_dropout: see :func:`base_network`.
        levels: which experts there are.
        rank: of their matrices.
        lora: ``qv``: experts of queries and values; ``fused``: of the fused projection, as PEFT alone would.
        fuser: ``hl_attn``; ``lac``: fixed weights; ``mole``: a gate per image; ``lorahub``: weights that a search
            finds; ``single``: the only expert; ``none``: SAM without experts.
        order: of HL-Attn.
        query_rule: of HL-Attn.
        expert_signal: see :class:`SAMora`.
        d_attn: width of HL-Attn.
        heads: of HL-Attn.
        window: see :class:`SAMora`.
        residual: of HL-Attn's last step.
        self_attention: of HL-Attn.
        temperature: of the gate.
        lac: what fixed weights weigh: ``weights`` (of the adapters; one branch) or ``outputs`` (the signals).
        lac_weights: one per level; a third each when None.
        train_experts: see :class:`SAMora`.
        train_prompt_encoder: see :class:`SAMora`.
        checkpointing: see :class:`SAMora`.
        cache_gb: see :class:`SAMora`.

    Raises:
        ConfigError: for an unknown or impossible choice.
    """
    _check_choice(fuser, lac, levels)
    network = base_network(base, variant, image_size=image_size, classes=classes, seed=base_seed, stage=stage,
                           weights=base_weights, interpolation=interpolation, decoder_grid=decoder_grid,
                           selection=selection, class_noise=class_noise,
                           similarity_dropout=similarity_dropout)  # fmt: skip
    ordered = [level for level in LEVELS if level in levels]
    if ordered:
        add_experts(network.image_encoder, ordered, rank=rank, target=lora)
    fusers: list[nn.Module] | None = None
    widths = block_widths(network.image_encoder)
    if fuser == "hl_attn":
        options: dict[str, Any] = {"order": order, "query_rule": query_rule, "d_attn": d_attn, "heads": heads,
                                   "residual": residual, "self_attention": self_attention}  # fmt: skip
        fusers = [HLAttention(channels=c, levels=ordered, **options) for c in widths]
    elif fuser == "mole":
        fusers = [GatedSum(channels=c, experts=len(ordered), temperature=temperature) for c in widths]
    elif fuser == "lac" and lac == "outputs":
        fusers = [WeightedSum(experts=len(ordered), weights=lac_weights) for _ in widths]
    weights = {"lac": lac_weights, "lorahub": [0.0] * len(ordered)}.get(fuser)
    return SAMora(
        base=network, levels=ordered, fusers=fusers, expert_signal=expert_signal, window=window,
        mix="separate" if fuser == "lorahub" else "product", weights=weights, train_experts=train_experts,
        train_prompt_encoder=train_prompt_encoder, checkpointing=checkpointing, cache_gb=cache_gb,
    )  # fmt: skip


def trained_network(settings: Mapping[str, Any], classes: int) -> SAMora:
    """The network of a trained model, without weights.

    Args:
        settings: arguments of :func:`samora_network`, as the model's card has them.
        classes: K+1.

    Raises:
        ConfigError: for settings that no such network has.
    """
    unknown = sorted(set(settings) - set(inspect.signature(samora_network).parameters))
    if unknown:
        hint = "was it trained by a newer version?"
        raise ConfigError("the model's card has settings that no SAMora has", where="network", got=unknown, hint=hint)
    return samora_network(**settings, classes=classes)


def _check_choice(fuser: str, lac: str, levels: Sequence[str]) -> None:
    if fuser not in FUSERS:
        raise ConfigError("unknown fuser", where="fuser", got=fuser, expected=", ".join(FUSERS))
    if lac not in ("weights", "outputs"):
        raise ConfigError("unknown kind of fixed weights", where="lac", got=lac, expected="weights or outputs")
    if len(set(levels)) != len(levels) or not set(levels) <= set(LEVELS):
        raise ConfigError("unknown or repeated levels", where="levels", got=list(levels), expected=", ".join(LEVELS))
    counts = {"none": (0, 0), "single": (1, 1)}.get(fuser, (2, len(LEVELS)))
    if not counts[0] <= len(levels) <= counts[1]:
        where = "levels"
        expected = f"{counts[0]} .. {counts[1]} for fuser={fuser!r}"
        raise ConfigError("this fuser needs another number of levels", where=where, got=list(levels), expected=expected)
