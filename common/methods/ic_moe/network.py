"""IC-MoE: a basic, a semantic and an adaptive SAM expert, of which two may add to the adaptive one's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError, DataError
from ...layers.frozen_features import forget_on_loading
from ...layers.fusion.voting import PixelVoting, Votes
from ...layers.image_channels import repeated
from .encoders import EXPERTS, SAMED, ExpertEncoders

__all__ = ["ANSWERS", "CANDIDATES", "Contrast", "ICMoE", "ICMoEOutputs", "Sizes", "needed", "with_background"]

ANSWERS = ("vote", "mean", *EXPERTS, SAMED)
CANDIDATES = ("basic", "semantic", "mean")
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, also SAM's


class Contrast(NamedTuple):
    """Mapped features of basic, semantic, adaptive and their mean, ``[4, B, N, d]`` each.

    Args:
        foreground: of the images without background.
        background: of the images without foreground.
        pull: of the images.
        push: of the images, by another map.
    """

    foreground: Tensor
    background: Tensor
    pull: Tensor
    push: Tensor


class ICMoEOutputs(NamedTuple):
    """What the network says of a batch.

    Args:
        logits: the answer ``[B, K, S, S]``; the background's logit is 0.
        experts: each expert's own logits ``[E, B, K, S, S]``.
        votes: of the candidates basic, semantic and mean; None without voting.
        contrast: features for SgCL; None without it.
    """

    logits: Tensor
    experts: Tensor
    votes: Votes | None = None
    contrast: Contrast | None = None


class Sizes(NamedTuple):
    """Parameters: as published (three whole networks), of those the trained ones, and what is stored here."""

    published: int
    trained: int
    stored: int


class PictureNorm(nn.Module):
    """``(x - mean) / std`` of each of three channels; no part of a network's state.

    Args:
        mean: per channel.
        std: per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """``[B, 3, X, Y]`` to the same shape."""
        return (image - self.mean) / self.std


class ContrastMaps(nn.Module):
    """The linear maps W1, W2, W3 of SgCL.

    Args:
        channels: of the features.
        width: of what they are mapped to.
    """

    def __init__(self, *, channels: int, width: int) -> None:
        super().__init__()
        self.separate = nn.Linear(channels, width, bias=False)
        self.pull = nn.Linear(channels, width, bias=False)
        self.push = nn.Linear(channels, width, bias=False)

    def forward(self, image: Tensor, foreground: Tensor, background: Tensor) -> Contrast:
        """Map features ``[3, B, N, C]`` of the experts; the mean of what is mapped is the mapped mean."""
        maps = (self.separate, self.separate, self.pull, self.push)
        return Contrast(*(_and_mean(m(x)) for m, x in zip(maps, (foreground, background, image, image), strict=True)))


def _and_mean(features: Tensor) -> Tensor:
    return torch.cat([features, features.mean(0, keepdim=True)])


