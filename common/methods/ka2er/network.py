"""KA2ER: a student that is trained while it may ask frozen experts, and works without them afterwards.

``KA2ERStudent`` is the network that remains, ``KA2ER`` the training network around it, ``KA2ERLoss`` its objective.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import ConfigError, PromptError
from ...experts.expert_set import ExpertSet
from ...experts.features import Heard
from ...layers.fusion.amalgamation import AttentionMap, HierarchicalAmalgamation, attention_volume
from ...prompts import boxes_from_label, drop_boxes, jitter_boxes
from .experts import (
    Crop,
    Teacher,
    ask_experts,
    expert_teacher,
    external_expert,
    feature_width,
    hear_experts,
    initial_teacher,
    plain,
)
from .loss import KA2EROutputs
from .student import KA2ERStudent

__all__ = ["KA2ER", "PROMPT_SOURCES"]

REGULARISERS = ("kl_expert", "kl_init", "none")
PROMPT_SOURCES = ("gt", "expert", "user", "none")


class KA2ER(nn.Module):
    """The training network.

    ``f_s = A(S_enc(X))``; ``f_m = CA_ext(CA_task(f_s, e_task), e_ext)``; both are decoded by the same decoder. Experts
    are frozen, run without gradients, and are no part of parameters, buffers or state dict. Only the experts of the
    tasks in the batch run, each on its own samples.

    Args:
        student: the network that remains.
        experts: loaded experts; None for a student alone.
        tasks: dataset names in the order of the task ids.
        structures: the K foreground names of the union label space.
        amalgamation: False trains the same student without asking experts.
        use: which experts are asked: a part of ``("task", "external")``.
        heads: heads of the cross-attentions.
        local: the cross-attentions start by looking at the token's own place.
        reg: ``kl_expert`` (towards the task's expert), ``kl_init`` (towards the student as it is now) or ``none``.
        prompt_source: boxes from ``gt`` (the label), ``expert`` (its prediction), ``user`` (passed in) or ``none``.
        prompt_dropout: probability that a sample's boxes, and besides single ones, are hidden in training.
        box_jitter: largest move of a box corner in training, in voxels.
        student_path: also decode ``f_s`` in training, for a loss on the path that inference takes.
        spacing: mm per voxel of the crops along x, y, z, when the call does not give it.
        axcodes: directions of the crops' axes, when the call does not give them.

    Raises:
        ConfigError: for unknown choices, or choices that need experts when there are none.
        ExpertError: when a task has no expert or an expert too few feature maps.

    Reference:
        KA2ER, sections 3.2 and 3.3.
    """

    def __init__(
        self,
        *,
        student: KA2ERStudent,
        tasks: Sequence[str],
        structures: Sequence[str],
        experts: ExpertSet | None = None,
        amalgamation: bool = True,
        use: Sequence[str] = ("task", "external"),
        heads: int = 12,
        local: bool = True,
        reg: str = "kl_expert",
        prompt_source: str = "gt",
        prompt_dropout: float = 0.15,
        box_jitter: float = 2.0,
        student_path: bool = True,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        axcodes: str = "RAS",
    ) -> None:
        super().__init__()
        self.student, self.tasks, self.structures = student, tuple(tasks), tuple(structures)
        self.use, self.reg, self.prompt_source = tuple(use), reg, prompt_source
        self.prompt_dropout, self.box_jitter, self.student_path = prompt_dropout, box_jitter, student_path
        self.spacing, self.axcodes = tuple(spacing), axcodes
        if isinstance(experts, nn.Module):
            raise ConfigError("experts must not become a part of the network", got=type(experts).__name__)
        self.experts = experts
        self._expert_device: torch.device | None = None
        self._check(asks=amalgamation and "task" in self.use)
        levels = range(len(student.level_channels) if amalgamation else 0)
        self.amalgamation = nn.ModuleList(self._build(level, heads, local) for level in levels)
        self.initial = copy.deepcopy(student).requires_grad_(False).eval() if reg == "kl_init" else None

    @property
    def _panel(self) -> ExpertSet:
        if self.experts is None:
            hint = "give experts, or set amalgamation false, reg none and another prompt_source"
            raise ConfigError("there are no experts to ask", where="KA2ER", got="experts null", hint=hint)
        return self.experts

    @property
    def _needs_logits(self) -> bool:
        return self.reg == "kl_expert" or self.prompt_source == "expert"

    def _check(self, *, asks: bool) -> None:
        for where, value, known in (
            ("reg", self.reg, REGULARISERS),
            ("prompt_source", self.prompt_source, PROMPT_SOURCES),
        ):
            if value not in known:
                raise ConfigError("unknown choice", where=where, got=value, expected=", ".join(known))
        if len(self.structures) != self.student.num_structures:
            got = (len(self.structures), self.student.num_structures)
            raise ConfigError("structures and student differ", where="structures", got=got)
        if not 0 <= self.prompt_dropout <= 1 or self.box_jitter < 0:
            got_pair = (self.prompt_dropout, self.box_jitter)
            raise ConfigError("prompt_dropout lies in 0..1 and box_jitter is not negative", got=got_pair)
        if self._needs_logits or asks:
            for task in self.tasks:
                self._panel.for_task(task)

    def _build(self, level: int, heads: int, local: bool) -> HierarchicalAmalgamation:
        asked = self.tasks if "task" in self.use else ()
        external = external_expert(self._panel) if "external" in self.use else None
        return HierarchicalAmalgamation(
            channels=self.student.level_channels[level],
            expert_channels={t: feature_width(self._panel.for_task(t), level) for t in asked},
            external_channels=None if external is None else feature_width(external, level),
            heads=heads,
            use=self.use,
            local=local,
        )

    def train(self, mode: bool = True) -> KA2ER:
        """Train the student; its frozen initial copy stays in evaluation mode."""
        super().train(mode)
        if self.initial is not None:
            self.initial.eval()
        return self

    def forward(
        self,
        image: Tensor,
        raw: Tensor | None = None,
        stats: Tensor | None = None,
        task_id: Tensor | None = None,
        annotated: Tensor | None = None,
        label: Tensor | None = None,
        boxes: Tensor | None = None,
        spacing: Sequence[float] | None = None,
        axcodes: str | None = None,
        *,
        need_weights: bool = False,
    ) -> KA2EROutputs:
        """One step.

        Args:
            image: ``[B, C, X, Y, Z]`` as the student sees it.
            raw: ``[B, C, X, Y, Z]`` the same crop with untouched intensities, for the experts.
            stats: ``[B, C, 10]`` intensity statistics of the whole volumes.
            task_id: ``[B]`` index into ``tasks``.
            annotated: ``[B, K+1]`` bool; boxes of structures that are not annotated are not used.
            label: ``[B, 1, X, Y, Z]`` for boxes from the ground truth.
            boxes: ``[B, K, 2, 3]`` for prompt source ``user``.
            spacing: mm per voxel.
            axcodes: directions of the crop's axes.
            need_weights: also return attention maps.
        """
        image, crop = plain(image), self._crop(raw, stats, task_id, spacing, axcodes)
        told = self._hear(crop)
        teacher = self._teacher(crop, told)
        prompts = self._prompts(image, label, annotated, boxes, teacher)
        hidden = self.student.encode(image)
        f_s = self.student.absorb(hidden)
        f_m, attention = self._ask(f_s, self.student.grids(hidden), crop, need_weights, told)
        logits = self.student.mask_head(self.student.decode(image, hidden, f_m), prompts)
        student_logits = None
        if self.training and self.student_path and self.amalgamation:
            student_logits = self.student.mask_head(self.student.decode(image, hidden, f_s), prompts)
        if self.initial is not None:
            teacher = initial_teacher(self.initial, image, prompts, exclusive=self.student.exclusive)
        probabilities, classes = teacher if teacher is not None and self.reg != "none" else (None, None)
        return KA2EROutputs(logits, student_logits, f_s, f_m, probabilities, classes, attention)

    def _crop(
        self,
        raw: Tensor | None,
        stats: Tensor | None,
        task_id: Tensor | None,
        spacing: Sequence[float] | None,
        axcodes: str | None,
    ) -> Crop | None:
        if not (self.amalgamation or self._needs_logits):
            return None
        if raw is None or stats is None or task_id is None:
            given = {"raw": raw, "stats": stats, "task_id": task_id}
            missing = [name for name, value in given.items() if value is None]
            raise ConfigError("experts cannot answer without these keys", where="KA2ER", got=f"no {', '.join(missing)}")
        if self._expert_device != raw.device:
            self._panel.to(raw.device)
            self._expert_device = raw.device
        return Crop(plain(raw), plain(stats), task_id, tuple(spacing or self.spacing), axcodes or self.axcodes)

    def _hear(self, crop: Crop | None) -> dict[int, Heard]:
        """One pass of the tasks' experts where features and logits are wanted; empty where one of them is."""
        if crop is None or not (self._needs_logits and self.amalgamation and "task" in self.use):
            return {}
        return hear_experts(self._panel, self.tasks, crop)

    def _teacher(self, crop: Crop | None, told: dict[int, Heard]) -> Teacher | None:
        if crop is None or not self._needs_logits:
            return None
        return expert_teacher(self._panel, self.tasks, self.structures, crop, told)

    def _prompts(
        self,
        image: Tensor,
        label: Tensor | None,
        annotated: Tensor | None,
        boxes: Tensor | None,
        teacher: Teacher | None,
    ) -> Tensor | None:
        """Boxes ``[B, K, 2, 3]`` by the chosen source, in training moved and partly hidden."""
        if self.prompt_source == "none" or (self.prompt_source == "user" and boxes is None):
            return None
        if self.prompt_source == "gt":
            if label is None:
                raise PromptError("boxes from the ground truth need the label", where="prompt_source", got="no label")
            boxes = boxes_from_label(plain(label), len(self.structures))
            if annotated is not None:
                boxes = boxes.masked_fill(~annotated[:, 1:, None, None].to(boxes.device), torch.nan)
        elif self.prompt_source == "expert" and teacher is not None:
            best = teacher.probabilities.argmax(1, keepdim=True)
            boxes = boxes_from_label(best, len(self.structures))
        if boxes is None:
            return None
        if self.training:
            if self.prompt_source != "user":
                boxes = jitter_boxes(boxes, self.box_jitter, image.shape[2:])
            boxes = drop_boxes(boxes, self.prompt_dropout)
        return boxes.to(image.device)

    def _ask(
        self,
        f_s: tuple[Tensor, ...],
        grids: Sequence[Sequence[int]],
        crop: Crop | None,
        need_weights: bool,
        told: dict[int, Heard] | None = None,
    ) -> tuple[tuple[Tensor, ...], tuple[tuple[AttentionMap, ...], ...] | None]:
        """``f_m`` per level; without amalgamation the very same tensors."""
        if not self.amalgamation or crop is None:
            return f_s, None
        answers = ask_experts(self._panel, self.tasks, self.use, crop, told)
        results = [
            block(tokens, grid, *answers.level(level), need_weights=need_weights)
            for level, (block, tokens, grid) in enumerate(zip(self.amalgamation, f_s, grids, strict=True))
        ]
        return tuple(r.tokens for r in results), tuple(r.attention for r in results) if need_weights else None

    @torch.no_grad()
    def attention_pictures(self, image: Tensor, raw: Tensor, stats: Tensor, task_id: Tensor) -> dict[str, Tensor]:
        """Where each expert is asked for, finest level, as volumes over the crop; 1 is even attention.

        Returns:
            ``{"task": [B, 1, X, Y, Z], "external": [B, 1, X, Y, Z]}``, as far as these sources are used.
        """
        crop = self._crop(raw, stats, task_id, None, None)
        image = plain(image)
        hidden = self.student.encode(image)
        _, attention = self._ask(self.student.absorb(hidden), self.student.grids(hidden), crop, True)
        volumes: dict[str, Tensor] = {}
        for found in attention[-1] if attention else ():
            name = "external" if found.task < 0 else "task"
            volume = volumes.setdefault(name, torch.zeros(image.shape[0], 1, *image.shape[2:], device=image.device))
            volume[found.samples] = attention_volume(found.weights, found.grid, image.shape[2:])
        return volumes
