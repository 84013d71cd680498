"""How far an expert's tiles step at its home, and what a student that takes experts' place inherits of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .profile import HomeProfile
from .spec import ExpertSpec

__all__ = ["Tiles", "inherited_tiles", "tile_step"]

_STEP = 0.5
# Of nnU-Net's predictor, and of all that answers in windows here.
_DIGITS = 6


class Tiles(NamedTuple):
    """How a student's tiles lie, and why so.

    Args:
        overlap: share of a tile that neighbours share, in [0, 1).
        experts: names of those whose step it is; none where there are no experts.
    """

    overlap: float = 1 - _STEP
    experts: tuple[str, ...] = ()


def tile_step(spec: ExpertSpec, given: float | None = None) -> float:
    """Step of an expert's tiles as a share of their size: as at its home, unless an nnU-Net is asked otherwise.

    Args:
        spec: the expert; with a home profile it steps as that program does.
        given: of nnU-Nets, the step with which they are asked; None leaves them theirs.
    """
    if spec.kind == "nnunet" and given is not None:
        return given
    profile = HomeProfile.of(spec)
    return _STEP if profile is None else profile.tile_step


def inherited_tiles(experts: Iterable[ExpertSpec], step: float | None = None) -> Tiles:
    """The tiles of a student in the place of experts: its pass looks as often as the one of them that looks most.

    ``overlap = 1 - min_e step_e``.

    Args:
        experts: those that teach it.
        step: of nnU-Nets, the step with which they are asked; None leaves them theirs.
    """
    steps = {spec.name: tile_step(spec, step) for spec in experts}
    if not steps:
        return Tiles()
    least = min(steps.values())
    return Tiles(round(1 - least, _DIGITS), tuple(name for name, own in steps.items() if own == least))
