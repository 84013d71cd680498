"""Is an expert heard as it speaks at home? Its kept answer against its own software's, structure by structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from torch import Tensor

from ...geometry import Grid
from .at_home import HomeNNUNet, sample
from .record import LEVELS, decide

__all__ = ["FOREGROUND_BAR", "STRUCTURE_BAR", "Agreement", "agreement", "student_grid"]

FOREGROUND_BAR = 0.995  # Dice of all foreground together that a kept answer must reach
STRUCTURE_BAR = 0.98  # and of each structure above LARGE voxels
LARGE = 500


@dataclass(frozen=True)
class Agreement:
    """How far a kept answer is the expert's own.

    Args:
        foreground: Dice of "some structure", on the student's grid; 1 where both say none.
        structures: ``{name: Dice}``, likewise.
        voxels: ``{name: voxels}`` of the expert's own software.
        grid: Dice of the foreground between the expert's own grid and its way over the student's and back: what the
            grid itself costs, whoever answers.
    """

    foreground: float
    structures: dict[str, float]
    voxels: dict[str, int]
    grid: float

    @property
    def below(self) -> dict[str, float]:
        """What does not reach the bars: ``foreground`` and large structures, with their Dice."""
        found = {} if self.foreground >= FOREGROUND_BAR else {"foreground": self.foreground}
        large = {n: d for n, d in self.structures.items() if self.voxels[n] > LARGE}
        return {**found, **{n: d for n, d in large.items() if d < STRUCTURE_BAR}}


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
    kept = expert.answer(scan).on(grid)
    own = expert.judge(scan)
    affine = np.asarray(own.affine)
    told = torch.cat([torch.where(inside, v, 0) for v, inside in sample(own.as_tensor(), affine, grid)], 1)
    names = expert.spec.labels.names
    exclusive = expert.spec.labels.exclusive
    a, b = _masks(kept, exclusive, len(names)), _chosen(told, exclusive)
    native = _chosen(own.as_tensor(), exclusive).any(0)
    back = torch.cat([v for v, _ in sample(b.any(0)[None].float(), grid.affine, Grid.of(own))], 1)[0] > 0.5
    return Agreement(
        _dice(a.any(0), b.any(0)),
        {name: _dice(x, y) for name, x, y in zip(names, a, b, strict=True)},
        {name: int(y.sum()) for name, y in zip(names, b, strict=True)},
        _dice(native, back),
    )


def _masks(kept: Tensor, exclusive: bool, structures: int) -> Tensor:
    if not exclusive:
        return kept > LEVELS / 2
    classes = decide(kept)
    return torch.stack([classes == k for k in range(1, structures + 1)])


def _chosen(probabilities: Tensor, exclusive: bool) -> Tensor:
    if not exclusive:
        return probabilities > 0.5
    classes = probabilities.argmax(0)
    return torch.stack([classes == k for k in range(1, len(probabilities))])


def _dice(a: Tensor, b: Tensor) -> float:
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0
