"""Metrics as handlers of MONAI's evaluators: the validation score of a training, the tables of an evaluation."""

from __future__ import annotations

import hashlib
import logging
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from monai.data import MetaTensor

from ...errors import DataError, GeometryError, LabelError
from ...labels import LabelSpace
from ...overlap import dice
from ..monitor.case_pictures import CasePictures
from ..monitor.finished_cases import finished_cases
from .score_summary import summary, write_case_csv, write_summary_json
from .scores import EmptyRule, case_metrics

__all__ = ["AnnotatedDice", "CaseMetrics", "metric_word", "metric_words"]

logger = logging.getLogger(__name__)

_LONGEST_WORD = 128


def metric_word(structure: str) -> str:
    """A structure as a part of a metric's name that every tracker takes: other signs become ``_`` and their number.

    ``"left kidney"`` is ``left_kidney``, ``"GTV+"`` is ``GTV_x2B``; a long one ends with a part of its hash.
    """
    whole = re.sub(r"[^\w.-]", _sign_word, structure)
    digest = hashlib.sha256(structure.encode()).hexdigest()
    return whole if len(whole) <= _LONGEST_WORD else f"{whole[:_LONGEST_WORD]}_{digest[:8]}"


def metric_words(structures: Sequence[str]) -> list[str]:
    """:func:`metric_word` of each structure, all different: a later one that would be equal ends with its hash."""
    words: list[str] = []
    for structure in structures:
        word = metric_word(structure)
        words.append(word if word not in words else f"{word}_{hashlib.sha256(structure.encode()).hexdigest()[:8]}")
    return words


def _sign_word(sign: re.Match[str]) -> str:
    return "_" if sign.group() == " " else f"_x{ord(sign.group()):02X}"


def _space(labels: LabelSpace | Mapping[str, Any]) -> LabelSpace:
    return labels if isinstance(labels, LabelSpace) else LabelSpace.from_dict(labels)


def _case_name(item: Mapping[str, Any]) -> str:
    if item.get("case"):
        return str(item["case"])
    for key in ("image", "label"):
        name = getattr(item.get(key), "meta", {}).get("filename_or_obj")
        if name:
            return Path(str(name)).name.split(".")[0]
    raise DataError(
        "an evaluated item has no name", got=sorted(item), expected="a key `case` or an image read from a file"
    )


def _annotated(item: Mapping[str, Any], labels: LabelSpace) -> np.ndarray[Any, np.dtype[np.bool_]]:
    mask = item.get("annotated")
    return np.ones(labels.num_classes, bool) if mask is None else np.asarray(mask).astype(bool).reshape(-1)