class ICMoE(nn.Module):
    """``P = P_adaptive + a P_e*`` with ``e*`` of basic, semantic and the mean of all three.

    Args:
        encoders: of the experts that :func:`needed` names for the answer.
        heads: prompt encoder and mask decoder of each expert, by name.
        answer: ``vote``: as above (ECFM); ``mean``: the mean of three; ``basic``, ``semantic``, ``adaptive``: one
            expert alone, the others are not there (``adaptive`` is ECFM switched off); ``samed``: a baseline.
        voting: chooses ``e*`` for each image and class.
        fusion_alpha: a >= 0.
        candidate_mean: ``mean``: ``P_3 = (P_0 + P_1 + P_2) / 3``; ``sum``: without the 3, as Algorithm 1 prints it.
        contrast: the maps of SgCL; None switches it off.
        contrast_features: ``embedding``: what the decoders get; ``tokens``: what comes before the neck.
        fgbg_grad: let SgCL's images without background or foreground reach the experts.
        normalise: ``imagenet``: subtract and divide by its mean and deviation; ``none``.

    Shapes:
        image ``[B, 1 or 3, S, S]``, 0..1 -> :class:`ICMoEOutputs`.

    Raises:
        ConfigError: for an unknown choice, experts that do not fit the answer, or SgCL without three experts.

    Reference:
        IC-MoE, sections 3.2 to 3.4. Several classes are ours: they exclude each other, and each votes on its own.
    """

    def __init__(
        self,
        *,
        encoders: ExpertEncoders,
        heads: Mapping[str, nn.Module],
        answer: str = "vote",
        voting: PixelVoting | None = None,
        fusion_alpha: float = 0.5,
        candidate_mean: str = "mean",
        contrast: ContrastMaps | None = None,
        contrast_features: str = "embedding",
        fgbg_grad: bool = False,
        normalise: str = "imagenet",
    ) -> None:
        super().__init__()
        _check(answer, encoders, heads, contrast)
        for key, value, known in (("candidate_mean", candidate_mean, ("mean", "sum")),
                                  ("contrast_features", contrast_features, ("embedding", "tokens")),
                                  ("normalise", normalise, ("imagenet", "none"))):  # fmt: skip
            if value not in known:
                raise ConfigError(f"unknown {key}", where=key, got=value, expected=", ".join(known))
        if not fusion_alpha >= 0:
            raise ConfigError("a candidate is added", where="fusion_alpha", got=fusion_alpha, expected=">= 0")
        self.answer, self.fusion_alpha, self.candidate_mean = answer, fusion_alpha, candidate_mean
        self.contrast_features, self.fgbg_grad = contrast_features, fgbg_grad
        self.encoders, self.heads = encoders, nn.ModuleDict({e: heads[e] for e in encoders.experts})
        self.voting = voting or PixelVoting()
        self.contrast = contrast
        self.norm = PictureNorm(*((_MEAN, _STD) if normalise == "imagenet" else ((0.0,) * 3, (1.0,) * 3)))
        forget_on_loading(self, _forget)

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts that there are."""
        return self.encoders.experts

    @property
    def image_size(self) -> int:
        """Pixels along each side of an image."""
        return self.encoders.image_size

    @property
    def classes(self) -> int:
        """K, without the background."""
        head: Any = next(iter(self.heads.values()))
        return int(head.classes)

    def trains(self, name: str) -> bool:
        """Whether the parameter of this name is to be trained: all but the encoder that the experts share."""
        return not name.startswith("encoders.encoder.") or ".lora_" in name

    def trainable(self) -> list[nn.Parameter]:
        """Parameters for the optimizer."""
        return [p for name, p in self.named_parameters() if self.trains(name)]

    def sizes(self) -> Sizes:
        """Parameters, counted as the paper does and as they are."""
        own = {name: p.numel() for name, p in self.named_parameters()}
        trained = sum(n for name, n in own.items() if self.trains(name))
        frozen = sum(own.values()) - trained
        replaced = sum(p.numel() for p in self.encoders.semantic.parameters()) if self.encoders.semantic else 0
        return Sizes(len(self.experts) * frozen + trained - replaced, trained, frozen + trained)

    def forward(
        self, image: Tensor, label: Tensor | None = None, annotated: Tensor | None = None, box: Tensor | None = None
    ) -> ICMoEOutputs:
        """Segment pictures.

        Args:
            image: ``[B, 1 or 3, S, S]``, 0..1.
            label: ``[B, 1, S, S]`` class indices 0..K; used in training only.
            annotated: ``[B, K+1]`` bool, the classes that the labels know; all when None.
            box: low and high corner ``[B, 2, 2]``, pixels along the two axes; None for no prompt.
        """
        label = label if self.training else None
        embedding, contrast = self._features(self._normal(image), label)
        size = (self.image_size, self.image_size)
        answers = torch.stack([
            F.interpolate(head(own, box), size=size, mode="bilinear", align_corners=False)
            for head, own in zip(self.heads.values(), embedding, strict=True)
        ])  # fmt: skip
        if self.answer == "vote":
            truth = None if label is None else _one_hot(label, self.classes)
            known = None if annotated is None else annotated[:, 1:].bool()
            logits, votes = self._fused(answers, truth, known)
            return ICMoEOutputs(logits, answers, votes, contrast)
        return ICMoEOutputs(answers.mean(0) if self.answer == "mean" else answers[0], answers, None, contrast)

    def features(self, image: Tensor) -> Tensor:
        """The experts' embeddings ``[E, B, C, h, w]`` of ``[B, 1 or 3, S, S]``, 0..1."""
        embedding: Tensor = self.encoders(self._normal(image)).embedding
        return embedding

    def answers(self, out: ICMoEOutputs) -> dict[str, Tensor]:
        """What each expert alone and their mean say, ``[B, K+1, S, S]`` by name; the only expert has no other name."""
        found = {name: with_background(own) for name, own in zip(self.experts, out.experts, strict=True)}
        return {**found, "mean": with_background(out.experts.mean(0))} if len(found) > 1 else {}

    def _normal(self, image: Tensor) -> Tensor:
        found: Tensor = self.norm(repeated(image, 3))
        return found

    def _features(self, image: Tensor, label: Tensor | None) -> tuple[Tensor, Contrast | None]:
        if label is None or self.contrast is None:
            return self.encoders(image).embedding, None
        tokens = self.contrast_features == "tokens"
        inside = label > 0
        outside = [image * inside, image * ~inside]
        frozen = self.encoders.frozen(torch.cat([image, *outside]))
        parts = [type(frozen)(*halves) for halves in zip(*(t.split(len(image)) for t in frozen), strict=True)]
        own = self.encoders(image, tokens=tokens, frozen=parts[0])
        found = [own.tokens if tokens else own.embedding]
        with torch.set_grad_enabled(self.fgbg_grad and torch.is_grad_enabled()):
            for crop, part in zip(outside, parts[1:], strict=True):
                features = self.encoders(crop, tokens=tokens, frozen=part)
                found.append(features.tokens if tokens else features.embedding)
        return own.embedding, self.contrast(*(f.flatten(2, 3) if tokens else f.flatten(3).mT for f in found))

    def _fused(self, answers: Tensor, truth: Tensor | None, known: Tensor | None) -> tuple[Tensor, Votes]:
        total = answers.sum(0)
        candidates = torch.stack([*answers[:2], total / len(answers) if self.candidate_mean == "mean" else total])
        votes: Votes = self.voting(candidates.detach(), truth, known)
        places = votes.chosen[None, :, :, None, None].expand(1, *candidates.shape[1:])
        return answers[2] + self.fusion_alpha * candidates.gather(0, places)[0], votes


