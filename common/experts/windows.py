"""A crop that is too large for one pass, in windows of the size that the expert learned on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ExpertError

__all__ = ["MOST_VOXELS", "in_windows", "window"]

MOST_VOXELS = 160**3  # of a sample, up to which a crop is asked about at once

_SIDE = 128
_STEP = 0.75


def window(patch: Sequence[int] | None, divisor: Sequence[int], shape: Sequence[int]) -> tuple[int, ...] | None:
    """The window for a padded crop, None where it is asked about at once.

    Args:
        patch: voxels that the expert learned on, per axis; None where nobody knows.
        divisor: what each side is a multiple of.
        shape: of the padded crop, multiples of ``divisor``.
    """
    voxels = 1
    for n in shape:
        voxels *= n
    if voxels <= MOST_VOXELS:
        return None
    wanted = patch or (_SIDE,) * len(shape)
    return tuple(min(n, -(-w // d) * d) for n, w, d in zip(shape, wanted, divisor, strict=True))


def in_windows(
    ask: Callable[[Tensor], list[Tensor]], x: Tensor, size: Sequence[int], divisor: Sequence[int]
) -> list[Tensor]:
    """The weighted mean over overlapping windows, of maps of any resolution.

    Windows start at multiples of ``divisor``, so that the voxels of a map that is coarser by as much lie at the same
    places in all of them. A window's weight falls linearly from its middle.

    Args:
        ask: ``[B, C, *size]`` to maps ``[B, Ci, ai, bi, ci]`` that cover the window.
        x: ``[B, C, *shape]``.
        size: of a window, multiples of ``divisor``.
        divisor: as said.

    Returns:
        maps that cover ``x``, as ``ask`` would return them.

    Raises:
        ExpertError: for a map whose voxels do not fit the windows' starts.
    """
    shape, totals = x.shape[2:], list[tuple[Tensor, Tensor]]()
    for corner in itertools.product(*map(_starts, shape, size, divisor)):
        maps = ask(x[_part(corner, size)])
        for i, found in enumerate(maps):
            weight = _weight(found.shape[2:], found)
            if len(totals) <= i:
                whole = [_exact(n * m, s) for n, m, s in zip(shape, found.shape[2:], size, strict=True)]
                totals.append((found.new_zeros(*found.shape[:2], *whole), weight.new_zeros(whole)))
            low = [_exact(c * m, s) for c, m, s in zip(corner, found.shape[2:], size, strict=True)]
            totals[i][0][_part(low, found.shape[2:])] += weight * found
            totals[i][1][_part(low, found.shape[2:])] += weight
    return [total / weight for total, weight in totals]


def _starts(shape: int, size: int, divisor: int) -> Iterator[int]:
    step = max(divisor, int(_STEP * size) // divisor * divisor)
    yield from range(0, shape - size, step)
    yield shape - size


def _part(low: Sequence[int], size: Sequence[int]) -> tuple[Any, ...]:
    return (..., *(slice(c, c + n) for c, n in zip(low, size, strict=True)))


def _weight(shape: Sequence[int], like: Tensor) -> Tensor:
    result = torch.ones(tuple(shape), device=like.device, dtype=like.dtype)
    for axis, n in enumerate(shape):
        place = torch.arange(n, device=like.device, dtype=like.dtype)
        ramp = 1 - (place - (n - 1) / 2).abs() / ((n + 1) / 2)
        result = result * ramp.view(*(n if i == axis else 1 for i in range(len(shape))))
    return result


def _exact(product: int, size: int) -> int:
    if product % size:
        raise ExpertError("the expert's features do not fit windows of the crop", where="features",
                          got=f"{product} / {size}", expected="maps whose voxels divide the windows' steps",
                          hint="describe another --features module, or train on smaller crops")  # fmt: skip
    return product // size