class AnnotatedDice(Metric):
    """Mean Dice over the foreground classes that each case is annotated for; the validation score of a training.

    ``mean_s mean_c Dice(P_cs, L_cs)`` over structures s and the cases c that annotate s; a structure absent from both
    maps is left out, one predicted but absent counts 0 (as in :func:`case_metrics`). Give it to an evaluator as
    ``key_val_metric``; each structure's own mean goes to ``engine.state.metrics`` as ``<name>_<structure>``.

    Args:
        labels: label space of the student (or its ``to_dict``).
        pred_key: key of the prediction: an index map ``[1, ...]``, logits or one-hot ``[K+1, ...]`` (argmax); for
            overlapping structures logits ``[K, ...]``, positive meaning present.
        label_key: key of the label map of indices ``[1, ...]``.
        per_class: also record each structure.

    Raises:
        DataError: for non-finite predictions or shapes that differ, with the case's name.
    """

    def __init__(
        self,
        *,
        labels: LabelSpace | Mapping[str, Any],
        pred_key: str = "pred",
        label_key: str = "label",
        per_class: bool = True,
        device: str | torch.device = "cpu",
    ) -> None:
        self.labels = _space(labels)
        self.pred_key, self.label_key, self.per_class = pred_key, label_key, per_class
        self._name = "mean_dice"
        super().__init__(device=device)

    def reset(self) -> None:
        """Forget all cases."""
        self._total = torch.zeros(len(self.labels), dtype=torch.float64)
        self._count = torch.zeros(len(self.labels), dtype=torch.float64)

    def iteration_completed(self, engine: Engine) -> None:
        """Take the cases of one evaluator iteration."""
        for item in finished_cases(engine):
            self.update(item)

    def update(self, output: Mapping[str, Any]) -> None:
        """Add one case: a dict with the prediction, the label and optionally ``annotated`` and ``case``."""
        pred, label = self._masks(torch.as_tensor(output[self.pred_key])), torch.as_tensor(output[self.label_key])
        if not self.labels.exclusive:
            truth = label.bool()
        else:
            truth = torch.stack([label[0] == i for i in range(1, self.labels.num_classes)])
        if pred.shape != truth.shape:
            raise DataError(
                "prediction and label differ in shape", where=output.get("case"), got=pred.shape, expected=truth.shape
            )
        axes = tuple(range(1, pred.ndim))
        counts = torch.stack([(pred & truth).sum(axes), pred.sum(axes), truth.sum(axes)], 1).tolist()
        found = torch.tensor([dice(*count) for count in counts], dtype=torch.float64)
        use = torch.from_numpy(_annotated(output, self.labels)[1:]) & found.isfinite()
        self._total += found.where(use, 0.0)
        self._count += use.double()

    def _masks(self, pred: torch.Tensor) -> torch.Tensor:
        """``[K, ...]`` boolean masks of a prediction in any of the accepted forms."""
        pred = pred.as_tensor() if isinstance(pred, MetaTensor) else pred
        if pred.is_floating_point():  # minus infinity is a class that a network leaves out
            ruled_out = (
                (pred == -torch.inf).flatten(1).all(1) if pred.shape[0] > 1 else torch.zeros(1, dtype=torch.bool)
            )
            if not bool(torch.isfinite(pred[~ruled_out]).all()) or bool(ruled_out.all()):
                raise DataError("the prediction holds NaN or infinite values", got=tuple(pred.shape))
        channels, k = pred.shape[0], len(self.labels)
        if not self.labels.exclusive and channels == k:
            return pred > 0
        if self.labels.exclusive and channels in (1, k + 1):
            index = pred[0] if channels == 1 else pred.argmax(0)
            return torch.stack([index == i for i in range(1, k + 1)])
        raise LabelError(
            "the prediction has the wrong number of channels",
            got=channels,
            expected=f"1 or {k + 1} (index map or logits)" if self.labels.exclusive else str(k),
        )

    def _means(self) -> torch.Tensor:
        total, count = self._total, self._count
        if idist.get_world_size() > 1:
            total = torch.as_tensor(idist.all_reduce(total.clone()))
            count = torch.as_tensor(idist.all_reduce(count.clone()))
        return torch.where(count > 0, total / count.clamp(min=1), torch.nan)

    def compute(self) -> float:
        """The mean over structures.

        Raises:
            NotComputableError: when no annotated structure was seen.
        """
        means = self._means()
        known = means[torch.isfinite(means)]
        if not len(known):
            raise NotComputableError("no validated case shows an annotated structure")
        return float(known.mean())

    def attach(self, engine: Engine, name: str, *args: Any, **kwargs: Any) -> None:
        """Attach to an evaluator under a name."""
        self._name = name
        super().attach(engine, name, *args, **kwargs)

    def completed(self, engine: Engine, name: str) -> None:
        """Write the mean, and each structure's, to ``engine.state.metrics``."""
        super().completed(engine, name)
        if self.per_class:
            for structure, value in zip(metric_words(self.labels.names), self._means().tolist(), strict=True):
                if math.isfinite(value):
                    engine.state.metrics[f"{name}_{structure}"] = value


