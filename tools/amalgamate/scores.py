"""The step that holds the student against its experts, and against labels, on scans that were held back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor

from common.data.datasets.datalist import Collection, items
from common.data.transforms.loading import LoadCased
from common.data.transforms.transforms import MapLabelsd
from common.experts.answers.ask import AskExpertd
from common.experts.spec import ExpertSpec
from common.geometry import Grid
from common.labels import LabelSpace

from ..workflow import config_files, run_bundle
from .lessons import unread
from .measured import Answer, disputes, masks_of, rows_of
from .pictures import Layer, Shown, draw, for_viewer
from .work import BUNDLE, Work

__all__ = ["SPLIT", "scores"]

SPLIT = "test"
_SHOWN = 2  # scans of each task that are drawn


def scores(work: Work) -> dict[str, Any]:
    """Ask student and experts about the scans held back, and compare.

    Args:
        work: the folder, with its trained student.

    Returns:
        ``rows`` of :class:`.verdict.Row`; ``cost`` in seconds of a scan, of the student's pass and of each expert's;
        ``scans`` by task; ``disputed``: voxels by pair of experts and structures; ``pictures`` and ``viewer``.
    """
    collection, folder = work.collection, work.out / "scores"
    entries = items(collection, SPLIT)
    if not entries:
        return {"rows": [], "cost": {}, "scans": {}, "disputed": [], "pictures": [], "viewer": [],
                "structures": []}  # fmt: skip
    taught, cost = _students(work, folder / "predictions", len(entries))
    experts = [_Expert(spec, collection) for spec in work.specs]
    rows, shown, disputed, drawn = [], list[Shown](), Counter[tuple[str, str, str, str]](), Counter[str]()
    for entry in entries:
        image: MetaTensor = LoadCased(keys="image")({"image": entry["image"], "case": entry["case"]})["image"]
        own = _map(folder / "predictions" / entry["task"] / f"{entry['case']}.nii.gz", entry["case"])
        answers = [e.asked(image) for e in experts if entry["task"] in e.tasks]
        truth = _truth(entry, collection)
        masks = masks_of(own, taught.names)
        known = None if truth is None else masks_of(truth, collection.labels.names)
        if known is not None:
            annotated = collection.dataset(entry["task"]).labels.names
            known = {n: known[n] for n in annotated}
        rows += rows_of(entry["task"], entry["case"], masks, answers, known)
        disputed.update(disputes(answers))
        drawn[entry["task"]] += 1
        if drawn[entry["task"]] <= _SHOWN:
            layers = [Layer("Student", own), *(Layer(a.expert, _united(a, taught)) for a in answers)]
            layers += [] if truth is None else [Layer("Label map", _renumbered(truth, collection.labels, taught))]
            shown.append(Shown(entry["task"], entry["case"], image, tuple(layers)))
    cost |= {e.spec.name: e.seconds for e in experts if e.seconds}
    pictures = [draw(folder / "pictures", one, taught) for one in shown]
    return {
        "rows": [row._asdict() for row in rows],
        "cost": cost,
        "scans": dict(drawn),
        "disputed": [[*names, voxels] for names, voxels in disputed.most_common()],
        "pictures": pictures,
        "viewer": for_viewer(shown, taught),
        "structures": list(taught.names),
    }


def _students(work: Work, out: Path, scans: int) -> tuple[LabelSpace, dict[str, float]]:
    """Let the student answer; its structures and what its pass takes."""
    model = work.out / "student" / "model.pt"
    root = work.bundles / BUNDLE
    given = {"dataset_dir": str(work.data), "split": SPLIT, "model_path": str(model), "output_dir": str(out),
             "bundle_root": str(root), "keep_largest": False, "quiet": True}  # fmt: skip
    parser = run_bundle(config_files(root, "inference"), {}, given)
    labels: LabelSpace = parser.get_parsed_content("labels")
    seconds = parser.get_parsed_content("evaluator").state.times["EPOCH_COMPLETED"]
    return labels, {"": float(seconds) / scans}


class _Expert:
    """An expert that is asked about whole scans, on their own grids, with the time that it takes."""

    def __init__(self, spec: ExpertSpec, collection: Collection) -> None:
        self.spec, self.ask = spec, AskExpertd(spec, device="cuda" if torch.cuda.is_available() else "cpu")
        self.tasks = {d.name for d in collection.datasets if not unread(spec, d)}
        self._took: list[float] = []

    def asked(self, image: MetaTensor) -> Answer:
        grid = Grid.of(image)
        began = time.monotonic()
        found = self.ask({"image": image, "grid": {"shape": grid.shape, "affine": grid.affine.tolist()}})["answer"]
        self._took.append(time.monotonic() - began)
        return Answer(self.spec.name, self.spec.labels, found)

    @property
    def seconds(self) -> float:
        """Of a scan; the first one, which opens the expert, counts only where there is no other."""
        took = self._took[1:] or self._took
        return sum(took) / len(took) if took else 0.0


def _map(file: Path, case: str) -> Tensor:
    """A map of indices ``[X, Y, Z]``."""
    found: MetaTensor = LoadCased(keys="pred")({"pred": str(file), "case": case})["pred"]
    return found.as_tensor()[0].round().long()


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
