"""What KA2ER asks its experts: features to attend to, and probabilities to stay close to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from ...errors import ConfigError, ExpertError
from ...experts.expert_set import Expert, ExpertSet
from ...experts.features import Heard
from ...layers.fusion.amalgamation import ExpertFeatures

__all__ = [
    "Answers",
    "Crop",
    "Teacher",
    "ask_experts",
    "expert_teacher",
    "external_expert",
    "feature_width",
    "hear_experts",
    "initial_teacher",
    "plain",
    "samples_by_task",
]


def plain(tensor: Tensor) -> Tensor:
    """The tensor without MONAI's metadata, whose bookkeeping costs time in every operation."""
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


class Crop(NamedTuple):
    """What an expert needs to know about a batch of crops.

    Args:
        raw: ``[B, C, X, Y, Z]`` intensities that nobody normalised.
        stats: ``[B, C, 10]`` intensity statistics of the whole volumes.
        task_id: ``[B]`` integers.
        spacing: mm per voxel along x, y, z.
        axcodes: directions of the axes.
    """

    raw: Tensor
    stats: Tensor
    task_id: Tensor
    spacing: tuple[float, ...]
    axcodes: str


class Teacher(NamedTuple):
    """Probabilities ``[B, K+1, X, Y, Z]`` at the union's indices and the classes ``[B, K+1]`` that they cover."""

    probabilities: Tensor
    classes: Tensor


class Answers(NamedTuple):
    """Feature maps, deepest last: ``task[t]`` for the ``samples[t]`` of task t, ``external`` for the whole batch."""

    samples: dict[int, Tensor]
    task: dict[int, list[Tensor]]
    external: list[Tensor] | None

    def level(self, level: int) -> tuple[dict[int, ExpertFeatures], Tensor | None]:
        """What a level of the student (0 is the deepest) may attend to."""
        parts = {t: ExpertFeatures(self.samples[t], maps[-1 - level]) for t, maps in self.task.items()}
        return parts, None if self.external is None else self.external[-1 - level]


@torch.no_grad()
def hear_experts(experts: ExpertSet, tasks: Sequence[str], crop: Crop) -> dict[int, Heard]:
    """Features and logits of the experts of the batch's own tasks, each on its own samples, in one pass each."""
    return {
        t: experts.for_task(tasks[t]).both(crop.raw[s], crop.stats[s], crop.spacing, crop.axcodes)
        for t, s in samples_by_task(crop.task_id, tasks).items()
    }


@torch.no_grad()
def ask_experts(
    experts: ExpertSet, tasks: Sequence[str], use: Sequence[str], crop: Crop, told: Mapping[int, Heard] | None = None
) -> Answers:
    """Run the experts of the batch's own tasks, each on its own samples, and the external one on all.

    Args:
        experts: all of them.
        tasks: dataset names in the order of the task ids.
        use: which kinds are asked.
        crop: about what.
        told: what :func:`hear_experts` heard of the same crop; it is not asked again.
    """
    samples, told = samples_by_task(crop.task_id, tasks) if "task" in use else {}, told or {}
    heard = {t: told[t].features for t in samples if t in told}
    for t, s in samples.items():
        if t not in heard:
            heard[t] = experts.for_task(tasks[t]).features(crop.raw[s], crop.stats[s], crop.spacing, crop.axcodes)
    external = None
    if "external" in use:
        external = external_expert(experts).features(crop.raw, crop.stats, crop.spacing, crop.axcodes)
    return Answers(samples, heard, external)


def external_expert(experts: ExpertSet) -> Expert:
    """The one task-agnostic expert.

    Raises:
        ConfigError: when there is none or more than one.
    """
    found = tuple(experts.external)
    if len(found) != 1:
        names = [e.spec.name for e in found]
        raise ConfigError("exactly one external expert is needed", where="use", got=names, hint="or use=('task',)")
    return found[0]


def feature_width(expert: Expert, level: int) -> int:
    """Channels of the expert's features for a level of the student (0 is the deepest).

    Raises:
        ExpertError: when the expert has too few feature maps.
    """
    widths = list(expert.channels_of_features)
    if level >= len(widths):
        raise ExpertError(
            "the expert has too few feature maps", where=expert.spec.name, got=widths, expected=f"{level + 1} levels"
        )
    return widths[-1 - level]


def samples_by_task(task_id: Tensor, tasks: Sequence[str]) -> dict[int, Tensor]:
    """``{task id: its samples}`` for the tasks that occur in the batch, and no others.

    Raises:
        ConfigError: when an id names no task.
    """
    ids = sorted(set(task_id.tolist()))
    if task_id.ndim != 1 or not ids or not 0 <= ids[0] <= ids[-1] < len(tasks):
        raise ConfigError("task ids do not fit the tasks", got=task_id.tolist(), expected=f"0..{len(tasks) - 1}")
    return {t: (task_id == t).nonzero().flatten() for t in ids}


@torch.no_grad()
def expert_teacher(
    experts: ExpertSet,
    tasks: Sequence[str],
    structures: Sequence[str],
    crop: Crop,
    told: Mapping[int, Heard] | None = None,
) -> Teacher:
    """Each sample's probabilities by its task's expert, moved to the union's indices by name.

    Classes of the expert that the union does not know count as background. What :func:`hear_experts` has ``told`` of
    the same crop is not asked again.

    Raises:
        ExpertError: when an expert shares no structure with the union.
    """
    shape = (crop.raw.shape[0], len(structures) + 1, *crop.raw.shape[2:])
    probabilities = torch.zeros(shape, device=crop.raw.device)
    classes = torch.zeros(shape[:2], dtype=torch.bool, device=crop.raw.device)
    for task, samples in samples_by_task(crop.task_id, tasks).items():
        expert = experts.for_task(tasks[task])
        space = expert.spec.labels
        known = [name for name in space.names if name in structures]
        if not known:
            raise ExpertError("the expert knows none of the structures", where=expert.spec.name, got=space.names)
        if told and task in told:
            logits = told[task].logits.float()
        else:
            logits = expert.logits(crop.raw[samples], crop.stats[samples], crop.spacing, crop.axcodes).float()
        p = logits.softmax(1) if space.exclusive else logits.sigmoid()
        if p.shape[1] != len(space) + space.exclusive:
            raise ExpertError(
                "logits do not fit the label space", where=expert.spec.name, got=p.shape, expected=len(space)
            )
        place = torch.tensor([structures.index(n) + 1 for n in known], device=p.device)
        source = torch.tensor([space.names.index(n) + int(space.exclusive) for n in known], device=p.device)
        part = torch.zeros(len(samples), *shape[1:], device=p.device)
        part[:, place] = p[:, source]
        part[:, 0] = (1 - part[:, 1:].sum(1)).clamp(min=0) if space.exclusive else (1 - part[:, 1:]).prod(1)
        probabilities[samples] = part
        classes[samples[:, None], torch.cat([place.new_zeros(1), place])] = True
    return Teacher(probabilities, classes)


@torch.no_grad()
def initial_teacher(initial: nn.Module, image: Tensor, boxes: Tensor | None, *, exclusive: bool) -> Teacher:
    """Probabilities of the student as it was before training, over all classes."""
    logits = initial(image, boxes).float()
    p = logits.softmax(1) if exclusive else torch.cat([torch.zeros_like(logits[:, :1]), logits.sigmoid()], 1)
    return Teacher(p, torch.ones(p.shape[:2], dtype=torch.bool, device=p.device))