class CaseMetrics:
    """Handler that scores every evaluated case on its original grid and writes the evaluation's files.

    At the end of the evaluator's run ``<output_dir>/evaluation/`` holds ``cases.csv`` (one line per case and
    structure), ``summary.json`` (see :func:`summary`; written last, so that its presence means complete) and
    ``overlays/`` with ``overlays.json`` (best and worst cases of each task). An earlier evaluation in the same folder
    is removed when the run starts, so that it can never pass for the new one.

    Each item of ``engine.state.output`` (or of the batch) needs ``pred`` and ``label``, index maps on one grid — the
    prediction restored to the case's own grid, the label as on disk mapped to indices —, and may have ``annotated``,
    ``case``, ``task``, ``doubt`` (why its scores are not to be trusted) and the image for the pictures.

    Args:
        output_dir: the run's folder.
        labels: label space of prediction and label (or its ``to_dict``).
        empty: rule for empty structures, see :func:`case_metrics`.
        surface_tolerance_mm: of the surface Dice.
        seed: of the bootstrap.
        n_boot: number of bootstrap resamples.
        pictures: overlays for the best and the worst n cases of each task; 0 for none.
        image_key: what the overlays show; `raw` is preferred when the item has it.
        pred_key: key of the prediction.
        label_key: key of the label.
        extra: plain values that go into ``summary.json`` as they are (prompt source, weights, ...).
    """

    def __init__(
        self,
        *,
        output_dir: str | Path,
        labels: LabelSpace | Mapping[str, Any],
        empty: EmptyRule = "nan_skip",
        surface_tolerance_mm: float = 2.0,
        seed: int = 0,
        n_boot: int = 1000,
        pictures: int = 2,
        image_key: str = "image",
        pred_key: str = "pred",
        label_key: str = "label",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(output_dir) / "evaluation"
        self.labels = _space(labels)
        self.empty, self.tolerance, self.seed, self.n_boot = empty, surface_tolerance_mm, seed, n_boot
        self.pred_key, self.label_key, self.extra = pred_key, label_key, dict(extra or {})
        self.pictures = CasePictures(labels=self.labels, keep=pictures, image_key=image_key)
        self.rows: list[dict[str, Any]] = []
        self.skipped: dict[str, int] = {}
        self.doubts: dict[str, str] = {}

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, _engine: Engine) -> None:
        """Forget earlier cases and remove what an earlier evaluation left."""
        self.rows, self.skipped, self.doubts = [], {}, {}
        self.pictures.clear()
        if idist.get_rank() == 0:
            for name in ("summary.json", "cases.csv"):
                (self.folder / name).unlink(missing_ok=True)
            shutil.rmtree(self.folder / "overlays", ignore_errors=True)

    def collect(self, engine: Engine) -> None:
        """Score the cases of one iteration."""
        for item in finished_cases(engine):
            self._score(item)

    def _score(self, item: Mapping[str, Any]) -> None:
        case, task = _case_name(item), str(item.get("task", ""))
        pred, label = item[self.pred_key], item[self.label_key]
        mask = _annotated(item, self.labels)
        affine = self._grid(pred, label, case)
        spacing = np.linalg.norm(affine[:-1, :-1], axis=0)[: label.ndim - 1]
        rows = case_metrics(
            pred,
            label,
            self.labels,
            mask,
            spacing.tolist(),
            empty=self.empty,
            surface_tolerance_mm=self.tolerance,
            where=case,
        )
        for name in (n for i, n in enumerate(self.labels.names, 1) if not mask[i]):
            self.skipped[name] = self.skipped.get(name, 0) + 1
        if item.get("doubt"):
            self.doubts[f"{task}, {case}"] = str(item["doubt"])
        rows = [{"case": case, "task": task, **row} for row in rows]
        self.rows += rows
        self.pictures.offer(item, rows, pred=pred, label=label, affine=affine, annotated=mask)

    @staticmethod
    def _grid(pred: Any, label: Any, case: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        affines = [np.asarray(x.affine, float) for x in (label, pred) if isinstance(x, MetaTensor)]
        if not affines:
            return np.eye(label.ndim)
        if tuple(pred.shape[1:]) != tuple(label.shape[1:]) or not np.allclose(affines[0], affines[-1], atol=1e-2):
            raise GeometryError(
                "prediction and label do not lie on one grid",
                where=case,
                got=f"prediction {tuple(pred.shape[1:])}, {affines[-1].tolist()}",
                expected=f"label {tuple(label.shape[1:])}, {affines[0].tolist()}",
                hint="restore the prediction to the case's own grid before it is scored",
            )
        return affines[0]

    def finish(self, engine: Engine) -> None:
        """Write the tables, the pictures and, last, the summary."""
        rows, skipped, doubts = self._gather()
        if idist.get_rank() != 0:
            return
        content = summary(rows, self.seed, self.n_boot)
        head = {
            "format": 1,
            "empty_rule": self.empty,
            "surface_tolerance_mm": self.tolerance,
            "bootstrap": {"seed": self.seed, "resamples": self.n_boot, "level": 0.95},
            "labels": self.labels.to_dict(),
            "unannotated_skipped": skipped,
            **({"doubts": doubts} if doubts else {}),
            **self.extra,
        }
        write_case_csv(rows, self.folder / "cases.csv")
        self.pictures.write(self.folder / "overlays")
        write_summary_json({**head, **content}, self.folder / "summary.json")
        means = content["all"]["mean"]
        engine.state.metrics.update({f"case_{m}": v["mean"] for m, v in means.items() if v["mean"] is not None})
        logger.info("%d cases scored, mean Dice %s: %s", content["all"]["cases"], means["dice"]["mean"], self.folder)

    def _gather(self) -> tuple[list[dict[str, Any]], dict[str, int], dict[str, str]]:
        """Rows of all processes; a case that a padded sampler gave twice counts once."""
        if idist.get_world_size() == 1:
            return self.rows, self.skipped, self.doubts
        own = self.rows, self.skipped, self.doubts
        parts = [own] * idist.get_world_size()
        torch.distributed.all_gather_object(parts, own)
        unique = {(r["task"], r["case"], r["structure"]): r for rows, *_ in parts for r in rows}
        skipped: dict[str, int] = {}
        for _, counts, _ in parts:
            for name, n in counts.items():
                skipped[name] = skipped.get(name, 0) + n
        return list(unique.values()), skipped, {k: v for *_, doubts in parts for k, v in doubts.items()}
