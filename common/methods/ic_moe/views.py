"""What the experts of an IC-MoE see in a picture: masks, votes, features in false colours, Grad-CAM."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...layers.fusion.voting import Votes
from .network import CANDIDATES, ICMoE, with_background

__all__ = ["PictureViews", "grad_cam", "picture_views", "principal_colours"]


class PictureViews(NamedTuple):
    """One picture.

    Args:
        answers: class indices ``[S, S]`` of each expert, of their mean, and of the network (``answer``).
        votes: how many of the candidates see a structure ``[S, S]``, 0..3; None without a vote.
        chosen: the candidate that was chosen for each class; empty without a vote.
        scores: of the candidates, by name, mean over the classes; empty without a vote.
        features: the experts' embeddings in false colours ``[3, S, S]``, 0..1.
        cams: where each expert's answer comes from ``[S, S]``, 0..1.
    """

    answers: dict[str, Tensor]
    votes: Tensor | None
    chosen: tuple[str, ...]
    scores: dict[str, float]
    features: dict[str, Tensor]
    cams: dict[str, Tensor]


def picture_views(network: ICMoE, image: Tensor, box: Tensor | None = None) -> PictureViews:
    """Look at a picture.

    Args:
        network: :class:`~common.methods.ic_moe.network.ICMoE`, in evaluation.
        image: ``[1, 1 or 3, S, S]``, 0..1.
        box: as the network's.
    """
    with torch.no_grad():
        out = network(image, box=box)
        embedding = network.features(image)
        answers = {name: logits[0].argmax(0).cpu() for name, logits in network.answers(out).items()}
        answers["answer"] = with_background(out.logits)[0].argmax(0).cpu()
    size, votes = image.shape[2:], out.votes
    colours = _enlarged(principal_colours(embedding[:, 0]), size)
    cams = {
        name: _enlarged(grad_cam(network.heads[name], own, box)[:, None], size)[0, 0].cpu()
        for name, own in zip(network.experts, embedding, strict=True)
    }
    return PictureViews(
        answers=answers,
        votes=None if votes is None else votes.masks[:, 0].any(1).sum(0).cpu(),
        chosen=() if votes is None else tuple(CANDIDATES[i] for i in votes.chosen[0].tolist()),
        scores={} if votes is None else _scores(votes),
        features={name: c.clamp(0, 1).cpu() for name, c in zip(network.experts, colours, strict=True)},
        cams=cams,
    )


def _scores(votes: Votes) -> dict[str, float]:
    return dict(zip(CANDIDATES, votes.scores[:, 0].mean(-1).tolist(), strict=True))


def principal_colours(embedding: Tensor) -> Tensor:
    """The three first principal components of all experts' features together, so that colours can be compared.

    Args:
        embedding: ``[E, C, h, w]``.

    Returns:
        ``[E, 3, h, w]``, 0..1 between each component's 1st and 99th percentile.
    """
    experts, channels, height, width = embedding.shape
    tokens = embedding.float().permute(0, 2, 3, 1).reshape(-1, channels)
    centred = tokens - tokens.mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes[:3] * axes[:3].gather(1, axes[:3].abs().argmax(1, keepdim=True)).sign()  # the sign is arbitrary
    found = centred @ axes.T
    if found.shape[1] < 3:
        found = F.pad(found, (0, 3 - found.shape[1]))
    low, high = found.quantile(0.01, dim=0), found.quantile(0.99, dim=0)
    scaled = ((found - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    colours: Tensor = scaled.reshape(experts, height, width, 3).permute(0, 3, 1, 2)
    return colours


def grad_cam(head: Any, embedding: Tensor, box: Tensor | None = None) -> Tensor:
    """Where a decoder's answer comes from: ``relu(sum_c a_c Y_c)``, ``a_c`` the mean gradient of channel c.

    The gradient is that of the logits of the pixels that the decoder sees a structure in, of all where it sees none.

    Args:
        head: ``(embedding, box) -> logits [B, K, H, W]``.
        embedding: Y ``[B, C, h, w]``.
        box: as the head's.

    Returns:
        ``[B, h, w]``, 0..1, its largest value 1 unless all are 0.

    Reference:
        Selvaraju et al., Grad-CAM, 2017.
    """
    with torch.enable_grad():
        features = embedding.detach().float().requires_grad_(True)
        logits = head(features, box)
        seen = logits.detach() > 0
        seen = seen | ~seen.flatten(1).any(1)[:, None, None, None]
        (gradient,) = torch.autograd.grad((logits * seen).sum(), features)
    weights = gradient.mean((2, 3), keepdim=True)
    cam = F.relu((weights * features.detach()).sum(1))
    found: Tensor = cam / cam.flatten(1).amax(1).clamp(min=1e-12)[:, None, None]
    return found


def _enlarged(maps: Tensor, size: Any) -> Tensor:
    return F.interpolate(maps.float(), size=tuple(size), mode="bilinear", align_corners=False)
