"""Five passes and one are measured on one scan, and the student's label map is that of all its logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from tests.architecture.tree import ROOT
from tools.bench import passes as module
from tools.bench.command import bench
from tools.bench.parts import Size
from tools.bench.passes import Pass, passes, shape_of

TINY = Size(4, 16, 3, 1)


def row(name: str, cpu: float, peak: float) -> Pass:
    return Pass(name, 2, cpu, 2 * cpu, peak, 100.0)


def test_every_pass_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)

    def here(work: Callable[..., Pass], *told: Any) -> Pass:
        return work(*told)

    monkeypatch.setattr(module, "_alone", here)  # a process of its own imports for seconds
    run, typed, taken = module.run_bundle, [], []

    def told(files: Any, more: Any, given: Any) -> Any:
        typed.append("overlap" in more)
        parser = run(files, more, given)
        taken.append(parser.get_parsed_content("inferer").overlap)
        return parser

    monkeypatch.setattr(module, "run_bundle", told)
    text = passes("24x20x18", size=TINY, out=str(tmp_path))
    found = json.loads((tmp_path / "bench_passes.json").read_text())
    assert [r["classes"] for r in found["rows"]] == [25, 27, 19, 24, 27, 118, 118]
    assert all(r["cpu"] > 0 and r["peak"] >= r["floor"] > 50 for r in found["rows"])
    assert typed == [False, False] and taken == [0.2, 0.2] and found["overlap"] == 0.2, "as the experts step at home"
    assert found["different_voxels"] == 0 and found["shape"] == [24, 20, 18] and found["width"] == 4
    assert "| student, all logits | 118 |" in text and text.endswith("those of all logits: 0")


@pytest.mark.parametrize(("cpu", "peak", "told"), [(1.0, 900.0, ["met", "met"]), (1.01, 901.0, ["MISSED", "MISSED"])])
def test_the_goals_are_told(cpu: float, peak: float, told: list[str]) -> None:
    rows = [row("a", 1, 800), row("b", 2, 900), row("student", cpu, peak), row("student, all logits", 9, 5000)]
    ratios = module._ratios(rows)
    assert ratios["faster_cpu"] == ratios["faster_wall"] == 3 / cpu and ratios["memory"] == peak / 900
    lines = module._table({**ratios, "different_voxels": None}, rows).splitlines()
    assert [line.rpartition(": ")[2] for line in lines[-2:]] == told


def test_the_size_of_a_ct(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shape_of(None) == (256, 256, 200) and shape_of("512x512x531") == (512, 512, 531)
    for wrong in ("256", "0x2x3", "axbxc", "1x2x3x4"):
        with pytest.raises(ConfigError, match="three sides"):
            shape_of(wrong)
    asked: list[Any] = []
    monkeypatch.setitem(bench.__globals__, "passes", lambda *given, **told: asked.append((given, told)) or "table")
    assert bench("passes", "64x64x50", width=16) == "table"
    assert asked == [(("64x64x50",), {"size": Size(16), "overlap": None, "threads": 1, "out": None})]
    assert bench("passes", "64x64x50", overlap=0.5) == "table" and asked[1][1]["overlap"] == 0.5


@pytest.mark.slow
def test_each_pass_has_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    rows = module._alone(_two, "a"), module._alone(_two, "b")
    assert rows[0].floor != rows[1].floor


def _two(name: str) -> Pass:
    import os

    return Pass(name, os.getpid(), 1.0, 1.0, 1.0, float(os.getpid()))