def needed(answer: str) -> tuple[str, ...]:
    """The experts that an answer needs.

    Raises:
        ConfigError: for an unknown answer.
    """
    if answer not in ANSWERS:
        raise ConfigError("unknown answer", where="answer", got=answer, expected=", ".join(ANSWERS))
    return EXPERTS if answer in ("vote", "mean") else (answer,)


def with_background(logits: Tensor) -> Tensor:
    """``[B, K, ...] -> [B, K+1, ...]`` with the background's logit 0: of one class, softmax is then its sigmoid."""
    return torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)


def _one_hot(label: Tensor, classes: int) -> Tensor:
    found = label.round().long()
    low, high = int(found.min()), int(found.max())
    if low < 0 or high > classes:
        raise DataError("a label map holds values that are no class", got=(low, high), expected=f"0..{classes}")
    return torch.cat([found == k for k in range(1, classes + 1)], 1)


def _check(answer: str, encoders: ExpertEncoders, heads: Mapping[str, Any], contrast: nn.Module | None) -> None:
    wanted = needed(answer)
    if encoders.experts != wanted or set(heads) != set(wanted):
        where = "answer"
        got = (encoders.experts, tuple(heads))
        raise ConfigError("the answer needs other experts", where=where, got=got, expected=f"{wanted} for {answer!r}")
    if contrast is not None and wanted != EXPERTS:
        expected = "answer vote or mean, or --sgcl 0"
        raise ConfigError("SgCL contrasts three experts", where="sgcl", got=f"answer={answer!r}", expected=expected)


def _forget(network: ICMoE, *_: object) -> None:
    cache = network.encoders.cache
    if cache is not None:
        cache.clear()
