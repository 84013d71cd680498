"""What a KA2ER training step yields and the objective that judges it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...layers.fusion.amalgamation import AttentionMap
from ...losses.distillation import ALIGN_KINDS, align, kl_divergence
from ...losses.segmentation import annotated_dice_ce
from .experts import plain

__all__ = ["KA2ERLoss", "KA2EROutputs"]


class KA2EROutputs(NamedTuple):
    """What a training step yields.

    Args:
        logits: ``[B, K+1 or K, X, Y, Z]`` decoded from ``f_m`` (which is ``f_s`` without amalgamation).
        student_logits: the same decoded from ``f_s``, as at inference; None where it was not asked for.
        f_s: student tokens ``[B, N, C]`` per level.
        f_m: amalgamated tokens, the same shapes; the very same tensors without amalgamation.
        expert_probabilities: ``[B, K+1, X, Y, Z]`` of the teacher at the union's indices; None without regulariser.
        expert_classes: ``[B, K+1]`` bool, the union's classes that the teacher knows; None without regulariser.
        attention: attention maps per level where asked for, otherwise None.
    """

    logits: Tensor
    student_logits: Tensor | None
    f_s: tuple[Tensor, ...]
    f_m: tuple[Tensor, ...]
    expert_probabilities: Tensor | None
    expert_classes: Tensor | None
    attention: tuple[tuple[AttentionMap, ...], ...] | None


class KA2ERLoss(nn.Module):
    """``L = (1 - v) (w_seg S(f_m) + w_reg R(f_m)) + w_align A(f_s, f_m) + (w_path + v) (w_seg S(f_s) + w_reg R(f_s))``.

    ``S`` is Dice plus cross-entropy over annotated classes, ``A`` the alignment, ``R`` the Kullback-Leibler divergence
    from the teacher (the task's expert, or the student before training). Whatever is asked of the amalgamated path is
    asked of the student's own path too, with weight ``student_path``, because inference takes that one. The share v,
    0 at first, moves weight from the one to the other: the student learns to do without experts.

    Args:
        segmentation: weight of S, >= 0.
        align: weight of A, >= 0.
        align_kind: ``mse``, ``normalised`` (squared, of tokens brought to unit variance), ``l2`` (the paper's equation
            to the letter) or ``cosine``.
        align_detach: no gradient of A into ``f_m``.
        reg: weight of R at first, >= 0.
        reg_end: weight of R at the end, >= 0; as at first when None.
        reg_balanced: R is a mean over classes instead of voxels.
        student_path: weight of the student's own path, >= 0; 0 is the paper.
        wean: v at the end, 0..1, the share of the amalgamated path's weight that the student's path takes over.
        dice: share of Dice in S, >= 0.
        ce: share of cross-entropy in S, >= 0.
        exclusive: softmax or sigmoid.

    Raises:
        ConfigError: for an unknown alignment, a negative weight or a share ``wean`` outside 0..1.

    Reference:
        KA2ER, equations 1 and 2. The student's path, weaning and the detached alignment are ours.
    """

    def __init__(
        self,
        *,
        segmentation: float = 1.0,
        align: float = 1.0,
        align_kind: str = "mse",
        align_detach: bool = True,
        reg: float = 0.1,
        reg_end: float | None = None,
        reg_balanced: bool = True,
        student_path: float = 0.5,
        wean: float = 0.0,
        dice: float = 1.0,
        ce: float = 1.0,
        exclusive: bool = True,
    ) -> None:
        super().__init__()
        weights = {"segmentation": segmentation, "align": align, "reg": reg, "student_path": student_path}
        weights |= {"dice": dice, "ce": ce}
        self.reg_start, self.reg_end, self.wean = reg, reg if reg_end is None else reg_end, wean
        if not 0 <= wean <= 1:
            raise ConfigError("the student is weaned by a share", where="wean", got=wean, expected="0 .. 1")
        if min(*weights.values(), self.reg_end) < 0:
            raise ConfigError("loss weights must not be negative", where="KA2ERLoss", got=weights)
        if align_kind not in ALIGN_KINDS:
            raise ConfigError("unknown choice", where="align_kind", got=align_kind, expected=", ".join(ALIGN_KINDS))
        self.weights, self.align_kind, self.align_detach, self.exclusive = weights, align_kind, align_detach, exclusive
        self.reg_balanced = reg_balanced
        self.weaned = 0.0

    def set_progress(self, done: float) -> None:
        """Say how much of the training is done, 0..1: R's weight and v move linearly to their ends.

        Raises:
            ConfigError: for a share outside 0..1.
        """
        if not 0 <= done <= 1:
            raise ConfigError(
                "progress is a share of the training", where="KA2ERLoss.set_progress", got=done, expected="0 .. 1"
            )
        self.weights["reg"] = self.reg_start + done * (self.reg_end - self.reg_start)
        self.weaned = done * self.wean

    def forward(self, outputs: KA2EROutputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Judge a step.

        Args:
            outputs: of :class:`KA2ER`.
            targets: ``label [B, 1, X, Y, Z]`` and ``annotated [B, K+1]``.

        Returns:
            ``loss`` and the unweighted terms ``dice``, ``ce``, ``align``, ``reg``, ``student_dice``, ``student_ce``,
            ``student_reg``, as far as they were computed.

        Raises:
            ConfigError: when the student's path has a weight but was not decoded.
        """
        w = self.weights
        loss, terms = self._path(outputs, outputs.logits, targets, "")
        amalgamated = outputs.f_m is not outputs.f_s
        student_path = w["student_path"] + self.weaned
        loss = loss * (1 - self.weaned) if amalgamated else loss
        if amalgamated and w["align"] > 0:
            terms["align"] = align(outputs.f_s, outputs.f_m, kind=self.align_kind, detach=self.align_detach)
            loss = loss + w["align"] * terms["align"]
        if amalgamated and student_path > 0:
            if outputs.student_logits is None:
                if torch.is_grad_enabled():
                    raise ConfigError(
                        "the student's path has a weight but was not decoded",
                        where="KA2ERLoss.student_path",
                        got=student_path,
                        hint="set KA2ER's student_path true, or the weight 0",
                    )
            else:
                own, own_terms = self._path(outputs, outputs.student_logits, targets, "student_")
                loss, terms = loss + student_path * own, {**terms, **own_terms}
        return {"loss": loss, **terms}

    def _path(
        self, outputs: KA2EROutputs, logits: Tensor, targets: Mapping[str, Tensor], name: str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        w = self.weights
        dice, ce = annotated_dice_ce(logits, plain(targets["label"]), targets["annotated"], exclusive=self.exclusive)
        terms = {f"{name}dice": dice, f"{name}ce": ce}
        loss = w["segmentation"] * (w["dice"] * dice + w["ce"] * ce)
        teacher, known = outputs.expert_probabilities, outputs.expert_classes
        if teacher is not None and known is not None and w["reg"] > 0:
            reg = kl_divergence(logits, teacher, known, exclusive=self.exclusive, balanced=self.reg_balanced)
            terms[f"{name}reg"] = reg
            loss = loss + w["reg"] * reg
        return loss, terms
