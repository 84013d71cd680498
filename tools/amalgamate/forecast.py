"""What an amalgamation will take: each expert is asked about one scan, a few steps are taken, the rest is counted."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.data.datasets.datalist import items as items_of
from common.data.store.entry import TEXT
from common.data.store.place import folder_bytes, size_text
from common.data.transforms.loading import LoadCased
from common.experts.answers.kept import grid_of
from common.experts.answers.saved import saved_size
from common.experts.spec import ExpertSpec

from .lessons import unread
from .scores import SPLIT
from .training import DATA, TRAINER, opened
from .work import Work

__all__ = ["forecast", "forecast_lines", "hours", "prepared_bytes", "source_bytes"]

STEPS = 3
_RECORD = 5


def forecast(work: Work) -> dict[str, Any]:
    """Measure one scan per expert and the training's step; what was answered stays in the store.

    Args:
        work: the folder.

    Returns:
        ``scans`` for training and those ``held_back``; by expert ``seconds`` of a scan, ``scans`` that it reads and
        ``bytes`` of its answer as stored and without compression; ``prepared`` bytes of all scans as the store keeps
        them for the training, their maps included; ``scored`` bytes of the answers about the scans held back; ``step``
        seconds and ``steps`` of the training.
    """
    items = _training(work)
    experts, first = [], dict[str, Mapping[str, Any]]()
    growth: dict[str, list[float]] = {}
    held, scored = items_of(work.collection, SPLIT), 0.0
    for spec in work.specs:
        own = [i for i in items if not unread(spec, work.collection.dataset(i["task"]))]
        scan = own[len(own) // 2]
        first.setdefault(scan["task"], scan)
        asked = _asked(work, spec, scan)
        growth.setdefault(scan["task"], []).append(asked.pop("prepared") / max(1, source_bytes(scan)))
        read = [i for i in held if not unread(spec, work.collection.dataset(i["task"]))]
        scored += asked.pop("saved") / max(1, source_bytes(scan)) * sum(map(source_bytes, read))
        experts.append({"name": spec.name, "scans": len(own), **asked})
    steps = _step(work, list(first.values()), len(items))
    return {"scans": len(items), "experts": experts, "prepared": prepared_bytes(items, growth),
            "held_back": len(held), "scored": round(scored), **steps}  # fmt: skip


def prepared_bytes(items: Sequence[Mapping[str, Any]], growth: Mapping[str, Sequence[float]]) -> int:
    """What the store keeps of all scans, forecast as the store itself does it: in proportion to their files.

    Args:
        items: the scans for training.
        growth: by task, bytes as prepared for each byte of a scan's files, of those that were prepared; tasks of which
            none was are taken for the mean of the others.
    """
    means = {task: sum(found) / len(found) for task, found in growth.items()}
    other = sum(means.values()) / len(means) if means else 0.0
    return round(sum(means.get(i["task"], other) * source_bytes(i) for i in items))


def source_bytes(item: Mapping[str, Any]) -> int:
    """Size of a scan's own files; of a DICOM series that of its folder."""
    files = [item["image"]] if isinstance(item["image"], str) else item["image"]
    return sum(folder_bytes(p) if (p := Path(file)).is_dir() else p.stat().st_size for file in files)


def _training(work: Work) -> list[dict[str, Any]]:
    """The scans for training, as the training's configuration lists them."""
    found: list[dict[str, Any]] = opened(work, work.out / "forecast").get_parsed_content(f"{DATA}::data")
    return found


