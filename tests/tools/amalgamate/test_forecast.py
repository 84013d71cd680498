"""A forecast is arithmetic on what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.data.datasets.datalist import items
from common.experts.spec import write_manifest
from tests.common.experts.answers import easy
from tests.tools.amalgamate.made import expert, write_scans
from tools.amalgamate import forecast as module
from tools.amalgamate.forecast import forecast, forecast_lines, hours, prepared_bytes, source_bytes
from tools.amalgamate.gather import gather
from tools.amalgamate.given import Folder
from tools.amalgamate.prepare import prepare
from tools.amalgamate.training import opened
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
