"""A step with stored answers beside one of the student alone, each of its own trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from tools.bench import stored as module
from tools.bench.command import bench
from tools.bench.stored import Cost, stored

ROOT = Path(__file__).parents[3]


def test_both_steps_are_measured(phantom_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(module.__dict__, "PRESETS", ("smoke",))
    seen: list[Any] = []
    taken: list[bool] = []
    made = module.trainer_of

    def heard(*given):
        trainer = made(*given)
        seen.append(trainer.loss_function)
        trainer._process_function = lambda engine, batch: taken.append("answers" in batch)  # the step itself costs
        return trainer

    monkeypatch.setattr(module, "trainer_of", heard)
    text = stored("smoke", data=str(phantom_dir), repeats=2, out=str(tmp_path), student="swin_unetr")
    assert [type(loss).__name__ for loss in seen] == ["KA2ERLoss", "AnswersLoss"]
    assert [j.known for j in seen[1].judges] == [("liver", "left kidney", "aorta"),
                                                 ("spleen", "right kidney", "liver tumour")]  # fmt: skip
    assert taken == [False, True, True, False], "in turns"
    row = json.loads((tmp_path / "bench_stored.json").read_text())
    assert row["ratio"] == row["taught"] / row["alone"] > 0 and row["sample_taught"] > 0
    assert f"| swin_unetr | smoke | 6 | 2 | {row['alone']:.3f} | {row['taught']:.3f} | {row['ratio']:.2f} |" in text


def test_the_nnunet_student_learns_all_that_its_experts_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(module, "_PATCH", (24, 24, 16))
    made, seen, stages = module.trainer_of, [], []

    def heard(*given):
        trainer = made(*given)
        seen.append(trainer.loss_function)

        def step(engine, batch):
            stages.append(len(trainer.network.train()(batch["image"])))
            assert 0 < batch["label"].max() <= 9 and trainer.network(batch["image"])[0].shape[1] == 10

        trainer._process_function = step
        return trainer

    monkeypatch.setattr(module, "trainer_of", heard)
    text = stored("smoke", repeats=2, out=str(tmp_path), experts=2, classes=9)
    assert [type(loss).__name__ for loss in seen] == ["StagedDiceCE", "AnswersLoss"]
    assert [len(j.known) for j in seen[1].judges] == [5, 4] and min(stages) > 1, "deep supervision"
    assert "| nnunet | smoke | 9 | 2 |" in text


@pytest.mark.parametrize("ratio, told", [(1.15, "met"), (1.16, "MISSED")])
def test_the_goal_is_told(ratio: float, told: str) -> None:
    found = Cost("nnunet", "smoke", 6, 2, 1.0, ratio, 0.5, 0.6)
    assert module._table(found).endswith(f"ratio <= 1.15: {told}") and found.whole == (ratio + 0.6) / 1.5


def test_what_cannot_be_measured(tmp_path: Path, phantom_dir: Path) -> None:
    for given in ({"preset": "paper"}, {"repeats": 1}, {"experts": 0}, {"student": "unet"}, {"classes": 0},
                  {"student": "swin_unetr", "classes": 4}):  # fmt: skip
        with pytest.raises(ConfigError, match="bench stored"):
            stored(**{"data": str(phantom_dir), **given})
    with pytest.raises(ConfigError, match="more structures than fit"):
        stored(classes=10_000, experts=1)
    with pytest.raises(ConfigError, match="tools phantom"):
        stored(data=str(tmp_path / "none"), student="swin_unetr")
    with pytest.raises(ConfigError, match="more experts than structures"):
        module._experts(str(phantom_dir / "phantom_ct"), tmp_path, 9)
    with pytest.raises(ConfigError, match="curve, augment, stored"):
        bench("nothing")
