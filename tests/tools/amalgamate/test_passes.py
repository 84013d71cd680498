"""Killed in the middle of the student's pass over the scans held back, it passes those that are missing."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.data.datasets.datalist import items
from common.data.transforms.restore import SavePredictiond
from common.errors import DataError
from common.experts.spec import write_manifest
from tests.architecture.tree import ROOT
from tests.nnunet_students import STRUCTURES, two_modalities, write_student
from tests.tools.amalgamate.made import expert, write_scans
from tests.tools.amalgamate.test_killed import dead, forked, note, noted
from tools.amalgamate.gather import gather
from tools.amalgamate.given import Folder
from tools.amalgamate.passes import NotePasses, passed, prediction
from tools.amalgamate.scores import SPLIT, inferred
from tools.amalgamate.work import Work


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """Three scans that are held back, and a student that guesses."""
    specs, out = [expert("a", *STRUCTURES)], tmp_path / "out"
    gather([Folder("ct", write_scans(tmp_path / "scans", 8))], [], specs, out / "collection", share=0.4)
    write_manifest(out / "experts.json", specs)
    scan = MetaTensor(torch.from_numpy(np.random.default_rng(0).normal(0, 60, (1, 12, 10, 8)).astype(np.float32)))
    (out / "student").mkdir()
    write_student(out / "student" / "model.pt", two_modalities(), scan)
    return Work(out, bundles=ROOT / "bundles")


def test_killed_in_the_pass(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By SIGKILL, while the second scan's label map is written, and after it was written and not noted."""
    monkeypatch.chdir(ROOT)
    entries, out, begun = items(work.collection, SPLIT), work.out / "scores" / "predictions", tmp_path / "begun"
    assert len(entries) == 3
    save, noting, result = SavePredictiond.__call__, NotePasses._note, tmp_path / "result"

    def run(write: int, writing: int = 0) -> int:
        def saving(self: SavePredictiond, data: Any) -> Any:
            nonlocal write
            note(begun, str(data["case"]))
            write -= 1
            if write == 0:
                dead()
            return save(self, data)

        def notes(self: NotePasses, engine: Any) -> None:
            nonlocal writing
            writing -= 1
            if writing == 0:
                dead()
            noting(self, engine)

        def done() -> None:
            SavePredictiond.__call__, NotePasses._note = saving, notes  # type: ignore[method-assign]
            result.write_text(json.dumps(inferred(work, out, entries)))

        return forked(done, tmp_path / "log")

    one, two, three = (str(e["case"]) for e in entries)
    assert run(2) == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert noted(begun) == [one, two]
    first = prediction(out, entries[0])
    before = (first.read_bytes(), first.stat().st_mtime_ns)
    assert run(0, 1) == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert noted(begun) == [one, two, two], "the first is not passed again"
    assert run(0) == 0, (tmp_path / "log").read_text()
    assert noted(begun) == [one, two, two, two, three], "what was not noted is not known to be whole"
    assert (first.read_bytes(), first.stat().st_mtime_ns) == before
    found = json.loads(result.read_text())
    assert found["structures"] == list(STRUCTURES) and found["seconds"] > 0
    assert run(1) == 0 and json.loads(result.read_text()) == found, "nobody is asked again"
    prediction(out, entries[2]).unlink()
    assert run(0) == 0 and noted(begun)[5:] == [three]
    write_student(work.model, two_modalities(), overlap=0.25)
    assert run(0) == 0 and noted(begun)[6:] == [one, two, three], "another student passes all"


def test_damaged_notes_are_none_and_a_scan_that_nobody_passed_is_told(tmp_path: Path) -> None:
    entry, out, runs = {"task": "ct", "case": "a"}, tmp_path / "maps", list[int]()

    def run() -> None:
        runs.append(1)
        prediction(out, entry).parent.mkdir(parents=True, exist_ok=True)
        prediction(out, entry).touch()

    with pytest.raises(DataError, match="did not answer about a scan") as error:
        passed(out, {"student": "x"}, [entry], lambda: None)
    assert "case a" in str(error.value.where)
    file = tmp_path / "passed" / "scans" / "ct_a.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    for text in ("{", "{}", '{"seconds": "x"}', '{"seconds": -1}', '{"seconds": 2.5}'):
        file.write_text(text)
        if "2.5" not in text:
            with pytest.raises(DataError, match="did not answer"):
                passed(out, {"student": "x"}, [entry], run)
    assert passed(out, {"student": "x"}, [entry], run) == 2.5 and len(runs) == 4
    with pytest.raises(DataError, match="did not answer"):
        passed(out, {"student": "y"}, [entry], lambda: None)
    assert not prediction(out, entry).exists() and not file.exists(), "they were another student's"
