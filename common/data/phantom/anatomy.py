"""Who is scanned: a subject's tissues and structures at any positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from .abdomen import abdomen
from .body import STRUCTURES, TISSUES
from .shapes import Canvas, Points, Warp
from .thorax import thorax

__all__ = ["REGIONS", "Subject", "sample"]

REGIONS = {"abdomen": abdomen, "thorax": thorax}


@dataclass(frozen=True)
class Subject:
    """Everything random about an anatomy follows from this.

    Args:
        region: a key of :data:`REGIONS`.
        key: integers that seed the anatomy.
        pathology: whether the tumours (abdomen) or scars (thorax) are there.

    Raises:
        ConfigError: for an unknown region.
    """

    region: str
    key: tuple[int, ...]
    pathology: bool = True

    def __post_init__(self) -> None:
        if self.region not in REGIONS:
            raise ConfigError("no such body region", got=self.region, expected=", ".join(REGIONS))


def sample(subject: Subject, points: Points) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Tissue and structure codes ``[N]`` of a subject at positions ``[3, N]`` in mm.

    Tissue codes index :data:`TISSUES`; structure code 0 is none, ``i + 1`` is ``STRUCTURES[i]``. The anatomy does not
    depend on the positions, so that one subject can be seen on several grids.
    """
    rng = np.random.default_rng(subject.key)
    warp = Warp.draw(rng, scale=0.09, degrees=6.0, bend=4.0)
    canvas = Canvas(points=warp(points), tissues=TISSUES, structures=STRUCTURES)
    REGIONS[subject.region](canvas, rng, subject.pathology)
    return canvas.tissue, canvas.structure
