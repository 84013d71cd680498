"""An nnU-Net student as nnU-Net's own results folders, which ``nnUNetv2_predict`` reads."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ignite.distributed as idist
import torch
from torch import Tensor

from ...atomic import atomic_write
from ...backbones.nnunet.collection import free_name
from ...backbones.nnunet.plan import Plan
from ...card import ModelCard
from ...command_words import shown
from ...contract import Contract
from ...errors import WeightError
from ...experts.export import write_results_folder
from ...literals import disk_name
from ...tables import markdown_text
from ...weights import read_state_dict
from .planned import plan_of_card, student_overlap
from .student import NNUNET

__all__ = ["NEVER", "Results", "export_run", "export_student", "predict_command"]

NEVER = -1e3
# Logit of a structure that was never taught on a modality. nnU-Net adds logits up in 16 bits, after weights of up to
# 10: ten times this is far from what they hold (65,504), ten times -1e4 is infinite there, and nnU-Net then gives up.
_DIGITS = 6
_OURS = ("configuration", "by_modality", "turned", "settings_sha256")  # entries of plans that nnU-Net does not have
_NNUNETS_STEP = 0.5
_BIAS = re.compile(r"decoder\.seg_layers\.\d+\.bias")


class Results(NamedTuple):
    """One results folder.

    Args:
        folder: with ``plans.json``, ``dataset.json`` and ``fold_0``.
        modalities: of the scans that it is for; empty when it is for all.
        untaught: structures that it leaves out, because they were never taught on these.
        orientation: axis codes that files must have, None where nnU-Net's reader turns them itself.
        step: of its tiles, as a share of their size.
    """

    folder: Path
    modalities: tuple[str, ...]
    untaught: tuple[str, ...]
    orientation: str | None
    step: float = 0.5

    @property
    def command(self) -> str:
        """What answers as the student's own pass does."""
        return predict_command(self.folder, self.step)

    @property
    def told(self) -> str:
        """What it is for, in words."""
        words = [
            f"for {', '.join(self.modalities)}" if self.modalities else "",
            f"without {', '.join(self.untaught)}, never taught there" if self.untaught else "",
            f"its files must lie {self.orientation}: nnU-Net does not turn them" if self.orientation else "",
        ]
        return "; ".join(w for w in words if w) or "for all scans"


def predict_command(folder: str | Path, step: float) -> str:
    """nnU-Net's command for a results folder; it takes the step of tiles on its command line alone.

    Args:
        folder: with ``plans.json``.
        step: of the tiles, as a share of their size.
    """
    command = f"nnUNetv2_predict_from_modelfolder -i SCANS -o OUT -m {shown(str(folder))} -f 0"
    return command if step == _NNUNETS_STEP else f"{command} -step_size {step:g}"


def export_student(model: str | Path, out: str | Path, *, name: str | None = None) -> list[Results]:
    """Write a trained nnU-Net student as results folders, one for each way of normalising and set of structures.

    All hold the same weights and the same ``plans.json``; its configurations differ in the normalisation, and the heads
    in the bias of structures that were never taught on the modality.

    Args:
        model: ``model.pt`` with its card.
        out: plays the part of nnU-Net's results folder.
        name: of the data set; the one that was planned for when None.

    Raises:
        WeightError: when the weights are of a Swin UNETR, or say nothing of their plans.
    """
    state, card = read_state_dict(model)
    settings = {} if card is None else dict(card.extra.get("settings") or {})
    plan = None if card is None else plan_of_card({**settings, "labels": card.labels, "channels": card.channels}, model)
    if card is None or plan is None:
        raise WeightError("only a student that is an nnU-Net leaves as nnU-Net results", where=model,
                          got="weights without a card" if card is None else "a Swin UNETR student",
                          expected=f'a model.pt whose card says "student": "{NNUNET}"',
                          hint="train with configs/nnunet.json; --format torchscript takes any student")  # fmt: skip
    axes = tuple(settings.get("mirror_axes", ())) or None
    named = name or str(plan.dataset_json.get("name") or card.bundle)
    plans, parts = _parts(plan, card, Contract.of_card(card, model))
    found, step = [], round(1 - student_overlap(settings=settings, path=model), _DIGITS)
    for part in parts:
        own = Plan(plans, _dataset_json(plan, part), part.configuration, plan.folder)
        weights = _without(state, [plan.labels.index(n) for n in part.untaught])
        folder = write_results_folder(out, plan=own, model=weights, name=named, mirror_axes=axes)
        found.append(Results(folder, part.modalities, part.untaught, plan.turned, step))
    _write_readme(Path(out), found)
    return found


def _write_readme(root: Path, found: Sequence[Results]) -> None:
    """The commands that read the folders, beside them."""
    lines = ["# A student as nnU-Net's results", "",
             "Each command answers as the student's own pass does, but for mirroring: add `--disable_tta` where that "
             "is not wanted. Start it in this folder.", ""]  # fmt: skip
    for one in found:
        own = one._replace(folder=one.folder.relative_to(root))
        lines += [f"{markdown_text(one.told)}:", "", f"    {own.command}", ""]
    with atomic_write(root / "README.md") as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")


def export_run(*, ckpt_dir: str | Path, output_dir: str | Path) -> list[Results]:
    """What a finished training leaves for nnU-Net, in ``<output_dir>/nnunet``; nothing on all processes but the first.

    Args:
        ckpt_dir: folder of ``model.pt``.
        output_dir: folder of the run.
    """
    if idist.get_rank() != 0:
        return []
    return export_student(Path(ckpt_dir) / "model.pt", Path(output_dir) / "nnunet")


class _Part(NamedTuple):
    configuration: str
    modalities: tuple[str, ...]
    channels: tuple[str, ...]
    untaught: tuple[str, ...]


def _parts(plan: Plan, card: ModelCard, contract: Contract) -> tuple[dict[str, Any], list[_Part]]:
    """The plans, and which modalities share a folder: those that are normalised alike and were taught the same.

    A configuration whose folder some disk would take for another's gets a name of its own.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for modality, configuration in plan.by_modality.items():
        taught = contract.taught_on([modality])
        left = () if taught is None else tuple(n for n in plan.labels.names if n not in taught)
        groups.setdefault((configuration, left), []).append(modality)
    plans = {k: v for k, v in copy.deepcopy(plan.plans).items() if k not in _OURS}
    parts: list[_Part] = []
    for (configuration, left), modalities in groups.items():
        own = configuration
        if any(disk_name(part.configuration) == disk_name(configuration) for part in parts):
            own = free_name(plan.configuration, modalities[0], plans["configurations"])
            plans["configurations"][own] = {"inherits_from": configuration}
        entry: Mapping[str, Any] = contract.modalities.get(modalities[0], {})
        channels = tuple(map(str, entry.get("channels") or plan.channels))
        parts.append(_Part(own, tuple(modalities), channels, left))
    return plans, parts or [_Part(plan.configuration, (), plan.channels, ())]


def _dataset_json(plan: Plan, part: _Part) -> dict[str, Any]:
    channels = part.channels if len(part.channels) == len(plan.channels) else plan.channels
    return {**plan.dataset_json, "channel_names": {str(i): c for i, c in enumerate(channels)}}


def _without(state: Mapping[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    """The weights with heads that never answer some classes."""
    result = dict(state)
    for key, value in state.items() if rows else ():
        if _BIAS.fullmatch(key):
            bias = value.detach().clone()
            bias[torch.tensor(rows)] = NEVER
            result[key] = bias
    return result
