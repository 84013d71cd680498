"""Is an expert heard as it speaks at home? Its kept answer against its own software's, structure by structure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from numpy.typing import NDArray
from torch import Tensor

from ...geometry import Grid
from ...overlap import dice
from .at_home import HomeNNUNet, sample
from .record import LEVELS, decide

__all__ = ["FOREGROUND_BAR", "STRUCTURE_BAR", "Agreement", "agreement", "student_grid"]

FOREGROUND_BAR = 0.995  # Dice of all foreground together that a kept answer must reach
STRUCTURE_BAR = 0.98  # and of each structure above LARGE voxels
LARGE = 500
_ALL = "foreground"
_BETWEEN = 1e-3


@dataclass(frozen=True)
class Agreement:
    """How far a kept answer is the expert's own.

    Args:
        foreground: Dice of "some structure" on the scan's own grid, where nnU-Net speaks; 1 where both say none.
        structures: ``{name: Dice}``, likewise.
        voxels: ``{name: voxels}`` of the expert's own software there.
        student: the same Dice on the student's grid, ``foreground`` and each structure. There a voxel lies between
            those of the scan, and between those where the network answers; where either are of several classes, the
            grid decides and not the expert, and such voxels count for neither.
        on_student: ``{name: voxels}`` of the kept answer on the student's grid.
        grid: Dice of the foreground between the scan's own grid and its way over the student's and back: what the grid
            itself costs, whoever answers.
    """

    foreground: float
    structures: dict[str, float]
    voxels: dict[str, int]
    student: dict[str, float]
    on_student: dict[str, int]
    grid: float

    @property
    def below(self) -> dict[str, float]:
        """What does not reach the bars: ``foreground`` and large structures, on either grid, with their Dice."""
        own = {"foreground": self.foreground, **{n: d for n, d in self.structures.items() if self.voxels[n] > LARGE}}
        told = {n: d for n, d in self.student.items() if n == _ALL or self.on_student[n] > LARGE}
        entries = [*own.items(), *((f"{n} on the student's grid", d) for n, d in told.items())]
        return {n: d for n, d in entries if d < (FOREGROUND_BAR if n.startswith(_ALL) else STRUCTURE_BAR)}


def student_grid(scan: MetaTensor, spacing: Sequence[float], axcodes: str = "RAS") -> Grid:
    """The grid on which a student sees a scan: MONAI's ``Orientation``, then its ``Spacing``.

    Args:
        scan: ``[C, X, Y, Z]``.
        spacing: mm along x, y, z of the student.
        axcodes: its orientation.
    """
    turned = Grid.of(Orientation(axcodes=axcodes, labels=None)(scan))
    affine = turned.affine.copy()
    affine[:3, :3] *= np.asarray(spacing) / np.asarray(turned.spacing)
    return Grid(turned.resampled_shape(spacing), affine)


def agreement(expert: HomeNNUNet, scan: MetaTensor, grid: Grid) -> Agreement:
    """Ask twice: as answers are kept, and by nnU-Net's whole pipeline with its export.

    Args:
        expert: the expert.
        scan: ``[C, X, Y, Z]`` as stored.
        grid: the student's.
    """
    names, exclusive = expert.spec.labels.names, expert.spec.labels.exclusive
    answer, own = expert.answer(scan), expert.judge(scan)
    here, wanted = Grid.of(own), _chosen(own.as_tensor(), exclusive)
    found = _masks(answer.on(here), exclusive, len(names))
    kept = _masks(answer.on(grid), exclusive, len(names))
    told = _between(wanted, here.affine, grid)
    computed = _between(_chosen(answer.logits, exclusive), answer.affine, grid)
    kept = torch.cat([kept.any(0)[None], kept])
    told = torch.where(_several(told) | _several(computed), kept, told > 0.5)
    back = torch.cat([v for v, _ in sample(kept[:1].float(), grid.affine, here)], 1)[0] > 0.5
    return Agreement(
        _dice(found.any(0), wanted.any(0)),
        {name: _dice(x, y) for name, x, y in zip(names, found, wanted, strict=True)},
        {name: int(y.sum()) for name, y in zip(names, wanted, strict=True)},
        {name: _dice(x, y) for name, x, y in zip((_ALL, *names), kept, told, strict=True)},
        {name: int(x.sum()) for name, x in zip(names, kept[1:], strict=True)},
        _dice(wanted.any(0), back),
    )


def _between(masks: Tensor, affine: NDArray[np.float64], grid: Grid) -> Tensor:
    """``[1+K, X, Y, Z]``: shares of the voxels around each place of a grid, of all foreground and of each structure."""
    near = torch.cat([masks.any(0)[None], masks]).float()
    return torch.cat([torch.where(inside, v, 0) for v, inside in sample(near, affine, grid)], 1)


def _several(shares: Tensor) -> Tensor:
    return (shares > _BETWEEN) & (shares < 1 - _BETWEEN)


def _masks(kept: Tensor, exclusive: bool, structures: int) -> Tensor:
    if not exclusive:
        return kept > LEVELS / 2
    classes = decide(kept)
    return torch.stack([classes == k for k in range(1, structures + 1)])


def _chosen(logits: Tensor, exclusive: bool) -> Tensor:
    if not exclusive:
        return logits > 0
    classes = logits.argmax(0)
    return torch.stack([classes == k for k in range(1, len(logits))])


def _dice(a: Tensor, b: Tensor) -> float:
    """1 where both are empty, not NaN: an expert that finds nothing and is kept as nothing is kept as it is."""
    score = dice(int((a & b).sum()), int(a.sum()), int(b.sum()))
    return 1.0 if math.isnan(score) else score
