"""What a model's evaluations found, kept beside its weights: the file's bytes, and so its hash, stay as they are."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

from ...atomic import atomic_write
from ...errors import AmalgamationError, DataError
from ...integrity import file_hash
from ...plain_json import read_object
from .score_form import MEASURES, checked_evaluation

__all__ = ["KeepScores", "earlier_scores_file", "read_scores", "scores_file"]

logger = logging.getLogger(__name__)

_FORMAT = 1


def scores_file(weights: str | Path) -> Path:
    """Where the scores of a weights file lie: ``model.pt.scores.json`` beside ``model.pt``."""
    return Path(f"{weights}.scores.json")


def earlier_scores_file(weights: str | Path) -> Path:
    """Where earlier versions put them, and where ``model.safetensors`` had the same: ``model.scores.json``."""
    return Path(weights).with_suffix(".scores.json")


def read_scores(weights: str | Path) -> list[dict[str, Any]]:
    """The evaluations of just these weights, the newest last; none of other weights that lay there before.

    A file with an evaluation of another form than is written is passed over with a warning.

    Args:
        weights: the file.
    """
    try:
        return _own(weights)
    except DataError as error:
        logger.warning("the scores beside %s are passed over: %s", weights, str(error).replace("\n", "; "))
        return []


def _own(weights: str | Path) -> list[dict[str, Any]]:
    for path in (scores_file(weights), earlier_scores_file(weights)):
        try:
            data = read_object(path, error=DataError, finite=False)
            if data["weights_sha256"] != file_hash(Path(weights)):
                continue
            found = list(data["evaluations"])
        except (OSError, KeyError, TypeError, AmalgamationError):
            continue
        return [checked_evaluation(e, f"{path}, evaluations[{i}]") for i, e in enumerate(found)]
    return []


class KeepScores:
    """Handler that notes an evaluation's means and intervals beside the weights; put it after ``CaseMetrics``.

    An evaluation on the same tasks and split replaces its earlier one. Where the folder cannot be written, a warning is
    all: the evaluation itself holds everything.

    Args:
        output_dir: the run's folder, with ``evaluation/summary.json``.
        weights: the weights file that was evaluated.
        split: what it was evaluated on.
        ignore_card: whether data of other channels or modalities were taken; such scores are marked.
    """

    def __init__(
        self, *, output_dir: str | Path, weights: str | Path, split: str = "", ignore_card: bool = False
    ) -> None:
        self.folder, self.weights = Path(output_dir) / "evaluation", Path(weights)
        self.split, self.ignore_card = split, ignore_card

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator."""
        engine.add_event_handler(Events.COMPLETED, self.keep)

    def keep(self, _engine: Engine) -> None:
        """Add the evaluation to the file."""
        if idist.get_rank() != 0 or not self.weights.is_file():
            return
        try:
            summary = read_object(self.folder / "summary.json", error=DataError, finite=False)
            entry = checked_evaluation(self._entry(summary), self.folder / "summary.json")
            kept = [e for e in _own(self.weights) if _subject(e) != _subject(entry)]
            content = {"format": _FORMAT, "weights_sha256": file_hash(self.weights), "evaluations": [*kept, entry]}
            with atomic_write(scores_file(self.weights)) as temporary:
                temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        except (OSError, ValueError, KeyError, TypeError, AmalgamationError) as error:
            logger.warning("the scores are not noted beside %s: %s", self.weights, error)

    def _entry(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        whole = summary["all"]
        return {
            "tasks": sorted(summary["tasks"]),
            "split": self.split,
            "ignore_card": self.ignore_card,
            "cases": whole["cases"],
            "mean": {m: whole["mean"][m] for m in MEASURES},
            "structures": {n: {m: s[m] for m in MEASURES} for n, s in whole["structures"].items()},
            **{k: summary[k] for k in ("prompt_source", "targets") if k in summary},
        }


def _subject(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(json.dumps(entry.get(k)) for k in ("tasks", "split", "ignore_card", "prompt_source", "targets"))
