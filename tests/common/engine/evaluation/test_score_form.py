"""Scores may come from anywhere: what has another form than is written is refused by file and key."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.engine.evaluation.score_form import checked_evaluation
from common.engine.evaluation.score_record import KeepScores, read_scores, scores_file
from common.errors import DataError
from common.integrity import file_hash

ROW = {"mean": 0.5, "median": 0.5, "low": 0.4, "high": 0.6, "n": 3}
NONE = {"mean": None, "median": None, "low": None, "high": None, "n": 0}
BLOCK = {"dice": ROW, "hd95": NONE}
GOOD: dict[str, Any] = {"tasks": ["ct"], "split": "test", "ignore_card": False, "cases": 3, "mean": BLOCK,
                        "structures": {"liver": BLOCK}}  # fmt: skip
EVIL = "$import evilmod"


def block(**row: Any) -> dict[str, Any]:
    return {"dice": {**ROW, **row}, "hd95": NONE}


WRONG: list[tuple[str, Any, str]] = [
    ("split", EVIL, "split"), ("split", None, "split"), ("split", ["test"], "split"), ("cases", EVIL, "cases"),
    ("cases", 1.5, "cases"), ("cases", True, "cases"), ("cases", -1, "cases"), ("tasks", EVIL, "tasks"),
    ("tasks", ["ct", EVIL], "tasks"), ("tasks", 5, "tasks"), ("ignore_card", "yes", "ignore_card"), ("mean", 5, "mean"),
    ("mean", {"dice": ROW}, r"mean\.hd95"), ("mean", block(low=EVIL), r"mean\.dice\.low"),
    ("mean", block(high=float("nan")), r"mean\.dice\.high"), ("mean", block(mean=float("inf")), r"mean\.dice\.mean"),
    ("mean", block(mean=10**400), r"mean\.dice\.mean"), ("mean", block(mean=None, low=EVIL), r"mean\.dice\.low"),
    ("structures", [5], "structures"), ("structures", {EVIL: BLOCK}, "structures"),
    ("structures", {"liver": 5}, r"structures\.liver"),
    ("structures", {"liver": block(mean=EVIL)}, r"structures\.liver\.dice\.mean"),
]  # fmt: skip


def test_what_is_written_is_read() -> None:
    assert checked_evaluation(GOOD, "f") == GOOD and checked_evaluation({**GOOD, "split": ""}, "f")["split"] == ""


@pytest.mark.parametrize(("key", "value", "place"), WRONG)
def test_another_form_is_refused(key: str, value: Any, place: str) -> None:
    with pytest.raises(DataError, match=rf"f\.json, {place}"):
        checked_evaluation({**GOOD, key: value}, "f.json")
    with pytest.raises(DataError, match="entries by name"):
        checked_evaluation(value if isinstance(value, list) else [value], "f.json")


def test_a_file_of_another_form_is_passed_over_with_a_word_and_not_lost(tmp_path: Path, caplog: Any) -> None:
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"1")
    text = json.dumps({"weights_sha256": file_hash(weights), "evaluations": [GOOD, {**GOOD, "split": EVIL}]})
    scores_file(weights).write_text(text)
    assert read_scores(weights) == [] and "passed over" in caplog.text and "model.pt.scores.json" in caplog.text
    (tmp_path / "evaluation").mkdir()
    whole = {"cases": 3, "mean": BLOCK, "structures": {"liver": BLOCK}}
    (tmp_path / "evaluation" / "summary.json").write_text(json.dumps({"all": whole, "tasks": {"ct": whole}}))
    KeepScores(output_dir=tmp_path, weights=weights).keep(None)  # type: ignore[arg-type]
    assert "not noted" in caplog.text and scores_file(weights).read_text() == text
