"""Experts that stay beside a student: about what they decide, what comes of it, and that nobody is asked again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.experts.answers.ask import AskExpertd
from common.experts.answers.beside import kept_file, read_kept
from common.experts.spec import write_manifest
from tests.architecture.tree import ROOT
from tests.common.experts.answers.easy import VALUES
from tests.common.experts.answers.easy import expert as easy
from tests.nnunet_students import STRUCTURES, two_modalities, write_student
from tests.tools.amalgamate.made import expert
from tools.amalgamate.beside import beside, decided, stay_lines, together
from tools.amalgamate.command import by_itself
from tools.amalgamate.gather import gather
from tools.amalgamate.given import Folder
from tools.amalgamate.scores import scores
from tools.amalgamate.verdict import Row, Verdict, rows_from
from tools.amalgamate.work import Work

NAN = math.nan


def verdict(name: str, structure: str, word: str) -> Verdict:
    return Verdict(name, structure, 1, NAN, NAN, NAN, word)


def test_an_expert_decides_where_it_is_to_keep_or_nobody_knows() -> None:
    found = [verdict("a", "liver", "keep"), verdict("a", "spleen", "go"), verdict("a", "scar", "neither"),
             verdict("a", "rib", "unseen"), verdict("b", "spleen", "keep")]  # fmt: skip
    spec = expert("a", "liver", "spleen", "scar", "rib", "femur")
    assert decided(spec, found, ("rib", "liver", "scar", "spleen")) == ("liver", "rib")
    assert decided(spec, found[-1:], ("spleen", "liver")) == ("liver", "spleen"), "nothing of it was scored: all"
    assert decided(spec, found[1:2], ("spleen",)) == ()
    assert stay_lines({"a": ["liver", "rib"], "b": []}) == [
        "beside the student stays a, which decides about liver, rib; predict asks it, too, and with --keep False the "
        "student alone",
        "b is asked about nothing: the student answers as well for all that it finds",
    ]


def test_both_are_compared_on_the_same_scans() -> None:
    rows = [Row("ct", str(i), "liver", name, NAN, student, 0.9)
            for name in "ab" for i, student in enumerate((0.5, NAN, 0.7))]  # fmt: skip
    found = [{"task": "ct", "case": str(i), "structure": "liver", "dice": d} for i, d in enumerate((0.8, 0.1, 1.0))]
    assert together(rows, found) == {("a", "liver"): pytest.approx(0.9), ("b", "liver"): pytest.approx(0.9)}
    assert together(rows, []) == {}


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """Experts that know each structure by its intensity, and a student that guesses; scores are there."""
    (tmp_path / "scans").mkdir()
    (tmp_path / "labels").mkdir()
    image = np.zeros(())
    for number in range(4):
        label = np.zeros((20, 18, 16), np.uint8)
        label[2:9, 3:11, 3:9], label[12:19, 3:11, 8:15], label[8:12, 12:17, 5:12] = 1, 2, 3
        noise = np.random.default_rng(number).normal(0, 4, label.shape)
        image = (np.array([0.0, *VALUES.values()])[label] + noise).astype(np.float32)
        for folder, values in (("scans", image), ("labels", label)):
            nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / folder / f"{number}.nii.gz")
    specs = [easy(tmp_path, "a", "liver"), easy(tmp_path, "b", "spleen", "aorta")]
    out = tmp_path / "out"
    gather([Folder("ct", tmp_path / "scans")], [Folder("ct", tmp_path / "labels")], specs, out / "collection",
           structures={n: i for i, n in enumerate(STRUCTURES, 1)})  # fmt: skip
    write_manifest(out / "experts.json", specs)
    (out / "student").mkdir()
    write_student(out / "student" / "model.pt", two_modalities(), MetaTensor(torch.from_numpy(image[None])))
    found = Work(out, bundles=ROOT / "bundles")
    found.write()
    (out / "scores").mkdir()
    (out / "scores" / "scores.json").write_text(json.dumps(scores(found)))
    return found


def test_the_union_is_scored_and_with_another_choice_nobody_is_asked_again(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    before = {p: p.read_bytes() for p in work.out.rglob("*") if p.is_file()}
    rows = rows_from(work.result("scores")["rows"])
    alone = {(r.expert, r.structure): r.student for r in rows}
    assert set(alone) == {("a", "liver"), ("b", "spleen"), ("b", "aorta")} and max(alone.values()) < 0.8
    monkeypatch.setattr(AskExpertd, "__call__", lambda *_: pytest.fail("asked again"))
    work.keep(("b",))
    assert "wrote" in by_itself(work.out, "beside")
    found = work.result("beside")
    assert found["experts"] == {"b": ["spleen", "aorta"]}
    both = together(rows, found["rows"])
    assert both["b", "spleen"] > 0.99 and both["b", "aorta"] > 0.99 and both["a", "liver"] < 0.8
    (kept,) = read_kept(work.model, STRUCTURES)
    assert (kept.spec.name, kept.decides) == ("b", ("spleen", "aorta"))
    work.keep(("a",))
    assert not kept_file(work.model).exists() and not (work.out / "beside" / "beside.json").exists()
    found = beside(work)
    assert found["experts"] == {"a": ["liver"]} and together(rows, found["rows"])["a", "liver"] > 0.99
    assert together(rows, found["rows"])["b", "spleen"] < 0.8
    work.keep(())
    assert not kept_file(work.model).exists() and not work.keep_file.exists()
    assert {p: p.read_bytes() for p in before} == before, "what was asked, trained and scored is as it was"
