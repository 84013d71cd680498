"""What experts' answers and labels teach together: each judges the student in its own terms, and is one of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from ...errors import ConfigError, ExpertError, LabelError, few
from ...losses.marginal import FLOOR, divergence, gathered, overlap, region_divergence, terms
from ..regions import region_parts
from ..spec import ExpertSpec
from .record import LEVELS, expand

__all__ = ["AnswersLoss", "Judge", "judge_of", "width"]


class Judge(NamedTuple):
    """One expert's terms.

    Args:
        name: the expert's.
        structures: how many it answers about.
        exclusive: whether they exclude each other.
        place: which of its classes (of regions: which region) each row of ``matrix`` is; None for all of them in order.
        matrix: ``[Ke+1, K+1]`` of :func:`~common.losses.marginal.terms`; of regions ``[Re, K+1]``.
        known: the student's structures that it judges.
    """

    name: str
    structures: int
    exclusive: bool
    place: tuple[int, ...] | None
    matrix: Tensor
    known: tuple[str, ...]


def width(spec: ExpertSpec) -> int:
    """Bytes of a voxel of an expert's record."""
    return 5 if spec.labels.exclusive else len(spec.labels)


def judge_of(spec: ExpertSpec, structures: Sequence[str], regions: Mapping[str, Sequence[str]] | None = None) -> Judge:
    """An expert in the student's terms.

    Structures of the expert that the student has not belong to its background; regions that consist of none of the
    student's structures are left out.

    Args:
        spec: the expert.
        structures: the student's K names.
        regions: ``{region: its structures}`` where structures of the expert overlap. Of others its files tell
            (:func:`~common.experts.regions.region_parts`); where they do not, a region of the name of one of the
            student's structures is that structure alone.

    Raises:
        ExpertError: for an expert that knows nothing of what the student learns, or regions that it has not.
    """
    names, given = spec.labels.names, dict(regions or {})
    wrong = [n for n in given if n not in names] + [n for part in given.values() for n in part if n not in structures]
    if wrong or (given and spec.labels.exclusive):
        raise ExpertError("regions are an overlapping expert's, made of the student's structures",
                          where=f"expert {spec.name!r}", got=few(wrong) or "structures that exclude each other",
                          expected=f"regions of {few(names)}, structures of {few(structures)}")  # fmt: skip
    told = {**region_parts(spec, structures), **given}
    made = {n: tuple(told.get(n, (n,) if n in structures else ())) for n in names}
    kept = [n for n in names if made[n]]
    if not kept:
        raise ExpertError("the expert knows none of the structures that the student learns",
                          where=f"expert {spec.name!r}", got=few(names), expected=few(structures),
                          hint="leave this expert out, or name its structures as the data do"
                          + ("" if spec.labels.exclusive else ", or say with --regions what its regions consist of"),
                          )  # fmt: skip
    place = None if len(kept) == len(names) else tuple(names.index(n) for n in kept)
    if spec.labels.exclusive:
        return Judge(spec.name, len(names), True, place, terms(kept, structures), tuple(kept))
    matrix = torch.tensor([[0.0, *(float(s in made[n]) for s in structures)] for n in kept])
    known = tuple(s for s in structures if any(s in made[n] for n in kept))
    return Judge(spec.name, len(names), False, place, matrix, known)


