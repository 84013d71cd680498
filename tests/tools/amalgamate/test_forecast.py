"""A forecast is arithmetic on what was measured."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
import pytest

from common.data.datasets.datalist import items
from common.experts.spec import write_manifest
from tests.common.experts.answers import easy
from tests.tools.amalgamate.made import expert, write_scans
from tools.amalgamate import forecast as module
from tools.amalgamate.forecast import _time, forecast, forecast_lines, hours, prepared_bytes, source_bytes
from tools.amalgamate.gather import gather
from tools.amalgamate.given import Folder
from tools.amalgamate.prepare import prepare
from tools.amalgamate.training import DATA, TRAINER, opened
from tools.amalgamate.work import Work

FOUND = {
    "scans": 20,
    "experts": [
        {"name": "a", "scans": 20, "seconds": 180.0, "bytes": 10**6, "whole": 5 * 10**6},
        {"name": "b", "scans": 4, "seconds": 90.0, "bytes": 10**3, "whole": 5 * 10**3},
    ],
    "step": 0.5,
    "steps": 7200,
}


def test_hours_are_those_of_all_scans_and_steps() -> None:
    answering, training = hours(FOUND)
    assert answering == pytest.approx((20 * 180 + 4 * 90) / 3600) and training == 1.0


def test_the_stores_disk_is_in_proportion_to_the_files(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    for name, size in (("a", 100), ("b", 300), ("c", 50), ("series/1", 20), ("series/2", 30)):
        (tmp_path / name).write_bytes(bytes(size))
    images = {
        "ct": [str(tmp_path / "a"), str(tmp_path / "b")],
        "mr": str(tmp_path / "c"),
        "new": str(tmp_path / "series"),
    }
    items = [{"task": task, "image": image} for task, image in images.items()]
    assert [source_bytes(i) for i in items] == [400, 50, 50]
    assert prepared_bytes(items, {"ct": [2.0, 4.0], "mr": [1.0]}) == 400 * 3 + 50 * 1 + 50 * 2
    assert prepared_bytes(items, {}) == 0
    found = forecast_lines({**FOUND, "prepared": 2 * 10**9})
    assert found[2] == "prepared volumes of 20 scans: 2 GB on disk" and len(found) == 1 + len(forecast_lines(FOUND))


def test_answers_that_the_scores_keep_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In proportion to the files of the scans held back that an expert reads: what it said about one takes so much."""
    specs = [expert("a", "liver"), expert("b", "rib"), expert("c", "rib", channels=("MR",))]
    folders = [Folder(n, write_scans(tmp_path / n, count)) for n, count in (("ct", 20), ("mr", 10))]
    gather(folders, [], specs, tmp_path / "out" / "collection")
    write_manifest(tmp_path / "out" / "experts.json", specs)
    work = Work(tmp_path / "out")
    training = items(work.collection, "unlabelled")
    monkeypatch.setattr(module, "_training", lambda _: training)
    monkeypatch.setattr(module, "_step", lambda *_: {"step": 0.5, "steps": 2})
    told = {"seconds": 1.0, "bytes": 5, "whole": 9}
    monkeypatch.setattr(module, "_asked", lambda work, spec, scan: {
        **told, "prepared": 0, "saved": {"a": 3.0, "b": 0.5, "c": 2.0}[spec.name] * source_bytes(scan)})  # fmt: skip
    found = module.forecast(work)
    held: dict[str, list[int]] = {"ct": [], "mr": []}
    for item in items(work.collection, "test"):
        held[item["task"]].append(source_bytes(item))
    assert len(held["ct"]) > 1 and held["mr"] and found["held_back"] == len(held["ct"] + held["mr"])
    assert found["scored"] == round(3.5 * sum(held["ct"]) + 2 * sum(held["mr"]))
    assert [e.keys() for e in found["experts"]] == [{"name", "scans", *told}] * 3
    lines = forecast_lines({**FOUND, "held_back": 3, "scored": 4 * 10**9})
    assert lines[2] == "answers about 3 scans held back, kept with their scores: about 4 GB on disk"
    assert len(lines) == 1 + len(forecast_lines({**FOUND, "held_back": 0, "scored": 0})), "none is held back"


def test_lines_say_what_is_needed() -> None:
    first, second, last = forecast_lines(FOUND)
    assert "a: 20 scans of about 180.0 s, 20 MB on disk (100 MB at most)" in first
    assert second.startswith("b: 4 scans of about 90.0 s, 4 kB on disk")
    assert last == "answers about 1.1 hours, training about 1.0 hours (7200 steps of 0.50 s)"
    assert "training about a minute" in forecast_lines({**FOUND, "steps": 10})[-1]
    assert "training about 5 minutes" in forecast_lines({**FOUND, "steps": 600})[-1]


@pytest.mark.parametrize(
    ("value", "words"),
    [(1, "1.0 hours"), (0.99, "59 minutes"), (1 / 60, "1 minutes"), (0.9 / 60, "a minute"), (0, "a minute")],
)
def test_a_time_has_the_unit_that_fits(value: float, words: str) -> None:
    assert _time(value) == words