def _asked(work: Work, spec: ExpertSpec, scan: Mapping[str, Any]) -> dict[str, Any]:
    """Ask one expert about one scan, and keep what it says."""
    bare = {k: v for k, v in scan.items() if k != "label"}
    all_plan = {"foreground::experts": str(work.manifest)}  # as in the training, or one would plan what others do not
    own = {"experts": str(work.description(spec.name)), f"{DATA}::data": [bare], **all_plan}
    parser = opened(work, work.out / "forecast", own)
    parser.get_parsed_content(f"{DATA}::preprocessing")  # a plan, made once, is no time of this scan
    moment, began = time.time(), time.monotonic()
    data = parser.get_parsed_content(DATA)
    seconds = time.monotonic() - began
    store = data.answers[0]
    found = store.store.find(store.chain, store.names[0])
    if found and (found / TEXT).stat().st_mtime < moment:  # it was there: asked once more, for the time alone
        began = time.monotonic()
        store.preprocessing(dict(store.data[0]))
        seconds = time.monotonic() - began
        store.preprocessing.transforms[-1].release()
    shape = data.cases.case(0)["image"].shape[1:]
    depth = _RECORD if spec.labels.exclusive else len(spec.labels)
    kept = [s.store.find(s.chain, name) for s in (data.cases, data.maps) for name in s.names[:1]]
    prepared = sum(folder_bytes(folder) for folder in kept if folder)
    size = folder_bytes(found) if found else 0
    saved = saved_size(store.case(0)["answer"]) * _finer(scan, data.cases.case(0))
    return {"seconds": seconds, "bytes": size, "whole": math.prod(shape) * depth, "prepared": prepared, "saved": saved}


def _finer(scan: Mapping[str, Any], prepared: Mapping[Any, Any]) -> float:
    """How many of a scan's own voxels lie in one of the student's grid; what pads that takes hardly any disk."""
    image = LoadCased(keys="image")({"image": scan["image"], "case": scan["case"]})["image"]
    one, own = (abs(np.linalg.det(np.asarray(a)[:3, :3])) for a in (grid_of(prepared)["affine"], image.affine))
    return float(one / own)


def _step(work: Work, scans: Sequence[Mapping[str, Any]], count: int) -> dict[str, Any]:
    """Seconds of a step, the fastest of a few, and how many the whole training has."""
    parser = opened(work, work.out / "forecast", {f"{DATA}::data": [dict(s) for s in scans], "quiet": True})
    trainer = parser.get_parsed_content(TRAINER)
    batch, seconds = next(iter(trainer.data_loader)), []
    for _ in range(STEPS):
        began = time.monotonic()
        trainer._process_function(trainer, batch)
        seconds.append(time.monotonic() - began)
    given = parser.get_parsed_content("max_steps")
    fixed, samples, batch_size, epochs = (
        parser.get_parsed_content(k) for k in ("iterations_per_epoch", "samples_per_case", "batch_size", "max_epochs")
    )
    epoch = fixed or math.ceil(count * samples / batch_size)
    return {"step": min(seconds), "steps": int(given or epoch * epochs)}


def hours(found: Mapping[str, Any]) -> tuple[float, float]:
    """Hours of answering and of training, one process each."""
    answering = sum(e["seconds"] * e["scans"] for e in found["experts"])
    return answering / 3600, found["step"] * found["steps"] / 3600


def forecast_lines(found: Mapping[str, Any]) -> list[str]:
    """For people."""
    lines = [f"{e['name']}: {e['scans']} scans of about {e['seconds']:.1f} s, "
             f"{size_text(e['bytes'] * e['scans'])} on disk ({size_text(e['whole'] * e['scans'])} at most)"
             for e in found["experts"]]  # fmt: skip
    if found.get("prepared"):  # earlier records lack it
        lines.append(f"prepared volumes of {found['scans']} scans: {size_text(found['prepared'])} on disk")
    if found.get("scored"):
        lines.append(f"answers about {found['held_back']} scans held back, kept with their scores: about "
                     f"{size_text(found['scored'])} on disk")  # fmt: skip
    answering, training = hours(found)
    lines.append(f"answers about {_time(answering)}, training about {_time(training)} "
                 f"({found['steps']} steps of {found['step']:.2f} s)")  # fmt: skip
    return lines


def _time(value: float) -> str:
    if value >= 1:
        return f"{value:.1f} hours"
    return f"{value * 60:.0f} minutes" if value * 60 >= 1 else "a minute"
