"""The step that asks each nnU-Net twice about one scan: is it heard as at home?"""

from __future__ import annotations

from typing import Any

from monai.data import MetaTensor

from common.data.transforms.loading import LoadCased
from common.errors import ExpertError
from common.experts.answers.agreement import FOREGROUND_BAR, STRUCTURE_BAR, agreement, student_grid
from common.experts.answers.at_home import HomeNNUNet
from common.experts.spec import ExpertSpec

from .lessons import unread
from .work import Work

__all__ = ["heard"]


def heard(work: Work) -> dict[str, Any]:
    """Hold each nnU-Net's answer against its own pipeline's, on the first scan that it reads.

    Args:
        work: the folder.

    Returns:
        by expert the Dice of all foreground, and of each structure.

    Raises:
        ExpertError: for one that is not heard as at home, with what differs.
    """
    found = {}
    for spec in (s for s in work.specs if s.kind == "nnunet"):
        result = agreement(HomeNNUNet(spec, mirroring=False), scan := _scan(work, spec),
                           student_grid(scan, spec.spacing or (0.0, 0.0, 0.0)))  # fmt: skip
        if result.below:
            text = ", ".join(f"{name} {dice:.3f}" for name, dice in result.below.items())
            raise ExpertError("the expert is not heard as it speaks at home", where=spec.name, got=text,
                              expected=f"Dice {FOREGROUND_BAR} of all, {STRUCTURE_BAR} of large structures",
                              hint="say how its training files lay: --orientation LPS, for example; "
                                   "--check False goes on all the same")  # fmt: skip
        found[spec.name] = {"foreground": result.foreground, "structures": result.structures, "grid": result.grid}
    return {"experts": found}


def _scan(work: Work, spec: ExpertSpec) -> MetaTensor:
    dataset = next(d for d in work.collection.datasets if not unread(spec, d))
    case = dataset.cases()[0]
    image = [str(p) for p in case.images]
    loaded: MetaTensor = LoadCased(keys="image")({"image": image[0] if len(image) == 1 else image, "case": case.id})[
        "image"
    ]
    return loaded
