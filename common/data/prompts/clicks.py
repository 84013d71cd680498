"""Clicks as a person would set them: one voxel of what a segmentation still has wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.transforms.utils import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from ...errors import ConfigError, PromptError

__all__ = [
    "NO_CLICK",
    "STRATEGIES",
    "Click",
    "Generators",
    "click_generator",
    "depth_inside",
    "inner_voxels",
    "next_click",
]

STRATEGIES = ("random", "ritm")
NO_CLICK = -1
Generators = torch.Generator | Sequence[torch.Generator] | None


class Click(NamedTuple):
    """One click per sample.

    Args:
        points: ``[B, 1, 3]`` float32 voxels x, y, z; zeros where there is no click.
        labels: ``[B, 1]`` int64: 1 inside, 0 outside, -1 no click.
    """

    points: Tensor
    labels: Tensor


def click_generator(seed: int, case: object, structure: object = "") -> torch.Generator:
    """A random stream of its own for a case and structure: its clicks depend neither on batch size nor on order.

    Args:
        seed: of the evaluation.
        case: name of the case.
        structure: name or index of the structure.
    """
    digest = hashlib.sha256(f"{seed}\0{case}\0{structure}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def next_click(
    prediction: Tensor,
    target: Tensor,
    *,
    strategy: str = "random",
    threshold: float = 0.0,
    generator: Generators = None,
) -> Click:
    """A voxel of ``FN ∪ FP`` with label 1 where the target was missed and 0 where too much was predicted.

    ``random`` draws uniformly from all wrong voxels. ``ritm`` takes the deeper of the two kinds of error (of equally
    deep ones the false positive) and draws uniformly from the voxels that lie more than half as deep in it as its
    deepest: from the core, as people click.

    An empty target is a target like any other: whatever is predicted is wrong and clicked with label 0. When nothing is
    wrong there is no click: label -1, point zero. Each sample uses one random number whether or not it needs it, so
    that streams stay aligned.

    Args:
        prediction: ``[B, 1, X, Y, Z]`` logits, or a mask (bool, or 0 and 1).
        target: ``[B, 1, X, Y, Z]``, inside where > 0.
        strategy: ``random`` or ``ritm``.
        threshold: predictions above are inside; 0 on logits is sigmoid > 0.5 and fits masks as well.
        generator: one for the batch, or one per sample; torch's global one when None. On the CPU.

    Raises:
        ConfigError: for an unknown strategy.
        PromptError: when shapes or the number of generators do not fit.

    Reference:
        Wang et al., SAM-Med3D, 2023 (uniform); Sofiiuk et al., Reviving Iterative Training with Mask Guidance (RITM),
        2021 (core of the larger error), here in 3-D with the volume's border counted as outside.
    """
    if strategy not in STRATEGIES:
        raise ConfigError("unknown way to click", where="strategy", got=strategy, expected=", ".join(STRATEGIES))
    if prediction.shape != target.shape or target.ndim != 5 or target.shape[1] != 1:
        raise PromptError(
            "clicks compare a prediction with its target",
            got=f"{tuple(prediction.shape)} and {tuple(target.shape)}",
            expected="[B, 1, X, Y, Z] twice",
        )
    batch = len(target)
    draws = _draws(batch, generator)
    points = torch.zeros(batch, 1, 3, device=target.device)
    labels = torch.full((batch, 1), NO_CLICK, dtype=torch.int64, device=target.device)
    with torch.no_grad():
        for i in range(batch):
            found, wanted = prediction[i, 0] > threshold, target[i, 0] > 0
            candidates = inner_voxels(found, wanted) if strategy == "ritm" else found ^ wanted
            voxel = _pick(candidates, draws[i])
            if voxel is not None:
                points[i, 0] = voxel
                labels[i, 0] = wanted[tuple(voxel)].long()
    return Click(points, labels)


def inner_voxels(found: Tensor, wanted: Tensor) -> Tensor:
    """The core of the deeper error: voxels more than half as far from its outside as its deepest voxel.

    Args:
        found: ``[X, Y, Z]`` bool, what was predicted.
        wanted: ``[X, Y, Z]`` bool, the target.

    Returns:
        ``[X, Y, Z]`` bool, all False when nothing is wrong.
    """
    missed, extra = depth_inside(wanted & ~found), depth_inside(found & ~wanted)
    depth = missed if missed.max() > extra.max() else extra
    return depth > depth.max() / 2


def depth_inside(mask: Tensor) -> Tensor:
    """Euclidean distance to the nearest False voxel in voxels ``[X, Y, Z]`` float64; beyond the border all is False.

    Computed on the bounding box of the True voxels only, which is exact: the projection of any voxel outside the box
    onto its rim is False too, and nearer.
    """
    depth = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
    if not bool(mask.any()):
        return depth
    box = []
    for axis in range(3):
        hit = mask.any(tuple(a for a in range(3) if a != axis))
        at = hit.nonzero()[:, 0]
        box.append(slice(int(at[0]), int(at[-1]) + 1))
    part = F.pad(mask[tuple(box)].float(), (1, 1, 1, 1, 1, 1))
    inside = torch.as_tensor(distance_transform_edt(part[None]))[0]
    depth[tuple(box)] = inside[1:-1, 1:-1, 1:-1].to(depth)
    return depth


def _draws(batch: int, generator: Generators) -> list[float]:
    """One number of [0, 1) per sample."""
    if isinstance(generator, Sequence):
        if len(generator) != batch:
            raise PromptError("one generator per sample", got=len(generator), expected=batch)
        return [float(torch.rand(1, dtype=torch.float64, generator=g)) for g in generator]
    return [float(u) for u in torch.rand(batch, dtype=torch.float64, generator=generator)]


def _pick(candidates: Tensor, draw: float) -> Tensor | None:
    """Voxel ``[3]`` number ``floor(draw * count)`` of the true ones in C order, None when there is none."""
    at = candidates.nonzero()
    return at[min(int(draw * len(at)), len(at) - 1)] if len(at) else None
