"""The step of a preset's own trainer, in 32 bits and in bf16, with the figures told apart."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import ConfigError, DataError
from tools.bench import step as bench_step
from tools.bench.command import bench
from tools.bench.step import NETWORKS, Network, Row, _table, step

ROOT = Path(__file__).parents[3]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(bench_step.NETWORKS, "tiny", Network("m4oe_expert", ("smoke",)))


def test_both_precisions_are_at_work(
    tiny: None, phantom_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network really computes in bf16 in one way and never in the other."""
    seen: list[bool] = []
    linear = torch.nn.functional.linear

    def heard(x: Any, *rest: Any) -> Any:
        found = linear(x, *rest)
        seen.append(found.dtype == torch.bfloat16)
        return found

    monkeypatch.setattr(torch.nn.functional, "linear", heard)
    text = step("tiny", data=str(phantom_dir), repeats=2, out=str(tmp_path))
    assert any(seen) and not all(seen)
    (row,) = json.loads((tmp_path / "bench_step.json").read_text())
    assert row["network"] == "tiny" and row["gain"] == pytest.approx(row["fp32"] / row["bf16"]) and row["fp32"] > 0
    assert 0 < row["difference"] < 0.1  # two ways, one network
    assert f"| tiny | {row['fp32']:.3f} | {row['bf16']:.3f} |" in text


def test_the_first_step_does_not_count(tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = iter([0.0, 9.0, 9.0, 18.0, 18.0, 20.0, 20.0, 21.0])  # 9 and 9 s at first, then 2 s and 1 s
    monkeypatch.setattr(bench_step.time, "process_time", lambda: next(clock))
    monkeypatch.setattr(bench_step, "_run", lambda *given: lambda: 1.0)
    step("tiny", data=str(tmp_path), repeats=2, out=str(tmp_path / "out"))
    (row,) = json.loads((tmp_path / "out" / "bench_step.json").read_text())
    assert (row["fp32"], row["bf16"], row["gain"]) == (2.0, 1.0, 2.0)


def test_bf16_without_finite_gradients_has_no_figure(
    tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The other networks are still measured; in 32 bits it is a fault."""

    def broken(in_bf16: bool) -> Any:
        def run(_network: Any, _data: str, _place: Path, precision: str, _last: bool) -> Any:
            def once() -> float:
                if (precision == "bf16") is in_bf16:
                    raise DataError("the gradient is not finite")
                return 1.0

            return once

        return run

    monkeypatch.setattr(bench_step, "_run", broken(in_bf16=True))
    text = step("tiny", data=str(tmp_path), repeats=2, out=str(tmp_path / "out"))
    (row,) = json.loads((tmp_path / "out" / "bench_step.json").read_text())
    assert row["bf16"] is row["gain"] is row["difference"] is None and "| not finite |  |" in text
    monkeypatch.setattr(bench_step, "_run", broken(in_bf16=False))
    with pytest.raises(DataError, match="not finite"):
        step("tiny", data=str(tmp_path), repeats=2)


def test_what_was_not_measured_is_empty() -> None:
    text = _table([Row("a", 2.0, 1.0, None, None, 0.001), Row("b", 2.0, 1.0, 1.5, 0.5, 0.0)])
    assert (
        "| a | 2.000 | 1.000 | 2.00 |  |  | 1.0e-03 |" in text
        and "| b | 2.000 | 1.000 | 2.00 | 1.500 | 0.500 |" in text
    )


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such step"):
        bench("step", "unknown")
    with pytest.raises(ConfigError, match="no such step"):
        step("m4oe_demo", repeats=1)
    with pytest.raises(ConfigError, match=r"(?s)phantom is not there.*tools phantom --out"):
        step("m4oe_demo", data=str(tmp_path / "none"))


def test_presets_keep_what_is_measured() -> None:
    """Every network whose preset says a gain can be measured again by its name, and the other way round."""
    told = {}
    for file in sorted((ROOT / "bundles").glob("*/configs/*.json")):
        gain = json.loads(file.read_text()).get("cpu_gain")
        if isinstance(gain, float):
            told[file.parent.parent.name, file.stem] = gain
    measured = {(n.bundle, f) for n in NETWORKS.values() for f in n.files}
    assert told and not set(told) - measured
    assert all(math.isfinite(g) and g > 0 for g in told.values())
