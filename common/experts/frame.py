"""An expert's own axes and spacing, and the way there and back from the student's crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from nibabel.orientations import axcodes2ornt, ornt_transform
from torch import Tensor
from torch.nn import functional as F

from ..errors import ExpertError

__all__ = ["Frame", "Placement", "nnunet_order"]

_SAME_SPACING = 1e-3
# Relative difference below which two spacings count as equal.


class Placement(NamedTuple):
    """How one crop was moved into an expert's frame: what is needed to move results back.

    Args:
        axes: student axis that became expert axis i.
        flips: expert axes that were mirrored.
        shape: crop shape before resampling, in the expert's axis order.
        resampled: crop shape after resampling, before padding.
    """

    axes: tuple[int, int, int]
    flips: tuple[int, ...]
    shape: tuple[int, ...]
    resampled: tuple[int, ...]

    def back(self, x: Tensor) -> Tensor:
        """Features or logits ``[B, C, a, b, c]`` in the student's axis order and direction."""
        x = torch.flip(x, [a + 2 for a in self.flips]) if self.flips else x
        inverse = [self.axes.index(axis) for axis in range(3)]
        return x.permute(0, 1, *(i + 2 for i in inverse)).contiguous()


@dataclass(frozen=True)
class Frame:
    """Orientation, axis order, spacing and divisibility that an expert was trained with.

    Args:
        orientation: axis codes of its training volumes, for example ``RAS``; None when it saw native directions.
        order: axis of the oriented volume that becomes expert axis i; nnU-Net reads z, y, x and then transposes.
        spacing: mm per voxel in the expert's axis order; None keeps the crop's (slice axis of a 2-D expert).
        divisor: each padded crop axis is a multiple of this.
        planar: the network sees slices (its first axis is the slice axis) and not volumes.
    """

    orientation: str | None
    order: tuple[int, int, int]
    spacing: tuple[float | None, float | None, float | None]
    divisor: tuple[int, int, int]
    planar: bool = False

    def place(self, shape: Sequence[int], spacing: Sequence[float], axcodes: str, *, resample: bool) -> Placement:
        """Plan the way of a crop ``[X, Y, Z]`` into this frame.

        Args:
            shape: voxels of the crop in the student's axis order.
            spacing: mm, same order.
            axcodes: directions of the student's axes, for example ``RAS``.
            resample: bring the crop to the expert's spacing.
        """
        oriented, flipped = self._orient(axcodes)
        axes = (oriented[self.order[0]], oriented[self.order[1]], oriented[self.order[2]])
        flips = tuple(i for i, axis in enumerate(self.order) if axis in flipped)
        here = tuple(int(shape[a]) for a in axes)
        there = here
        if resample:
            there = tuple(
                _resampled(n, float(spacing[a]), target) for n, a, target in zip(here, axes, self.spacing, strict=True)
            )
        return Placement(axes, flips, here, there)

    def _orient(self, axcodes: str) -> tuple[list[int], set[int]]:
        if self.orientation is None or self.orientation == axcodes:
            return [0, 1, 2], set()
        try:
            moved = ornt_transform(axcodes2ornt(axcodes), axcodes2ornt(self.orientation))
        except (ValueError, TypeError) as error:
            expected = f"axis codes like {self.orientation}"
            raise ExpertError("cannot orient the crop", got=axcodes, expected=expected) from error
        source = [int((moved[:, 0] == axis).argmax()) for axis in range(3)]
        return source, {axis for axis in range(3) if moved[source[axis], 1] < 0}

    def enter(self, x: Tensor, place: Placement, *, mode: str = "trilinear") -> Tensor:
        """Move a normalised crop ``[B, C, X, Y, Z]`` into the frame and pad it with zeros at the far ends."""
        x = x.permute(0, 1, *(a + 2 for a in place.axes))
        x = torch.flip(x, [a + 2 for a in place.flips]) if place.flips else x
        if place.resampled != place.shape:
            x = F.interpolate(x, size=place.resampled, mode=mode, align_corners=False)
        target = self.padded(place.resampled)
        pad = [edge for n, t in zip(reversed(place.resampled), reversed(target), strict=True) for edge in (0, t - n)]
        return F.pad(x, pad) if any(pad) else x

    def padded(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape after padding; at least two bottleneck voxels, since instance norm cannot work on one."""
        target = [-(-n // d) * d for n, d in zip(shape, self.divisor, strict=True)]
        seen = (1, 2) if self.planar else (0, 1, 2)
        if all(target[i] == self.divisor[i] for i in seen):
            longest = max(seen, key=lambda i: (self.divisor[i] > 1, shape[i]))
            target[longest] += self.divisor[longest]
        return tuple(target)

    def leave(self, logits: Tensor, place: Placement) -> Tensor:
        """Bring logits of the padded crop back to the student's grid ``[B, K, X, Y, Z]``."""
        a, b, c = place.resampled
        logits = logits[:, :, :a, :b, :c]
        if place.resampled != place.shape:
            logits = F.interpolate(logits, size=place.shape, mode="trilinear", align_corners=False)
        return place.back(logits)

    def cover(self, features: Tensor, place: Placement) -> Tensor:
        """Bring a feature map of the padded crop to the crop itself, so that its voxels divide the crop evenly.

        ``n = round(n' R / P)`` voxels in the place of n' where R voxels were padded to P, linear between centres. Who
        reads the map takes it to cover the crop: the padding would pull all of it towards the near corner.

        Args:
            features: ``[B, C, a, b, c]`` in the expert's axes.
            place: of the crop.
        """
        for axis, (inner, outer) in enumerate(zip(place.resampled, self.padded(place.resampled), strict=True), 2):
            if inner == outer:
                continue
            there = features.shape[axis]
            here = max(1, round(there * inner / outer))
            centres = (torch.arange(here, device=features.device) + 0.5) * (inner / here) * (there / outer) - 0.5
            centres = centres.clamp(0, there - 1)
            low = centres.floor().long()
            share = (centres - low).to(features.dtype).view(*(here if i == axis else 1 for i in range(5)))
            high = (low + 1).clamp(max=there - 1)
            features = features.index_select(axis, low) * (1 - share) + features.index_select(axis, high) * share
        return features


def _resampled(voxels: int, spacing: float, target: float | None) -> int:
    if target is None or abs(spacing / target - 1) < _SAME_SPACING:
        return voxels
    return max(1, round(voxels * spacing / target))


def nnunet_order(transpose_forward: Sequence[int]) -> tuple[int, int, int]:
    """Axis of an ``[X, Y, Z]`` volume that becomes network axis i: nnU-Net reads z, y, x, then transposes."""
    read = (2, 1, 0)
    return read[transpose_forward[0]], read[transpose_forward[1]], read[transpose_forward[2]]
