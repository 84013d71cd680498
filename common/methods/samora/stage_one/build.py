"""The networks of SAMora's first stage from plain values, as a configuration or a trained model's card gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ....backbones.mae import MAE, load_mae, mae_encoder
from ....backbones.skresnet import ContrastiveHead, SKResNet, load_simclr
from ....errors import ConfigError
from ....layers.lora.experts import LEVELS, add_experts
from ....layers.pixel_decoder import PixelDecoder
from ..base import frozen_encoder
from .expert import ExpertNetwork
from .students import Denoising, ImageDistillation, Masking, PatchDistillation, Views, patch_embed
from .teachers import ContrastiveTeacher, ImageTeacher, MaskedTeacher, PatchTeacher

__all__ = ["STAGE_ONE_LEVELS", "StageOne", "stage_one_network"]

TEACHERS = ("teacher_image", "teacher_patch")
STAGE_ONE_LEVELS = (*LEVELS, *TEACHERS)
SSL = ("scratch", "ts", "ts_cpt")


@dataclass(frozen=True, kw_only=True)
class StageOne:
    """Everything that decides what a run of the first stage builds.

    Args:
        level: ``image``, ``patch``, ``pixel``: an expert; ``teacher_image``, ``teacher_patch``: a teacher, trained on.
        ssl: ``scratch``: no teacher; ``ts``: its public weights; ``ts_cpt``: trained on here before.
        base: ``sam`` (also H-SAM's encoder) or ``sam2``.
        variant: size of the base.
        base_seed: of its random weights, where it has no others.
        image_size: pixels along each side.
        image_channels: of the images, 1 or 3.
        rank: of the expert's matrices.
        lora: ``qv`` or ``fused``.
        teacher: its sizes and origin, from ``samora_teacher_file.teacher_of``; empty without one.
        image_target: ``pooled`` or ``dense``.
        image_features: ``tokens`` or ``neck``.
        projector: width of the image level's projector.
        mask_student: share of the patches hidden from the patch level's student.
        mask_loss: ``all`` or ``hidden``.
        mask_ratio: of masked autoencoding.
        mask_decoder: width, depth and heads of the light decoder.
        noise_sigma: range of noise levels.
        noise_blur: probability of a blur.
        pixel_loss: ``mse`` or ``dice_mse``.

    Raises:
        ConfigError: for an impossible or contradictory choice.
    """

    level: str
    ssl: str = "scratch"
    base: str = "sam"
    variant: str | None = None
    base_seed: int = 0
    image_size: int = 224
    image_channels: int = 1
    rank: int = 4
    lora: str = "qv"
    teacher: Mapping[str, Any] = field(default_factory=dict)
    image_target: str = "pooled"
    image_features: str = "tokens"
    projector: int = 1024
    mask_student: float = 0.0
    mask_loss: str = "all"
    mask_ratio: float = 0.75
    mask_decoder: Sequence[int] = (256, 2, 8)
    noise_sigma: Sequence[float] = (0.0, 0.1)
    noise_blur: float = 0.0
    pixel_loss: str = "mse"

    def __post_init__(self) -> None:
        _one_of("level", self.level, STAGE_ONE_LEVELS)
        _one_of("ssl", self.ssl, SSL)
        _one_of("image_target", self.image_target, ("pooled", "dense"))
        if self.image_channels not in (1, 3):
            raise ConfigError("images have one channel or three", where="image_channels", got=self.image_channels)
        if not self.taught and self.ssl != "scratch":
            raise ConfigError(f"the level {self.level} has no teacher", where="ssl", got=self.ssl, expected="scratch")
        if self.taught and self.ssl != "scratch" and not self.teacher:
            raise ConfigError("a teacher without sizes", where="teacher", got=dict(self.teacher))

    @property
    def taught(self) -> bool:
        """Whether this level may have a teacher."""
        return self.level in ("image", "patch")

    @property
    def contrasts(self) -> bool:
        """Whether samples are compared with each other, so that a batch cannot be computed in parts."""
        return self.level == "teacher_image" or (self.level == "image" and self.ssl == "scratch")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> StageOne:
        """From a card's or configuration's mapping, which may hold other entries too."""
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in settings.items() if k in known})


def _one_of(where: str, got: str, expected: Sequence[str]) -> None:
    if got not in expected:
        raise ConfigError(f"unknown {where}", where=where, got=got, expected=", ".join(expected))


def stage_one_network(
    settings: Mapping[str, Any],
    *,
    base_weights: str | Path | None = None,
    teacher_weights: str | Path | None = None,
    interpolation: str = "bilinear",
    checkpointing: bool = False,
    micro_batch: int | None = None,
    views: int | None = None,
    inference: bool = False,
    seed: int = 0,
) -> Any:
    """An expert with its objective, or a teacher that is trained on.

    Args:
        settings: of :class:`StageOne`.
        base_weights: public file of SAM, MedSAM or SAM2.
        teacher_weights: of the teacher; for a teacher's own training where it starts from, None for random ones.
        interpolation: how SAM's positions are resized.
        checkpointing: less memory in training.
        micro_batch: of the training, to refuse what cannot be computed in parts.
        views: of the training, likewise.
        inference: without a teacher where its weights are not given.
        seed: of what is trained.

    Raises:
        ConfigError: for an impossible or contradictory choice.
        WeightError: for weights that do not fit.
    """
    own = StageOne.of(settings)
    if own.contrasts and micro_batch is not None:
        problem = "samples of a batch are compared with each other, so it cannot be computed in parts"
        raise ConfigError(problem, where="micro_batch", got=micro_batch, expected=None, hint="--micro_batch None")
    if own.contrasts and views not in (None, 2):
        raise ConfigError("two views of each image are compared", where="views", got=views, expected=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if own.level in TEACHERS:
            return _teacher_network(own, teacher_weights)
        encoder = frozen_encoder(
            base=own.base, variant=own.variant, image_size=own.image_size, weights=base_weights, seed=own.base_seed,
            interpolation=interpolation, checkpointing=checkpointing,
        )  # fmt: skip
        add_experts(encoder, (own.level,), rank=own.rank, target=own.lora)
        teacher = _teacher(own, teacher_weights, inference)
        return ExpertNetwork(encoder=encoder, level=own.level, objective=_objective(own, encoder, teacher))


def _teacher_network(own: StageOne, weights: str | Path | None) -> nn.Module:
    sizes, size = dict(own.teacher.get("sizes", {})), int(own.teacher.get("size", 224))
    if own.level == "teacher_image":
        head = sizes.pop("head", {})
        resnet = SKResNet(**sizes)
        contrast = ContrastiveHead(inputs=resnet.channels[3], **head)
        if weights is not None:
            load_simclr(resnet, weights, contrast)
        return ContrastiveTeacher(resnet=resnet, head=contrast, size=size)
    network = MAE(image_size=size, mask_ratio=own.mask_ratio, **sizes)
    if weights is not None:
        load_mae(network, weights)
    return MaskedTeacher(network=network, size=size)


def _teacher(own: StageOne, weights: str | Path | None, inference: bool) -> nn.Module | None:
    if own.ssl == "scratch" or (inference and weights is None):
        return None
    if weights is None:
        raise ConfigError(
            "a teacher without weights teaches nothing", where="teacher_weights", got=None, expected="a file of weights"
        )
    sizes, size = dict(own.teacher["sizes"]), int(own.teacher["size"])
    if own.level == "image":
        resnet = SKResNet(**{k: v for k, v in sizes.items() if k != "head"})
        load_simclr(resnet, weights)
        return ImageTeacher(network=resnet, size=size, dense=own.image_target == "dense")
    encoder = mae_encoder(image_size=size, **{k: v for k, v in sizes.items() if not k.startswith("decoder_")})
    load_mae(encoder, weights)
    return PatchTeacher(network=encoder, size=size)


def _objective(own: StageOne, encoder: Any, teacher: Any) -> nn.Module:
    tokens, first = int(encoder.embed_dim), int(patch_embed(encoder).proj.out_channels)
    if own.level == "pixel":
        return _denoising(own, encoder)
    if own.level == "patch":
        if own.ssl == "scratch":
            width, depth, heads = own.mask_decoder
            return Masking(channels=tokens, image_channels=own.image_channels, patch=int(encoder.patch_size),
                           ratio=own.mask_ratio, mask_width=first, width=width, depth=depth, heads=heads)  # fmt: skip
        return PatchDistillation(channels=tokens, width=_told(own), teacher=teacher, mask=own.mask_student,
                                 mask_width=first, mask_loss=own.mask_loss)  # fmt: skip
    pooled: dict[str, Any] = {"features": own.image_features, "hidden": own.projector}
    channels = tokens if own.image_features == "tokens" else _neck(encoder)
    if own.ssl == "scratch":
        return Views(channels=channels, **pooled)
    dense = own.image_target == "dense"
    return ImageDistillation(channels=channels, width=_told(own), teacher=teacher, dense=dense, **pooled)


def _told(own: StageOne) -> int:
    """Width of what the teacher says."""
    sizes = own.teacher["sizes"]
    if own.level == "patch":
        return int(sizes.get("width", 1024))
    base = round(64 * float(sizes.get("width", 2.0)))
    return 4 * (base << (2 if own.image_target == "dense" else 3))


def _neck(encoder: Any) -> int:
    if hasattr(encoder, "trunk"):
        return int(encoder.neck.d_model)
    return int(encoder.neck[0].out_channels)


def _denoising(own: StageOne, encoder: Any) -> Denoising:
    depth = len(encoder.blocks)
    blocks = [max(depth * quarter // 4 - 1, 0) for quarter in (1, 2, 3)]  # 2, 5 and 8 of ViT-B
    skips = [int(encoder.blocks[i].attn.proj.out_features) for i in blocks]
    decoder = PixelDecoder(embed=_neck(encoder), skips=skips, channels=own.image_channels)
    return Denoising(
        decoder=decoder, blocks=blocks, sigma=own.noise_sigma, blur=own.noise_blur, sigmoid=own.pixel_loss == "dice_mse"
    )
