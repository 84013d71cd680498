"""Scores of scans held back, with a student and experts that say what they are told to say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
import pytest
import torch

from common.experts.answers.record import record
from common.experts.spec import ExpertSpec, write_manifest
from tests.tools.amalgamate.made import expert, write_scans
from tools.amalgamate.gather import gather
from tools.amalgamate.given import Folder
from tools.amalgamate.scores import scores
from tools.amalgamate.verdict import rows_from
from tools.amalgamate.work import Work

SHAPE = (12, 10, 8)


class Says:
    """Expert "a" says its first structure in the lower half, "b" in the whole scan."""

    asked: ClassVar[list[tuple[str, str]]] = []
    killed_at: ClassVar[int | None] = None

    def __init__(self, spec: ExpertSpec, device: str) -> None:
        self.spec = spec

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        if len(self.asked) == self.killed_at:
            raise KeyboardInterrupt
        self.asked.append((self.spec.name, str(data["image"].meta["filename_or_obj"])))
        assert tuple(data["grid"]["shape"]) == data["image"].shape[1:] == SHAPE
        logits = torch.zeros(len(self.spec.labels) + 1, *SHAPE)
        logits[1, : 6 if self.spec.name == "a" else 12] = 9
        return {"answer": record(logits)}


def stored(path: Path, upto: int) -> None:
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[:upto] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2, 3, 1])), path)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    scans = write_scans(tmp_path / "scans", 3)
    write_scans(tmp_path / "mr", 2)
    for file in scans.iterdir():
        stored(tmp_path / "labels" / file.name, 6)
    specs = [expert("a", "liver", "spleen"), expert("b", "rib"), expert("c", "rib", channels=("MR",))]
    folders = [Folder("ct", scans), Folder("mr", tmp_path / "mr")]
    labels = [Folder("ct", tmp_path / "labels")]
    gather(folders, labels, specs, tmp_path / "out" / "collection", structures={"liver": 1})
    write_manifest(tmp_path / "out" / "experts.json", specs)

    def students(work: Work, out: Path, entries: Sequence[Any]) -> dict[str, Any]:
        Says.asked.append(("student", str(len(entries))))
        for dataset in work.collection.datasets:
            for case in dataset.cases("test"):
                stored(out / dataset.name / f"{case.id}.nii.gz", 3)
        return {"structures": ["rib", "liver", "spleen"], "seconds": 0.5}

    monkeypatch.setattr("tools.amalgamate.scores._students", students)
    monkeypatch.setattr("tools.amalgamate.scores.AskExpertd", Says)
    monkeypatch.setattr(Says, "asked", [])
    (tmp_path / "out" / "student").mkdir()
    (tmp_path / "out" / "student" / "model.pt").write_bytes(b"weights")
    return Work(tmp_path / "out")


def test_every_comparison_is_made(work: Work) -> None:
    found = scores(work)
    rows = {(r.task, r.structure, r.expert): r for r in rows_from(found["rows"])}
    assert set(rows) == {("ct", "liver", "a"), ("ct", "spleen", "a"), ("ct", "rib", "b"), ("mr", "rib", "c")}
    liver, rib = rows["ct", "liver", "a"], rows["ct", "rib", "b"]
    assert (liver.own, liver.student, liver.agreement) == (1.0, 0.0, 0.0)  # the student says rib, where it is liver
    assert rib.agreement == pytest.approx(0.4) and np.isnan(rib.own)  # 3 of 12 slices; nobody annotated ribs
    assert found["disputed"] == [["a", "liver", "b", "rib", 6 * 10 * 8]]
    assert set(found["cost"]) == {"", "a", "b", "c"} and found["scans"] == {"ct": 1, "mr": 1}
    read = (found["cost"]["a"] + found["cost"]["b"], found["cost"]["c"])  # nobody asks all three about a scan
    assert found["passes"] == {"experts": 1.5, "seconds": pytest.approx(sum(read) / 2)}
    assert [p["task"] for p in found["pictures"]] == ["ct", "mr"]
    assert all((work.out / "scores" / "pictures" / p["file"]).is_file() for p in found["pictures"])
    assert [[layer["name"] for layer in v["layers"]] for v in found["viewer"]] == [["Student", "a", "b", "Label map"],
                                                                                  ["Student", "c"]]  # fmt: skip


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_an_interrupted_step_asks_nobody_twice(work: Work, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """What is lost is the scan that was looked at; what comes out is the same, but for the clock."""
    whole = {k: v for k, v in scores(work).items() if k not in ("cost", "passes")}
    every = Says.asked.copy()
    assert len(set(every)) == len(every) == 4  # the student, two experts of one scan, one of the other
    shutil.rmtree(work.out / "scores")
    monkeypatch.setattr(Says, "asked", [])
    monkeypatch.setattr(Says, "killed_at", moment)
    with pytest.raises(KeyboardInterrupt):
        scores(work)
    monkeypatch.setattr(Says, "killed_at", None)
    again = scores(work)
    assert json.dumps({k: v for k, v in again.items() if k not in ("cost", "passes")}) == json.dumps(whole)
    assert set(again["cost"]) == {"", "a", "b", "c"}
    lost = Says.asked.copy()
    for one in every:
        lost.remove(one)
    assert lost == ([every[1]] if moment == 2 else [])
    scores(work)
    assert len(Says.asked) == len(every) + len(lost)


@pytest.mark.parametrize("change", ["model", "scan", "prediction", "damage"])
def test_what_was_found_of_something_else_is_found_anew(work: Work, change: str) -> None:
    scores(work)
    before = len(Says.asked)
    if change == "model":
        work.model.write_bytes(b"others")
    if change == "scan":
        Path(Says.asked[1][1]).touch()
    if change == "prediction":
        next((work.out / "scores" / "predictions").rglob("*.nii.gz")).unlink()
    if change == "damage":
        next((work.out / "scores" / "scans").glob("ct_*.json")).write_text("{")
    scores(work)
    assert len(Says.asked) - before == {"model": 4, "scan": 3, "prediction": 1, "damage": 2}[change]


def test_nothing_held_back_is_no_failure(tmp_path: Path) -> None:
    spec = expert("a", "liver")
    gather([Folder("ct", write_scans(tmp_path / "one", 1))], [], [spec], tmp_path / "out" / "collection")
    write_manifest(tmp_path / "out" / "experts.json", [spec])
    assert scores(Work(tmp_path / "out"))["rows"] == []