class AnswersLoss(nn.Module):
    """``L = mean_b sum_s w_s l_s / sum_s w_s`` over those s that speak about sample b: experts, and the label.

    An expert's ``l_e = T^2 KL(p_e || M_e q_T) + D(p_e, M_e q)``: divergence and soft Dice loss of its answer and the
    student in its terms, where every class that it does not know belongs to its background
    (:mod:`common.losses.marginal`); of an expert whose structures overlap, binary cross-entropy above its least value
    and soft Dice of its regions. A label is an expert with certainty about the structures that its task annotates:
    ``T = 1`` and no floor, so that labels of all structures alone are cross-entropy plus soft Dice. Of a list of
    logits, finest first, as networks with deep supervision give in training, each is held against the nearest voxels
    with weights 1, 1/2, 1/4 ..., divided by their sum.

    ``q`` is the softmax over the classes that somebody teaches in scans of the sample's modality, as at inference. A
    class that nobody teaches there would be part of every background: nothing would keep one of them from taking the
    background over, and with it that of other modalities.

    Args:
        structures: the student's K names, exclusive.
        experts: in the order of the batch's ``answered``.
        regions: ``{expert: {region: structures}}``, see :func:`judge_of`.
        weights: ``{expert: w >= 0}``, 1 where nothing is said.
        label_weight: of a label, >= 0.
        temperature: T > 0.
        floor: share of the uniform distribution in an expert's target, 0 <= floor < 1.
        dice: share of D, >= 0.

    Raises:
        ConfigError: for settings out of range, or names that are no expert's.
        ExpertError: for an expert that teaches nothing.

    Reference:
        ours; the marginal loss is of Shi et al., Medical Image Analysis 2021.
    """

    def __init__(
        self,
        *,
        structures: Sequence[str],
        experts: Sequence[ExpertSpec] = (),
        regions: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
        weights: Mapping[str, float] | None = None,
        label_weight: float = 1.0,
        temperature: float = 1.0,
        floor: float = FLOOR,
        dice: float = 1.0,
    ) -> None:
        super().__init__()
        given, names = dict(weights or {}), [e.name for e in experts]
        unknown = [n for n in (*given, *(regions or {})) if n not in names]
        if unknown:
            raise ConfigError("no expert has this name", where="expert_weights, regions", got=few(unknown),
                              expected=few(names) or "no expert")  # fmt: skip
        if min([label_weight, dice, *given.values()]) < 0 or temperature <= 0 or not 0 <= floor < 1:
            raise ConfigError("weights >= 0, temperature > 0, 0 <= floor < 1", where="AnswersLoss",
                              got=(label_weight, dice, given, temperature, floor))  # fmt: skip
        self.structures = tuple(structures)
        self.judges = tuple(judge_of(e, structures, (regions or {}).get(e.name)) for e in experts)
        self.widths = tuple(width(e) for e in experts)
        self.weights = tuple(float(given.get(n, 1.0)) for n in names)
        self.label_weight, self.temperature, self.floor, self.dice = label_weight, temperature, floor, dice
        self.knows = torch.tensor([[True, *(n in j.known for n in structures)] for j in self.judges], dtype=torch.bool)

    def set_progress(self, done: float) -> None:
        """Nothing: no weight of this loss changes while training goes on."""

    def forward(self, outputs: Any, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Judge a step.

        Args:
            outputs: logits ``[B, K+1, ...]``, a list of them, finest first, or what has them as ``logits``.
            targets: ``label [B, 1, ...]`` of union indices, ``annotated [B, K+1]``, ``labelled [B]``, ``answered
                [B, E]`` and ``answers [B, S, ...]`` uint8, the experts' records one after another; ``taught [B, K+1]``,
                background and the classes that somebody teaches in scans of the sample's modality.

        Returns:
            ``loss``, and its parts ``kl`` and ``dice``.

        Raises:
            ConfigError: for shapes that do not fit.
            LabelError: for a label of classes that its case is not annotated for.
        """
        found = getattr(outputs, "logits", outputs)
        levels = list(found) if isinstance(found, (list, tuple)) else [found]
        plain = {k: v.as_tensor() if isinstance(v, MetaTensor) else v for k, v in targets.items()}
        self._check(levels[0], plain)
        share, allowed = [0.5**i for i in range(len(levels))], self._allowed(plain)
        kl = levels[0].new_zeros((), dtype=torch.float32)
        dice = kl.clone()
        for weight, logits in zip(share, levels, strict=True):
            open_ = allowed.view(*allowed.shape, *[1] * (logits.ndim - 2))
            one, two = self._level(logits.float().masked_fill(~open_, -torch.inf), _at(plain, logits.shape[2:]))
            kl, dice = kl + weight / sum(share) * one, dice + weight / sum(share) * two
        return {"loss": kl + self.dice * dice, "kl": kl, "dice": dice}

    def _allowed(self, targets: Mapping[str, Tensor]) -> Tensor:
        """``[B, K+1]`` bool: classes of a sample's modality, and what those who speak about it know."""
        knows = self.knows.to(targets["answered"].device)
        spoken = (targets["answered"].bool()[:, :, None] & knows).any(1)
        own = targets["labelled"].bool()[:, None] & targets["annotated"].bool()
        found: Tensor = targets["taught"].bool() | spoken | own
        found[:, 0] = True
        return found

    def _level(self, logits: Tensor, targets: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        q = logits.softmax(1)
        cool = q if self.temperature == 1 else (logits / self.temperature).softmax(1)
        size = len(logits)
        kl = dice = 0 * q.flatten(1)[:, 0]  # so that a batch that nobody speaks about has a gradient, too: zero
        total = logits.new_zeros(size)
        parts = targets["answers"].split(self.widths, 1)
        for i, (judge, weight) in enumerate(zip(self.judges, self.weights, strict=True)):
            rows = targets["answered"][:, i].nonzero().flatten()
            if not len(rows) or not weight:
                continue
            one, two = self._heard(judge, _rows(parts[i], rows), _rows(cool, rows), _rows(q, rows))
            kl, dice = kl.index_add(0, rows, weight * one), dice.index_add(0, rows, weight * two)
            total = total.index_add(0, rows, total.new_full((len(rows),), weight))
        if self.label_weight:
            for rows, one, two in self._labelled(q, targets):
                kl = kl.index_add(0, rows, self.label_weight * one)
                dice = dice.index_add(0, rows, self.label_weight * two)
                total = total.index_add(0, rows, total.new_full((len(rows),), self.label_weight))
        each = torch.where(total > 0, 1 / total.clamp(min=1e-9), 0) / size
        return (kl * each).sum(), (dice * each).sum()

    def _heard(self, judge: Judge, answer: Tensor, cool: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Divergence and Dice loss ``[n]`` of the samples that an expert answered."""
        matrix = judge.matrix
        if not judge.exclusive:
            p = answer.float() / LEVELS
            p = p if judge.place is None else p[:, list(judge.place)]
            seen = gathered(q, matrix)
            one, two = (torch.cat([1 - v.amax(1, keepdim=True), v], 1) for v in (seen, p))
            return region_divergence(seen, p, self.floor), overlap(one, two)
        p = expand(answer, judge.structures)
        if judge.place is not None:
            kept = p[:, [1 + i for i in judge.place]]
            p = torch.cat([1 - kept.sum(1, keepdim=True), kept], 1).clamp(min=0)
        seen = gathered(q, matrix)
        if self.temperature == 1:
            return divergence(seen, p, self.floor), overlap(seen, p)
        sharp = p.pow(1 / self.temperature)
        kl = divergence(gathered(cool, matrix), sharp / sharp.sum(1, keepdim=True), self.floor)
        return self.temperature**2 * kl, overlap(seen, p)

    def _labelled(self, q: Tensor, targets: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Samples that are annotated alike, with their divergence and Dice loss."""
        with_label = targets["labelled"].bool()
        found = []
        for pattern in targets["annotated"][with_label].unique(dim=0):
            rows = (with_label & (targets["annotated"] == pattern).all(1)).nonzero().flatten()
            known = [n for n, a in zip(self.structures, pattern[1:].tolist(), strict=True) if a]
            if not known:
                raise LabelError("a label that annotates no structure teaches nothing", where="annotated")
            matrix = terms(known, self.structures)
            label = matrix.argmax(0).to(q.device)[_rows(targets["label"], rows)[:, 0].long()]
            seen = gathered(_rows(q, rows), matrix)
            p = nn.functional.one_hot(label, len(known) + 1).movedim(-1, 1).to(q.dtype)
            surprise = -seen.gather(1, label[:, None]).clamp(min=1e-9).log()  # the divergence from certainty
            found.append((rows, surprise.flatten(1).mean(1), overlap(seen, p)))
        return found

    def _check(self, logits: Tensor, targets: Mapping[str, Tensor]) -> None:
        size, space = len(logits), tuple(logits.shape[2:])
        shapes = {"label": (size, 1, *space), "answers": (size, sum(self.widths), *space),
                  "answered": (size, len(self.judges)), "annotated": (size, len(self.structures) + 1),
                  "taught": (size, len(self.structures) + 1), "labelled": (size,)}  # fmt: skip
        if logits.shape[1] != len(self.structures) + 1:
            raise ConfigError("one logit a structure and one of background, which exclude each other", where="logits",
                              got=tuple(logits.shape), expected=f"[B, {len(self.structures) + 1}, ...]")  # fmt: skip
        for key, shape in shapes.items():
            if tuple(targets[key].shape) != shape:
                raise ConfigError("an entry of the batch has another size", where=key, got=tuple(targets[key].shape),
                                  expected=shape)  # fmt: skip
        own = targets["labelled"].bool()
        if bool(own.any()):
            label, annotated = targets["label"][own].flatten(1).long(), targets["annotated"][own]
            if int(label.min()) < 0 or int(label.max()) > len(self.structures):
                raise LabelError("label values are out of range", got=(int(label.min()), int(label.max())),
                                 expected=f"0..{len(self.structures)}")  # fmt: skip
            if not bool(annotated.gather(1, label).all()):
                raise LabelError("a label map holds classes that its case is not annotated for", got=annotated.tolist())


def _rows(values: Tensor, rows: Tensor) -> Tensor:
    """Some samples of a batch; all of them are not copied."""
    return values if len(rows) == len(values) else values[rows]


def _at(targets: Mapping[str, Tensor], space: Sequence[int]) -> dict[str, Tensor]:
    """The maps at the voxels nearest to those of a coarser level."""
    result = dict(targets)
    for key in ("label", "answers"):
        value = result[key]
        for axis, size in enumerate(space, 2):
            if value.shape[axis] != size:
                step = value.shape[axis] / size
                place = ((torch.arange(size, device=value.device) + 0.5) * step).long()
                value = value.index_select(axis, place)
        result[key] = value
    return result
