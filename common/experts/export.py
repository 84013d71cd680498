"""What a finished expert training leaves behind: a nnU-Net results folder and the expert's description."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from torch import Tensor

from ..atomic import atomic_write
from ..backbones.nnunet.network import describe_results, read_results_folder
from ..backbones.nnunet.plan import Plan
from ..backbones.nnunet.planner import nnunet_name
from ..errors import ExpertError, WeightError
from ..integrity import sealed_write
from ..literals import check_file_name
from ..weights import read_state_dict
from .expert_set import hash_expert
from .spec import ExpertSpec

__all__ = ["export_expert", "write_results_folder"]

TRAINER = "nnUNetTrainer"


def write_results_folder(
    root: str | Path,
    *,
    plan: Plan,
    model: str | Path | Mapping[str, Tensor],
    name: str,
    mirror_axes: tuple[int, ...] | None = None,
) -> Path:
    """Write ``root/DatasetXXX_Name/nnUNetTrainer__<plans>__<configuration>`` as ``nnUNetPredictor`` reads it.

    Args:
        root: plays the part of nnU-Net's results folder.
        plan: plans, labels and configuration.
        model: the trained weights, or their file.
        name: dataset name.
        mirror_axes: axes that training mirrored, so that prediction may average over them; None for none.

    Returns:
        the folder with ``plans.json``.
    """
    dataset = nnunet_name(name)
    own = check_file_name(f"{plan.plans.get('plans_name')}__{plan.configuration}", "results", error=WeightError)
    folder = Path(root) / dataset / f"{TRAINER}__{own}"
    plans = {**plan.plans, "dataset_name": dataset}
    state = model if isinstance(model, Mapping) else read_state_dict(model)[0]
    checkpoint: dict[str, Any] = {
        "network_weights": dict(state),
        "trainer_name": TRAINER,
        "init_args": {
            "plans": plans,
            "configuration": plan.configuration,
            "fold": 0,
            "dataset_json": plan.dataset_json,
        },
        "inference_allowed_mirroring_axes": mirror_axes,
        "optimizer_state": None,
        "grad_scaler_state": None,
        "logging": {},
        "_best_ema": None,
        "current_epoch": 0,
    }
    for file, content in (("dataset.json", plan.dataset_json), ("plans.json", plans)):
        with atomic_write(folder / file) as temporary:
            temporary.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    with sealed_write(folder / "fold_0" / "checkpoint_final.pth") as temporary, temporary.open("wb") as stream:
        torch.save(checkpoint, stream)  # given a path, torch stores its (temporary) name and the hash would change
    return folder


def export_expert(
    *, plan: Plan, output_dir: str | Path, ckpt_dir: str | Path, name: str, role: str = "task", mirror: bool = True
) -> Path | None:
    """Make a trained model usable elsewhere: for nnU-Net (``nnunet/``), for stage 2 (``expert.json``) and inference.

    Args:
        plan: plans, labels and configuration.
        output_dir: folder of the run.
        ckpt_dir: folder of ``model.pt``; gets ``plans.json`` and ``dataset.json``.
        name: dataset name, also the expert's name and task.
        role: ``task`` or ``external``.
        mirror: whether training mirrored patches.

    Returns:
        ``expert.json``; None on all processes but the first.

    Raises:
        ExpertError: when there is no ``model.pt``.
    """
    if idist.get_rank() != 0:
        return None
    model, root = Path(ckpt_dir) / "model.pt", Path(output_dir)
    if not model.is_file():
        raise ExpertError("the training left no weights", where=model, hint="type the training command again")
    axes = tuple(range(len(plan.patch_size))) if mirror else None
    folder = write_results_folder(root / "nnunet", plan=plan, model=model, name=name, mirror_axes=axes)
    for file in ("plans.json", "dataset.json"):
        source, target = folder / file, Path(ckpt_dir) / file
        if not target.exists() or target.read_bytes() != source.read_bytes():
            shutil.copyfile(source, target)
    results = read_results_folder(folder)
    spec = ExpertSpec(
        name=name,
        kind="nnunet",
        path=str(folder),
        role=role,
        task=name if role == "task" else "",
        **describe_results(results),
    )
    entry = replace(spec, sha256=hash_expert(spec)).to_dict()
    entry["path"] = folder.relative_to(root).as_posix()
    with atomic_write(root / "expert.json") as temporary:
        temporary.write_text(json.dumps(entry, indent=4) + "\n", encoding="utf-8")
    return root / "expert.json"
