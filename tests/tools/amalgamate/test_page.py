"""The page says what was measured, and text from data stays text."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from common.card import ModelCard, save_weights
from common.errors import AmalgamationError
from common.experts.spec import write_manifest
from common.labels import LabelSpace
from tests.tools.amalgamate.made import expert, write_scans
from tools.amalgamate.gather import gather
from tools.amalgamate.given import Folder
from tools.amalgamate.lesson_map import lesson_map
from tools.amalgamate.lessons import Lesson
from tools.amalgamate.page import render, sentence
from tools.amalgamate.verdict import rows_from, verdicts
from tools.amalgamate.work import Work

NAN = math.nan


def row(structure: str, expert_name: str, agreement: float, student: float = NAN, own: float = NAN) -> dict[str, Any]:
    return {"task": "ct", "case": "<i>", "structure": structure, "expert": expert_name, "agreement": agreement,
            "student": student, "own": own}  # fmt: skip


ROWS = [
    row("liver", "a", 0.95),
    row("spleen", "a", NAN, 0.4, 0.4),
    row("femur <b>", "b&c", 0.3),
    row("rib", "b&c", NAN),
]


@pytest.fixture
def work(tmp_path: Path) -> Work:
    specs = [expert("a", "liver", "spleen"), expert("b&c", "femur <b>", "rib")]
    gather([Folder("ct", write_scans(tmp_path / "scans", 6))], [], specs, tmp_path / "out" / "collection")
    write_manifest(tmp_path / "out" / "experts.json", specs)
    seen = {"a": {"ct": {"liver": 4, "spleen": 4}}, "b&c": {"ct": {"femur <b>": 1}}}
    scores = {"rows": ROWS, "cost": {"": 2.0, "a": 6.0, "b&c": 10.0}, "scans": {"ct": 2}, "viewer": [],
              "passes": {"experts": 1.5, "seconds": 11.0},
              "disputed": [["a", "liver", "b&c", "femur <b>", 1234]], "structures": ["liver"],
              "pictures": [{"task": "ct", "case": "<i>", "file": "none.png"}]}  # fmt: skip
    odd = [["a", "liver", "b&c", "femur <b>", 0.8, 4]]
    for step, found in (("answers", {"seen": seen, "contradictions": odd}), ("scores", scores)):
        (tmp_path / "out" / step).mkdir()
        (tmp_path / "out" / step / f"{step}.json").write_text(json.dumps(found))
    return Work(tmp_path / "out")


def test_the_page(work: Work) -> None:
    text = render(work, {"command": "python -m tools amalgamate '<x>'", "steps": [], "created": "2026-01-01T00:00"})
    plain = " ".join(text.split())
    assert "One pass answers for 4 structures of 2 experts; for 1 of them as well as whoever knows them" in plain
    assert "1 of 2 passes can go. It takes 5.5 times less time than the experts that read a scan." in plain
    assert "of the 1.5 experts that read a scan" in plain
    assert "For 1 nothing is said: neither the student nor an expert finds them." in plain
    assert "The student answers as well for all others that it knows" in plain
    assert plain.count('<td class="none">not found by either') == 1, "neither keep nor go"
    assert "a says liver where b&amp;c says femur &lt;b&gt;, in all 4 scans (80% of the smaller one)" in plain
    assert "It does not find spleen itself (Dice below 0.5), and neither does the student." in plain
    assert "Keep it for <b>femur &lt;b&gt;</b>" in plain and "No scan that was held back shows rib" in plain
    assert "rib: in 0 of" in plain and "femur &lt;b&gt;: in 1 of" in plain
    assert "1,234" in plain and "Left out: none.png is no picture" in plain
    assert "<i>" not in text.replace('<i class="key', "") and "<x>" not in text and "femur <b>" not in text


def test_how_tiles_lie_and_nnunets_command(work: Work) -> None:
    assert "In nnU-Net" not in render(work, {}) and "tiles overlap" not in render(work, {})
    settings = {"overlap": 0.2, "overlap_from": ["a", "b&c"]}
    card = ModelCard(LabelSpace(("liver",)), ("CT",), "ka2er", extra={"settings": settings})
    work.model.parent.mkdir()
    save_weights(work.model, {"w": torch.zeros(1)}, card)
    folder = work.model.parent / "nnunet" / "Dataset1_x" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text("{}")
    text = " ".join(render(work, {}).split())
    assert "tiles overlap by 0.2 of their size and step by 0.8, as at home those of a, b&amp;c" in text
    assert f"-m {folder} -f 0 -step_size 0.8</dd>" in text


def test_what_stays_has_a_column_and_a_word(work: Work) -> None:
    assert "Student + kept" not in render(work, {})
    work.keep(("a", "b&c"))
    rows = [{"task": "ct", "case": "<i>", "structure": "spleen", "dice": 0.875}]
    (work.out / "beside").mkdir()
    told = {"experts": {"a": ["spleen"], "b&c": []}, "rows": rows}
    (work.out / "beside" / "beside.json").write_text(json.dumps(told))
    text = " ".join(render(work, {}).split())
    assert "Student + kept" in text and text.count("0.875</td>") == 1
    assert "decides about <b>spleen</b>" in text and "It was to stay, and is asked about nothing" in text
    assert "8.0 s" in text and "with a, of a scan that they read" in text, "2 s of the student, 6 of a"


def test_a_picture_elsewhere_is_refused(work: Work) -> None:
    file = work.out / "scores" / "scores.json"
    found = json.loads(file.read_text())
    file.write_text(json.dumps({**found, "pictures": [{"task": "ct", "case": "x", "file": "../../../secret.png"}]}))
    with pytest.raises(AmalgamationError):
        render(work, {})


def test_nothing_scored_is_said() -> None:
    assert sentence([]) == "Nothing was scored: no scan was held back."
    assert "times less" not in sentence(verdicts(rows_from(ROWS)), 0.3)


def test_what_is_not_read_has_no_row(work: Work) -> None:
    told = json.loads((work.out / "answers" / "answers.json").read_text())
    text = render(work, {"command": "x", "steps": [], "created": ""})
    rows = text.split('id="lessons"')[1].split("</section>")[0].count("<tr")
    assert told["seen"] and rows == 1 + 4, "a head, and two structures of two experts that read the scans"


@pytest.mark.parametrize("change", [{"task": 1}, {"agreement": "x"}, {"more": 1}])
def test_rows_that_are_none_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(AmalgamationError, match="row of the scores"):
        rows_from([{**ROWS[0], **change}])


def test_the_map_has_a_disc_for_each_lesson_that_is_read() -> None:
    found = [Lesson("a", "ct", "CT", "liver", 4, 4), Lesson("a", "ct", "CT", "rib", 4, 1),
             Lesson("a", "ct", "CT", "femur", 4, 0), Lesson("a", "mr", "MR", "liver", 0, None, "x")]  # fmt: skip
    drawing = lesson_map(found, {"a": "run1"})
    assert drawing is not None
    radii = [float(c.attrib["r"]) for c in drawing.iter("circle")]
    assert len(radii) == 3 and radii[0] == 2 * radii[1] and radii[2] == 3.5
    assert [t.text for t in drawing.iter("title")][1] == "a, rib: seen in 1 of 4 scans of ct"
    assert lesson_map([found[-1]], {}) is None
