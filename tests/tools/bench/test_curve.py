"""Losses in bf16, in 32 bits and with another seed, told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError, DataError
from tools.bench import curve as bench_curve
from tools.bench import step as bench_step
from tools.bench.command import bench
from tools.bench.curve import curve
from tools.bench.step import Network

ROOT = Path(__file__).parents[3]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(bench_step.NETWORKS, "tiny", Network("m4oe_expert", ("smoke",)))


def test_three_trainings_of_one_network(tiny: None, phantom_dir: Path, tmp_path: Path) -> None:
    """bf16 is another arithmetic of the same training; another seed is another training."""
    text = curve("tiny", data=str(phantom_dir), steps=3, out=str(tmp_path))
    (row,) = json.loads((tmp_path / "bench_curve.json").read_text())
    assert row["network"] == "tiny" and row["steps"] == 3
    assert 0 < row["mean"] <= row["largest"] < row["seed_mean"] <= row["seed_largest"]
    assert f"| tiny | 3 | {row['mean']:.4f} | {row['largest']:.4f} | {row['seed_mean']:.4f} |" in text


def test_distances_are_those_of_the_losses(tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: dict[tuple[str, int], list[float]] = {
        ("fp32", 0): [1.0, 2.0],
        ("bf16", 0): [1.5, 1.9],
        ("fp32", 1): [4.0, 2.0],
    }

    def losses(_network: Any, _data: str, _place: Path, precision: str, _steps: int, seed: int = 0) -> list[float]:
        return told[precision, seed]

    monkeypatch.setattr(bench_curve, "losses", losses)
    assert "| tiny | 2 | 0.3000 | 0.5000 | 1.5000 | 3.0000 |" in curve("tiny", data=str(tmp_path), steps=2)

    def broken(*given: Any, **named: Any) -> list[float]:
        if "bf16" in given:
            raise DataError("the gradient is not finite")
        return losses(*given, **named)

    monkeypatch.setattr(bench_curve, "losses", broken)
    assert "| tiny | 2 | not finite |  | 1.5000 |" in curve("tiny", data=str(tmp_path), steps=2)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such training"):
        bench("curve", "unknown")
    with pytest.raises(ConfigError, match="no such training"):
        curve("m4oe_demo", steps=1)
    with pytest.raises(ConfigError, match=r"(?s)phantom is not there.*tools phantom --out"):
        curve("m4oe_demo", data=str(tmp_path / "none"))
