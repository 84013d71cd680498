"""What each expert of a mixture says alone, beside the mixture's answer: scores of every picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ...atomic import atomic_write
from ...engine.monitor.finished_cases import finished_cases
from ...labels import LabelSpace
from ...overlap import dice, iou
from ...tables import write_csv

__all__ = ["PIXEL_MEASURES", "ExpertAnswers", "PixelScores", "pixel_measures"]

PIXEL_MEASURES = ("dice", "iou", "accuracy", "recall", "precision")
_HEAD = ("case", "task", "answer", "structure")


class Answers(Protocol):
    """A network whose output tells what each expert says."""

    def answers(self, out: Any) -> Mapping[str, Tensor]:
        """Logits ``[B, K+1, X, Y]`` by name."""
        ...

    def register_forward_hook(self, hook: Any) -> Any:
        """Torch's."""
        ...


class ExpertAnswers:
    """Adds what each expert says to an evaluator's output, before it is restored to the picture's own size.

    Args:
        network: gives the answers of its last forward pass.
    """

    def __init__(self, *, network: Answers) -> None:
        self.network, self._last, self._hook = network, list[Any](), None

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._end)

    def __call__(self, engine: Engine) -> None:
        """Add the answers to the output."""
        output: Any = engine.state.output
        if self._last:
            output.update(self.network.answers(self._last.pop()))

    def _start(self) -> None:
        self._hook = self.network.register_forward_hook(self._hear)

    def _hear(self, _module: nn.Module, _inputs: object, out: Any) -> None:
        self._last[:] = [out]

    def _end(self) -> None:
        self._last.clear()
        if self._hook is not None:
            self._hook.remove()


class PixelScores:
    """Scores every picture by its pixels, the network's answer and each expert's.

    Writes ``evaluation/pixels.csv`` (a line per case, answer and structure) and ``evaluation/pixels.json`` (means over
    cases, by answer).

    Args:
        output_dir: the run's folder.
        labels: of predictions and label maps.
        answers: keys of index maps ``[1, X, Y]`` in the evaluator's output; those that there are not are left out.
        label_key: of the label map on the same grid.
    """

    def __init__(
        self, *, output_dir: str | Path, labels: LabelSpace, answers: Sequence[str], label_key: str = "label"
    ) -> None:
        self.folder, self.labels, self.answers = Path(output_dir) / "evaluation", labels, tuple(answers)
        self.label_key, self.rows = label_key, list[dict[str, Any]]()

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator."""
        engine.add_event_handler(Events.STARTED, self.rows.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def collect(self, engine: Engine) -> None:
        """Score the cases of one iteration."""
        for item in finished_cases(engine):
            known = np.asarray(item.get("annotated", np.ones(self.labels.num_classes))).astype(bool).ravel()
            label = np.asarray(torch.as_tensor(item[self.label_key]).cpu())
            head = {"case": str(item.get("case", "")), "task": str(item.get("task", ""))}
            for answer in (a for a in self.answers if a in item):
                pred = np.asarray(torch.as_tensor(item[answer]).cpu())
                for index, name in enumerate(self.labels.names, 1):
                    if known[index]:
                        scores = pixel_measures(pred == index, label == index)
                        self.rows.append({**head, "answer": answer, "structure": name, **scores})

    def finish(self, _engine: Engine) -> None:
        """Write the table and the means."""
        if idist.get_rank() != 0:
            return
        write_csv(self.folder / "pixels.csv", self.rows, (*_HEAD, *PIXEL_MEASURES))
        means = {a: self._means(a) for a in self.answers if any(r["answer"] == a for r in self.rows)}
        with atomic_write(self.folder / "pixels.json") as file:
            file.write_text(json.dumps(means, indent=2) + "\n", encoding="utf-8")

    def _means(self, answer: str) -> dict[str, float | None]:
        own = [r for r in self.rows if r["answer"] == answer]
        values = {m: np.array([r[m] for r in own], float) for m in PIXEL_MEASURES}
        return {m: float(np.nanmean(v)) if np.isfinite(v).any() else None for m, v in values.items()}


def pixel_measures(pred: ArrayLike, label: ArrayLike) -> dict[str, float]:
    """Dice, intersection over union, accuracy, recall and precision of two masks of one shape.

    With TP, FP, FN and TN pixels: ``2TP / (2TP + FP + FN)``, ``TP / (TP + FP + FN)``, ``(TP + TN) / all``,
    ``TP / (TP + FN)``, ``TP / (TP + FP)``; NaN where that is 0 / 0, which means leave out.
    """
    p, t = np.asarray(pred, bool), np.asarray(label, bool)
    both, either, own, true = int((p & t).sum()), int((p | t).sum()), int(p.sum()), int(t.sum())
    return {
        "dice": dice(both, own, true),
        "iou": iou(both, own, true),
        "accuracy": 1 - (either - both) / p.size,
        "recall": _ratio(both, true),
        "precision": _ratio(both, own),
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