class Opened:
    """A configuration that was opened: contents by key."""

    def __init__(self, **contents: Any) -> None:
        self.contents = contents

    def get_parsed_content(self, key: str) -> Any:
        return self.contents[key.rpartition("::")[2]]


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"max_steps": None, "iterations_per_epoch": None}, 2 * 20),  # 5 scans, 3 samples of each, 8 at once
        ({"max_steps": None, "iterations_per_epoch": 7}, 7 * 20),
        ({"max_steps": 11, "iterations_per_epoch": 7}, 11),
    ],
)
def test_the_fastest_of_three_steps_counts(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], steps: int) -> None:
    done: list[Any] = []
    trainer = SimpleNamespace(data_loader=iter(["batch"]), _process_function=lambda t, b: done.append(b))
    own = {
        TRAINER.rpartition("::")[2]: trainer,
        "samples_per_case": 3,
        "batch_size": 8,
        "max_epochs": 20,
    }
    monkeypatch.setattr(module, "opened", lambda *told: Opened(**own, **given))
    ticks = iter([0.0, 4.0, 4.0, 6.0, 6.0, 9.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(ticks))
    work = SimpleNamespace(out=Path("x"))
    assert module._step(work, [], 5) == {"step": 2.0, "steps": steps}  # type: ignore[arg-type]
    assert done == ["batch"] * 3


@pytest.mark.parametrize(("exclusive", "depth"), [(True, 5), (False, 2)])
@pytest.mark.parametrize("again", [False, True])
def test_one_scan_is_asked_for_its_time_and_its_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exclusive: bool, depth: int, again: bool
) -> None:
    """What was kept before is asked once more, for the time alone."""
    for name, size in (("answer", 30), ("case", 100), ("maps", 11)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "array").write_bytes(bytes(size))
    record = tmp_path / "answer" / module.TEXT
    record.write_text("")
    os.utime(record, (1000, 1000))
    asked: list[Any] = []

    class Asking:
        transforms: ClassVar[list[Any]] = [SimpleNamespace(release=lambda: asked.append("released"))]

        def __call__(self, item: Any) -> None:
            asked.append(item)

    def kept(folder: str) -> Any:
        store = SimpleNamespace(find=lambda chain, name: tmp_path / folder)
        return SimpleNamespace(store=store, chain="c", names=["n"], data=[{"image": "x"}], preprocessing=Asking(),
                               case=lambda number: {"image": np.zeros((2, 3, 4, 5)), "answer": "kept"})  # fmt: skip

    monkeypatch.setattr(module, "saved_size", lambda answer: {"kept": 8}[answer])
    monkeypatch.setattr(module, "_finer", lambda scan, prepared: 1.5)
    data = SimpleNamespace(answers=[kept("answer")], cases=kept("case"), maps=kept("maps"))
    monkeypatch.setattr(
        module, "opened", lambda *told: Opened(**{DATA.rpartition("::")[2]: data, "preprocessing": None})
    )
    ticks = iter([0.0, 3.0, 10.0, 17.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(ticks))
    monkeypatch.setattr(module.time, "time", lambda: 1001.0 if again else 999.0)
    work = SimpleNamespace(out=Path("x"), manifest=Path("experts.json"), description=lambda name: Path(name))
    spec = expert("a", "liver", "spleen", exclusive=exclusive)
    found = module._asked(work, spec, {"image": "x", "label": "y"})  # type: ignore[arg-type]
    assert found == {"seconds": 7.0 if again else 3.0, "bytes": 30, "whole": 60 * depth, "prepared": 111, "saved": 12.0}
    assert asked == ([{"image": "x"}, "released"] if again else [])


def test_nobody_but_the_experts_knows_where_structures_are(tmp_path: Path) -> None:
    """No expert is an nnU-Net to start from, and label maps do not teach: answers tell the CT scans' statistics."""
    ct, mr = (easy.dataset(tmp_path, name, training=4, unlabelled=0, channel=name.upper()) for name in ("ct", "mr"))
    for file in ct.glob("images/*_label.nii.gz"):
        found = nib.load(file)
        air = (np.asarray(found.dataobj) == 0).astype(np.uint8)
        nib.save(nib.Nifti1Image(air, found.affine), file)  # who reads these takes air for a structure
    given = []
    for name, channel in (("m", "MR"), ("c", "CT")):  # who does not read CT is asked first
        made = easy.expert(tmp_path, name, "spleen", channels=(channel,))
        given.append(write_manifest(tmp_path / f"{name}.json", [made]))
    chosen = {"preset": "smoke", "labels_used": "none", "train": (("store_workers", "0"),)}
    work = prepare(given, {"ct": str(ct), "mr": str(mr)}, "", tmp_path / "out", wanted=chosen)
    assert not work.wanted.start_from
    found = forecast(work)
    assert [(e["name"], e["scans"]) for e in found["experts"]] == [("m", 1), ("c", 1)] and found["step"] > 0
    plans = json.loads((work.out / "forecast" / "plans" / "plans.json").read_text())
    told = plans["foreground_intensity_properties_per_channel"]["0"]
    assert told["mean"] == pytest.approx(200, abs=2)
    own = opened(work, work.out / "student").get_parsed_content("plan").plans
    assert own == plans, "the training plans the same, from the same answers"
