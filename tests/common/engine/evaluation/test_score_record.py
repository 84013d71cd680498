"""Scores lie beside the weights that they are of, and the weights' bytes stay as they are."""

import json
from pathlib import Path
from typing import Any

from ignite.engine import Engine

from common.engine.evaluation.score_record import KeepScores, read_scores, scores_file
from common.engine.evaluation.score_summary import summary

ROW = {"iou": 0.5, "hd": 2.0, "surface_dice": 0.5, "volume_pred_ml": 1.0, "volume_label_ml": 1.0, "hd95": 1.0}


def evaluated(folder: Path, dice: float, task: str = "ct") -> Path:
    rows = [{**ROW, "case": c, "task": task, "structure": "liver", "dice": dice} for c in "abc"]
    (folder / "evaluation").mkdir(parents=True, exist_ok=True)
    (folder / "evaluation" / "summary.json").write_text(json.dumps(summary(rows, n_boot=10)))
    return folder


def keep(folder: Path, weights: Path, **options: Any) -> None:
    engine = Engine(lambda *_: None)
    KeepScores(output_dir=folder, weights=weights, **options).attach(engine)
    engine.run([0])


def test_scores_of_just_these_weights(tmp_path: Path) -> None:
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"1")
    keep(evaluated(tmp_path, 0.8), weights, split="test")
    keep(evaluated(tmp_path, 0.9), weights, split="validation")
    keep(evaluated(tmp_path, 0.75), weights, split="test", ignore_card=True)
    keep(evaluated(tmp_path, 0.85), weights, split="test")
    found = read_scores(weights)
    assert [(e["split"], round(e["mean"]["dice"]["mean"], 6), e["ignore_card"]) for e in found] == [
        ("validation", 0.9, False), ("test", 0.75, True), ("test", 0.85, False)]  # fmt: skip
    assert found[-1]["structures"]["liver"]["dice"]["n"] == 3 and weights.read_bytes() == b"1"
    weights.write_bytes(b"2")
    assert read_scores(weights) == []
    keep(evaluated(tmp_path, 0.5), weights)
    assert len(read_scores(weights)) == 1
    for text in ("[]", "[" * 100_000, '{"weights_sha256": 1, "weights_sha256": 2}'):
        scores_file(weights).write_text(text)
        assert read_scores(weights) == []
    assert read_scores(weights) == [] == read_scores(tmp_path / "none.pt")


def test_files_of_one_stem_have_scores_of_their_own(tmp_path: Path) -> None:
    one, other = tmp_path / "model.pt", tmp_path / "model.safetensors"
    for dice, weights in ((0.8, one), (0.6, other)):
        weights.write_bytes(weights.name.encode())
        keep(evaluated(tmp_path, dice), weights)
    assert [round(read_scores(w)[0]["mean"]["dice"]["mean"], 6) for w in (one, other)] == [0.8, 0.6]
    scores_file(one).rename(tmp_path / "model.scores.json")  # of an earlier version
    scores_file(other).unlink()
    assert len(read_scores(one)) == 1 and read_scores(other) == []
    keep(evaluated(tmp_path, 0.9), one, split="test")
    assert len(read_scores(one)) == 2 and scores_file(one).is_file()


def test_a_folder_that_cannot_be_written_costs_no_evaluation(tmp_path: Path, caplog: Any, monkeypatch: Any) -> None:
    weights = tmp_path / "model.pt"
    keep(evaluated(tmp_path, 0.8), weights)
    assert not scores_file(weights).exists()
    weights.write_bytes(b"1")

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("read-only")

    monkeypatch.setattr("common.engine.evaluation.score_record.atomic_write", refuse)
    keep(evaluated(tmp_path, 0.8), weights)
    assert "not noted" in caplog.text and not scores_file(weights).exists()
