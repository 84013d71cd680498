"""KA2ER's student as an nnU-Net, before its training: planned over the scans, or begun from an expert."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ...backbones.nnunet.collection import Start, plan_collection
from ...backbones.nnunet.folds import folds_there
from ...backbones.nnunet.network import (
    build_network,
    deep_supervision_when_training,
    describe_results,
    read_results_folder,
)
from ...backbones.nnunet.plan import Plan
from ...backbones.nnunet.widen import take_over
from ...data.datasets.dataset_json import Case
from ...errors import ExpertError
from ...experts.expert_set import check_unchanged
from ...experts.spec import ExpertSpec, read_manifest
from ...experts.tiles import Tiles
from .student import NNUNET

__all__ = ["begun_from", "nnunet_settings", "nnunet_student", "student_plan"]


def begun_from(start_from: str | Path) -> Start:
    """The trained nnU-Net that a student begins as.

    Args:
        start_from: its results folder (of several folds the first is taken), an ``expert.json``, or a list of experts
            with one nnU-Net.

    Raises:
        ExpertError: when there is no such nnU-Net, its files changed, or nobody knows how its scans lay.
        WeightError: when the folder cannot be read.
    """
    path = Path(start_from)
    if path.is_dir():
        places = sorted({p.parent.parent for p in path.rglob("fold_*/checkpoint_final.pth")})
        folds = [fold for place in places for fold in folds_there(place)]
        results = read_results_folder(path, fold=folds[0] if folds else 0)
        known = describe_results(results)["orientation"]
    else:
        spec = _only_nnunet(path)
        check_unchanged(spec)
        name = spec.checkpoint or "checkpoint_final.pth"
        results, known = read_results_folder(spec.path, spec.configuration, spec.folds[0], name), spec.orientation
        said = results.dataset_json.get("labels", {})  # the head's rows are found by the names of the description
        own = {**results.dataset_json, "labels": {spec.renamed.get(n, n): v for n, v in said.items()}}
        results = replace(results, dataset_json=own)
    reorients = describe_results(results)["orientation"]
    if known is None:
        raise ExpertError("nobody knows how this nnU-Net's training scans lay in the scanner", where=path,
                          got="a folder whose reader keeps each file's own directions",
                          expected="the expert's description with its orientation",
                          hint="python -m tools experts describe ... --orientation LPS (as its files), then "
                          "start_from that expert.json")  # fmt: skip
    return Start(results, None if reorients == known else known)


def _only_nnunet(path: Path) -> ExpertSpec:
    found = [spec for spec in read_manifest(path) if spec.kind == NNUNET]
    if len(found) != 1:
        raise ExpertError("a student begins as one nnU-Net", where=path,
                          got=", ".join(s.name for s in found) or "no nnU-Net",
                          expected="an nnU-Net's results folder, or its expert.json")  # fmt: skip
    return found[0]


def student_plan(
    *,
    dataset_dir: str | Path | Sequence[str | Path],
    output_dir: str | Path,
    start_from: str | Path | None = None,
    foreground: Callable[[Case], Any] | None = None,
    **knobs: Any,
) -> Plan:
    """Plan the student over a collection; :func:`~common.backbones.nnunet.collection.plan_collection` says the rest.

    Args:
        dataset_dir: the collection.
        output_dir: receives the plans.
        start_from: as in :func:`begun_from`; None lets nnU-Net's planner decide.
        foreground: for CT scans where no label map is used.
        knobs: of the planner.
    """
    start = None if start_from is None else begun_from(start_from)
    return plan_collection(dataset_dir, output_dir, start=start, foreground=foreground, **knobs)


def nnunet_student(*, plan: Plan, start_from: str | Path | None = None) -> nn.Module:
    """The network of a plan, in training with the logits of all decoder stages, otherwise with the finest alone.

    Args:
        plan: of :func:`student_plan`.
        start_from: the nnU-Net whose weights it takes over.

    Raises:
        ConfigError: when the plan is not that nnU-Net's.
        WeightError: when its weights do not fit.
    """
    options = {"in_channels": len(plan.channels), "out_channels": plan.out_channels}
    network = build_network(plan.plans, plan.configuration, deep_supervision=True, **options)
    if start_from is not None:
        take_over(network, begun_from(start_from).results, plan.labels)
    network.register_forward_pre_hook(_image_alone, with_kwargs=True)
    return deep_supervision_when_training(network)


def _image_alone(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A training may hand on what the other student makes boxes of."""
    return args, {k: v for k, v in kwargs.items() if k not in ("annotated", "label")}


def nnunet_settings(*, plan: Plan, mirror_axes: Sequence[int] = (), tiles: Tiles | None = None) -> dict[str, Any]:
    """What the card of an nnU-Net student says for inference.

    Args:
        plan: of the training.
        mirror_axes: axes of the preprocessed arrays along which training flipped.
        tiles: as its experts' lie; nnU-Net's own when None.
    """
    own = {} if tiles is None else {"overlap": tiles.overlap, "overlap_from": list(tiles.experts)}
    told = {"orientation": plan.orientation, "spacing": list(plan.spacing), "roi_size": list(plan.patch_size)}
    return {
        **plan.settings, **told, "student": NNUNET, "network": {}, "modalities": list(plan.by_modality),
        "mirror_axes": [int(axis) for axis in mirror_axes], **own,
    }  # fmt: skip
