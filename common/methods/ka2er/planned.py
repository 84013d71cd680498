"""Which student a card describes: a Swin UNETR, or an nnU-Net with its plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.inferers import Inferer
from torch import nn

from ...backbones.nnunet.network import build_network
from ...backbones.nnunet.plan import Plan, plan_of_settings
from ...backbones.nnunet.window import NNUNetTiles
from ...errors import ConfigError, WeightError
from .student import NNUNET, SWIN_UNETR, KA2ERStudent

__all__ = ["plan_of_card", "student_inferer", "student_network", "student_overlap"]

_OVERLAP = 0.5
# Of students that were trained before their cards said it, and of nnU-Net.


def plan_of_card(settings: Mapping[str, Any], path: str | Path = "", *, boxes: bool = False) -> Plan | None:
    """The plan of an nnU-Net student; None when a card's student is a Swin UNETR.

    Args:
        settings: of :func:`~common.engine.run.settings.model_settings`; a card may come from anywhere.
        path: the weights file, for messages.
        boxes: whether the student has to read boxes.

    Raises:
        WeightError: for an unknown student, or settings that do not belong together.
        ConfigError: when boxes are wanted of an nnU-Net.
    """
    kind = settings.get("student", SWIN_UNETR)
    if kind == SWIN_UNETR:
        return None
    if kind != NNUNET:
        raise WeightError("the card names an unknown student", where=path, got=ascii(kind)[:60],
                          expected=f"{SWIN_UNETR} or {NNUNET}")  # fmt: skip
    missing = [key for key in ("plans", "dataset_json", "configuration") if not settings.get(key)]
    if missing:
        raise WeightError("the weights' card lacks settings", where=path, expected=", ".join(missing))
    if boxes:
        raise ConfigError("this student is an nnU-Net and reads no boxes", where=path or None,
                          hint="offer it as segmentation, or train a Swin UNETR student")  # fmt: skip
    plan = plan_of_settings(settings, Path(path).parent, where=path)
    labels, channels, axes = settings["labels"], settings["channels"], settings.get("mirror_axes", [])
    if (plan.labels.names, len(plan.channels)) != (labels.names, len(channels)) or not plan.labels.exclusive:
        raise WeightError("the card's plans are of another student", where=path, got=", ".join(plan.labels.names),
                          expected=", ".join(labels.names))  # fmt: skip
    if (
        not isinstance(axes, list)
        or len(set(map(repr, axes))) < len(axes)
        or any(type(axis) is not int or not 0 <= axis < len(plan.patch_size) for axis in axes)
    ):
        raise WeightError("the card is damaged", where=f"{path}, settings.mirror_axes", got=ascii(axes)[:60],
                          expected="some of 0, 1, 2, each once")  # fmt: skip
    return plan


def student_network(*, settings: Mapping[str, Any], plan: Plan | None = None) -> nn.Module:
    """The student that a card describes, with random weights.

    Args:
        settings: as in :func:`plan_of_card`.
        plan: what that found.
    """
    if plan is not None:
        return build_network(
            plan.plans,
            plan.configuration,
            in_channels=len(plan.channels),
            out_channels=plan.out_channels,
            where=plan.folder,
        )
    own = settings["network"]
    return KA2ERStudent(
        num_structures=len(settings["labels"]),
        in_channels=len(settings["channels"]),
        exclusive=settings["exclusive"],
        **{key: own[key] for key in ("feature_size", "levels", "prompt_fuse", "fuse_at", "num_heads")},
    )


def student_overlap(*, settings: Mapping[str, Any], path: str | Path = "") -> float:
    """The share of a tile that neighbours share in a student's pass, as its card says: that of its experts.

    Args:
        settings: of a card, which may come from anywhere.
        path: the weights file, for messages.

    Raises:
        WeightError: for what is none.
    """
    value = settings.get("overlap", _OVERLAP)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise WeightError("the card is damaged", where=f"{path}, settings.overlap", got=ascii(value)[:60],
                          expected="a share of a tile, in [0, 1)")  # fmt: skip
    return float(value)


def student_inferer(
    *,
    windows: Inferer,
    settings: Mapping[str, Any],
    plan: Plan | None = None,
    overlap: float = 0.5,
    mirror: bool = False,
) -> Inferer:
    """Sliding windows for a Swin UNETR, nnU-Net's own predictor for an nnU-Net.

    Args:
        windows: of the Swin UNETR.
        settings: as in :func:`plan_of_card`.
        plan: what that found.
        overlap: share of a tile that neighbours share.
        mirror: average over mirrored copies, along the axes that training flipped.

    Raises:
        ConfigError: when a Swin UNETR's answers were to be mirrored.
    """
    if plan is not None:
        return NNUNetTiles(plan=plan, overlap=overlap, mirror=settings.get("mirror_axes", ()) if mirror else ())
    if mirror:
        raise ConfigError("only an nnU-Net student averages over mirrored copies", where="mirror", got=mirror,
                          expected="false")  # fmt: skip
    return windows
