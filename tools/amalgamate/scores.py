"""The step that holds the student against its experts, and against labels, on scans that were held back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from torch import Tensor

from common.data.datasets.datalist import Collection, items
from common.data.transforms.loading import LoadCased
from common.data.transforms.transforms import MapLabelsd
from common.errors import ConfigError
from common.experts.answers.ask import AskExpertd
from common.experts.answers.saved import answer_file, save_answer
from common.experts.regions import region_parts
from common.experts.spec import ExpertSpec
from common.geometry import Grid
from common.integrity import file_hash
from common.labels import LabelSpace
from common.literals import file_name
from common.weights import read_card

from ..workflow import config_files, run_bundle
from .form import SCAN, STUDENT
from .kept import kept
from .lessons import unread
from .measured import Answer, disputes, masks_of, rows_of
from .passes import OVERLAY, passed, prediction
from .pictures import Layer, Shown, draw, fitting, for_viewer
from .work import BUNDLE, Work

__all__ = ["SPLIT", "annotated", "inferred", "read_map", "saved_answers", "scores"]

SPLIT, ANSWERS = "test", "answers"
_SHOWN = 2  # scans of each task that are drawn


def scores(work: Work) -> dict[str, Any]:
    """Ask student and experts about the scans held back, and compare; what was found of a scan is kept at once.

    Args:
        work: the folder, with its trained student.

    Returns:
        ``rows`` of :class:`.verdict.Row`; ``cost`` in seconds of a scan, of the student's pass and of each expert's;
        ``passes``: how many ``experts`` read a scan, and the ``seconds`` that they take for it one after another;
        ``scans`` by task; ``disputed``: voxels by pair of experts and structures; ``pictures`` and ``viewer``.
    """
    collection, folder = work.collection, work.out / "scores"
    entries = items(collection, SPLIT)
    if not entries:
        return {"rows": [], "cost": {}, "passes": {}, "scans": {}, "disputed": [], "pictures": [], "viewer": [],
                "structures": []}  # fmt: skip
    mark = {"student": file_hash(work.model), "experts": file_hash(work.manifest)}
    own, maps = folder / "student.json", folder / "predictions"
    if not all(prediction(maps, entry).is_file() for entry in entries):
        own.unlink(missing_ok=True)
    told = kept(own, {**mark, "scans": [_told(e) for e in entries]}, lambda: _students(work, maps, entries), STUDENT)
    taught = LabelSpace(tuple(told["structures"]))
    typed = work.read_typed.get("regions") or {}
    made = {s.name: {**region_parts(s, taught.names), **typed.get(s.name, {})} for s in work.specs}
    experts = [_Expert(spec, collection) for spec in work.specs]
    drawn, found = Counter[str](), []
    for entry in entries:
        drawn[entry["task"]] += 1
        shown = drawn[entry["task"]] <= _SHOWN
        scored = partial(_scored, entry, collection, experts, taught, folder, made=made, shown=shown)
        file = folder / "scans" / f"{file_name(entry['task'], entry['case'])}.json"
        found.append(kept(file, {**mark, "scan": _told(entry), "shown": shown}, scored, SCAN))
    disputed = Counter[tuple[str, ...]]()
    for *names, voxels in (one for part in found for one in part["disputed"]):
        disputed[tuple(names)] += voxels
    cost = _cost([part["seconds"] for part in found])
    return {
        "rows": [row for part in found for row in part["rows"]],
        "cost": {"": told["seconds"], **cost},
        "passes": {
            "experts": sum(len(part["seconds"]) for part in found) / len(found),
            "seconds": sum(cost[n] for part in found for n in part["seconds"]) / len(found),
        },
        "scans": dict(drawn),
        "disputed": [[*names, voxels] for names, voxels in disputed.most_common()],
        "pictures": [part["picture"] for part in found if "picture" in part],
        "viewer": fitting([part["viewer"] for part in found if "viewer" in part]),
        "structures": list(taught.names),
    }


def _told(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a list of scans says about one, with the state of its files."""
    files = [Path(f) for key in ("image", "label") for f in _listed(entry.get(key, ()))]
    states = [[f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    return {**{k: str(v) for k, v in entry.items()}, "files": states}


def _listed(value: Any) -> Sequence[str]:
    return (value,) if isinstance(value, str) else value


def _scored(
    entry: Mapping[str, Any], collection: Collection, experts: Sequence[_Expert], taught: LabelSpace, folder: Path,
    *, made: Mapping[str, Mapping[str, Sequence[str]]], shown: bool,
) -> dict[str, Any]:  # fmt: skip
    """Everything about one scan."""
    task, case = entry["task"], entry["case"]
    image: MetaTensor = LoadCased(keys="image")({"image": entry["image"], "case": case})["image"]
    own = read_map(prediction(folder / "predictions", entry), case)
    asked = [(e, *e.asked(image)) for e in experts if task in e.tasks]
    answers = [answer for _, answer, _ in asked]
    for answer in answers:
        save_answer(answer_file(folder / ANSWERS, answer.expert, task, case), answer.record)
    truth = _truth(entry, collection)
    rows = rows_of(task, case, masks_of(own, taught.names), answers, annotated(entry, collection, truth), made)
    found: dict[str, Any] = {
        "rows": [row._asdict() for row in rows],
        "disputed": [[*names, voxels] for names, voxels in disputes(answers).items()],
        "seconds": {e.spec.name: took._asdict() for e, _, took in asked},
    }
    if shown:
        layers = [Layer("Student", own), *(Layer(a.expert, _united(a, taught)) for a in answers)]
        layers += [] if truth is None else [Layer("Label map", _renumbered(truth, collection.labels, taught))]
        one = Shown(task, case, image, tuple(layers))
        found |= {"picture": draw(folder / "pictures", one, taught), "viewer": for_viewer(one, taught)}
    return found


def _students(work: Work, out: Path, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return inferred(work, out, entries)


def saved_answers(work: Work) -> Path:
    """The folder of what the experts said about the scans held back, for those who need it later."""
    return work.out / "scores" / ANSWERS


def inferred(
    work: Work, out: Path, entries: Sequence[Mapping[str, Any]], keep: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """Let the student answer about the scans held back; its ``structures`` and the ``seconds`` that its pass takes.

    Scans that it answered about before an interruption are not passed again.

    Args:
        work: the folder.
        out: where label maps go.
        entries: the scans.
        keep: about what the experts that stay beside it decide, whose answers are those of this step where they were
            asked; the student alone without.

    Raises:
        ConfigError: for a student whose card is not there.
    """
    card = read_card(work.model)
    if card is None:
        raise ConfigError("the student has no card that names its structures", where=work.model)
    root, both = work.bundles / BUNDLE, keep is not None
    given = {"dataset_dir": str(work.data), "split": SPLIT, "model_path": str(work.model), "output_dir": str(out),
             "bundle_root": str(root), "keep_largest": False, "quiet": True, "keep": both, "trust_kept": both,
             "kept_answers": str(saved_answers(work)) if both else None}  # fmt: skip
    mark = {"student": file_hash(work.model), "experts": file_hash(work.manifest), "scans": [_told(e) for e in entries],
            "keep": {name: list(own) for name, own in (keep or {}).items()}}  # fmt: skip
    files = [*config_files(root, "inference"), str(OVERLAY)]
    seconds = passed(out, mark, entries, lambda: _run(files, given))
    return {"structures": list(card.labels.names), "seconds": seconds}


def _run(files: Sequence[str], given: Mapping[str, Any]) -> None:
    run_bundle(files, {}, given)


class _Took(NamedTuple):
    """How long an expert took, and whether it had to be opened first."""

    seconds: float
    opened: bool


class _Expert:
    """An expert that is asked about whole scans, on their own grids, with the time that it takes."""

    def __init__(self, spec: ExpertSpec, collection: Collection) -> None:
        self.spec, self.ask = spec, AskExpertd(spec, device="cuda" if torch.cuda.is_available() else "cpu")
        self.tasks = {d.name for d in collection.datasets if not unread(spec, d)}
        self._opened = False

    def asked(self, image: MetaTensor) -> tuple[Answer, _Took]:
        grid = Grid.of(image)
        began, first = time.monotonic(), not self._opened
        found = self.ask({"image": image, "grid": {"shape": grid.shape, "affine": grid.affine.tolist()}})["answer"]
        self._opened = True
        return Answer(self.spec.name, self.spec.labels, found), _Took(time.monotonic() - began, first)


def _cost(parts: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    """Mean seconds of a scan by expert; asks that opened it count only where there are no others."""
    found = {}
    for name in dict.fromkeys(n for part in parts for n in part):
        own = [part[name] for part in parts if name in part]
        took = [one["seconds"] for one in own if not one["opened"]] or [one["seconds"] for one in own]
        found[name] = sum(took) / len(took)
    return found


def read_map(file: Path, case: str) -> Tensor:
    """A map of indices ``[X, Y, Z]``."""
    found: MetaTensor = LoadCased(keys="pred")({"pred": str(file), "case": case})["pred"]
    return found.as_tensor()[0].round().long()


def annotated(
    entry: Mapping[str, Any], collection: Collection, truth: Tensor | None = None
) -> dict[str, Tensor] | None:
    """Masks of what a scan's label map annotates; None without one.

    Args:
        entry: the scan.
        collection: its collection.
        truth: the label map, where it was read already.
    """
    truth = _truth(entry, collection) if truth is None else truth
    if truth is None:
        return None
    known = collection.dataset(entry["task"]).labels.names
    return {n: m for n, m in masks_of(truth, collection.labels.names).items() if n in known}


def _truth(entry: Mapping[str, Any], collection: Collection) -> Tensor | None:
    if "label" not in entry:
        return None
    data = LoadCased(keys=["image", "label"])({str(k): v for k, v in entry.items()})
    found: MetaTensor = MapLabelsd(keys="label", dataset_dir=collection)(data)["label"]
    return found.as_tensor()[0].round().long()


def _united(answer: Answer, labels: LabelSpace) -> Tensor:
    """An expert's answer as a map of the student's indices."""
    found = torch.zeros(answer.record.shape[1:], dtype=torch.long)
    for name in answer.labels.names:
        if name in labels.names:
            found[answer.mask(name)] = labels.index(name)
    return found


def _renumbered(indices: Tensor, labels: LabelSpace, wanted: LabelSpace) -> Tensor:
    table = torch.tensor([0, *(wanted.index(n) if n in wanted.names else 0 for n in labels.names)])
    return table[indices]
