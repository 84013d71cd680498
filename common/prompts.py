"""Boxes and points: one box per structure, in voxels, and the checks on those that a user gives.

A box is ``[2, 3]``: the first and the last voxel it contains along x, y, z (both inclusive, so a single voxel has equal
corners). Six NaN mean "no box for this structure". A window is a part of the volume that a network sees.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import PromptError

__all__ = ["boxes_from_label", "check_boxes", "check_points", "clip_boxes", "drop_boxes", "jitter_boxes", "to_window"]


def boxes_from_label(label: Tensor, structures: int) -> Tensor:
    """The tight box of each structure of an index label map.

    Args:
        label: ``[B, 1, X, Y, Z]`` or ``[1, X, Y, Z]`` class indices; 0 is the background.
        structures: number of foreground structures K.

    Returns:
        ``[B, K, 2, 3]`` (or ``[K, 2, 3]``) float32 voxels, NaN for structures that do not occur.

    Raises:
        PromptError: for another shape.
    """
    if label.ndim not in (4, 5) or label.shape[-4] != 1:
        raise PromptError("boxes need an index label map", got=tuple(label.shape), expected="[B, 1, X, Y, Z]")
    if label.ndim == 4:
        return boxes_from_label(label[None], structures)[0]
    return torch.stack([_boxes(label[:, 0] == k + 1) for k in range(structures)], 1)


def _boxes(mask: Tensor) -> Tensor:
    """``[B, X, Y, Z]`` bool -> ``[B, 2, 3]``."""
    corners = []
    for hit in (mask.any(3).any(2), mask.any(3).any(1), mask.any(1).any(1)):
        steps = torch.arange(hit.shape[1], device=mask.device, dtype=torch.float32)
        low = torch.where(hit, steps, torch.inf).amin(1)
        high = torch.where(hit, steps, -torch.inf).amax(1)
        corners.append(torch.stack([low, high], 1))
    box = torch.stack(corners, 2)
    return box.masked_fill(box.isinf(), torch.nan)


def jitter_boxes(boxes: Tensor, voxels: float, shape: Sequence[int]) -> Tensor:
    """Move every corner coordinate by a uniform draw from ``[-voxels, voxels]``, keep order and window.

    Args:
        boxes: ``[..., 2, 3]``.
        voxels: largest move, >= 0; 0 returns the boxes unchanged.
        shape: window size in voxels.

    Raises:
        PromptError: for a negative amount.
    """
    if voxels < 0:
        raise PromptError("jitter must not be negative", got=voxels)
    if voxels == 0:
        return boxes
    moved = (boxes + (torch.rand_like(boxes) * 2 - 1) * voxels).sort(-2).values
    last = torch.tensor(shape, device=boxes.device, dtype=boxes.dtype) - 1
    return torch.minimum(moved.clamp(min=0), last)


def drop_boxes(boxes: Tensor, probability: float) -> Tensor:
    """Hide prompts in training: all boxes of a sample, and besides single ones, each with the given probability.

    Args:
        boxes: ``[B, K, 2, 3]``.
        probability: 0..1.

    Raises:
        PromptError: for a probability outside 0..1.
    """
    if not 0 <= probability <= 1:
        raise PromptError("a probability lies in 0..1", got=probability)
    batch, structures = boxes.shape[:2]
    gone = torch.rand(batch, 1, device=boxes.device) < probability
    gone = gone | (torch.rand(batch, structures, device=boxes.device) < probability)
    return boxes.masked_fill(gone[:, :, None, None], torch.nan)


def to_window(boxes: Tensor, start: Sequence[int] | Tensor, shape: Sequence[int]) -> Tensor:
    """Boxes of a volume as a window sees them: moved by its first voxel, cut at its faces, NaN when outside.

    Args:
        boxes: ``[..., 2, 3]`` volume voxels.
        start: the window's first voxel along x, y, z (may be negative where the volume was padded).
        shape: window size in voxels.
    """
    first = torch.as_tensor(start, device=boxes.device, dtype=boxes.dtype)
    return clip_boxes(boxes - first, shape)


def clip_boxes(boxes: Tensor, shape: Sequence[int]) -> Tensor:
    """Cut boxes ``[..., 2, 3]`` at the faces of a window; what lies outside altogether becomes NaN."""
    last = torch.tensor(shape, device=boxes.device, dtype=boxes.dtype) - 1
    outside = ((boxes[..., 0, :] > last) | (boxes[..., 1, :] < 0)).any(-1)
    cut = torch.minimum(boxes.clamp(min=0), last)
    return cut.masked_fill(outside[..., None, None], torch.nan)


def check_boxes(boxes: Tensor, shape: Sequence[int], *, where: object | None = None) -> Tensor:
    """Refuse boxes that a user cannot have meant.

    Args:
        boxes: ``[K, 2, 3]`` or ``[B, K, 2, 3]`` voxels of the volume; NaN for "no box".
        shape: the volume's voxels along x, y, z.
        where: case or file that the message names.

    Returns:
        The boxes, unchanged.

    Raises:
        PromptError: for another layout, half a NaN, swapped corners, no extent, corners outside the volume.
    """
    if boxes.ndim not in (3, 4) or boxes.shape[-2:] != (2, 3):
        raise PromptError("boxes have two corners of x, y, z", where=where, got=tuple(boxes.shape))
    missing = boxes.isnan()
    if (missing.flatten(-2).any(-1) != missing.flatten(-2).all(-1)).any():
        raise PromptError("a box is partly NaN", where=where, got=boxes.tolist(), expected="six numbers or six NaN")
    size = torch.tensor(shape, dtype=boxes.dtype, device=boxes.device)
    for box in boxes.reshape(-1, 2, 3):
        if not bool(box.isnan().any()):
            _check_box(box, size, where)
    return boxes


def _check_box(box: Tensor, size: Tensor, where: object | None) -> None:
    low, high = box[0], box[1]
    got, voxels = box.tolist(), [int(n) for n in size]
    if bool((high < low).any()):
        raise PromptError(
            "the corners of a box are swapped", where=where, got=got, expected="[[x1, y1, z1], [x2, y2, z2]], low first"
        )
    if bool((high == low).any()):
        raise PromptError("a box has no extent along an axis", where=where, got=got)
    if bool((low < 0).any()) or bool((high >= size).any()):
        turned = box.flip(-1)
        fits = bool((turned >= 0).all()) and bool((turned[1] < size).all())
        raise PromptError(
            "a box leaves the volume",
            where=where,
            got=got,
            expected=f"0 <= corner < {voxels}",
            hint="the corners look like z, y, x; give them as x, y, z" if fits else None,
        )


def check_points(points: Tensor, shape: Sequence[int], *, where: object | None = None) -> Tensor:
    """Refuse points ``[P, 3]`` (voxels x, y, z) that are not finite or lie outside the volume.

    Raises:
        PromptError: naming the first such point.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise PromptError("points are x, y, z", where=where, got=tuple(points.shape), expected="[P, 3]")
    size = torch.tensor(shape, dtype=points.dtype, device=points.device)
    bad = ~(points.isfinite() & (points >= 0) & (points < size)).all(1)
    if bool(bad.any()):
        first = points[bad][0].tolist()
        raise PromptError("a point lies outside the volume", where=where, got=first, expected=f"below {list(shape)}")
    return points
