"""What bench counts, checks and writes."""

import json
import math

import pytest
import torch
from torch.nn import functional as F

from common.errors import AmalgamationError, ConfigError
from tools import bench, bench_ka2er
from tools.bench_measure import Case, measure, multiply_adds, peak_memory


def doubled(x):
    return lambda: x @ x


def test_multiply_adds_are_counted_by_hand():
    a, q = torch.randn(10, 20), torch.randn(2, 3, 7, 5)
    assert multiply_adds(lambda: a @ a.t()) * 1e9 == 10 * 20 * 10
    image, weight = torch.randn(1, 2, 6, 6, 6), torch.randn(4, 2, 3, 3, 3)
    assert multiply_adds(lambda: F.conv3d(image, weight, padding=1)) * 1e9 == pytest.approx(6**3 * 4 * 2 * 27)
    up = torch.randn(2, 4, 2, 2, 2)
    counted = multiply_adds(lambda: F.conv_transpose3d(image, up, stride=2))
    assert counted * 1e9 == pytest.approx(12**3 * 2 * 4)
    with torch.no_grad():  # the fused kernel of the CPU is counted like the two products it does
        assert multiply_adds(lambda: F.scaled_dot_product_attention(q, q, q)) * 1e9 == pytest.approx(2 * 3 * 7 * 7 * 10)
    out = torch.zeros(10, 10)
    assert multiply_adds(lambda: out.addmm_(a, a.t())) * 1e9 == pytest.approx(10 * 20 * 10)


def test_peak_memory_sees_what_is_freed_again():
    def use():
        torch.ones(30_000_000).sum()

    peak = peak_memory(use)
    assert math.isnan(peak) or 110 < peak < 160


def test_measure_refuses_ways_that_differ():
    x = torch.randn(8, 8)
    with pytest.raises(AmalgamationError, match="the same"):
        measure(Case("x", doubled(x), doubled(x), lambda: 1.0, 1e-3, {}), 1)
    with pytest.raises(AmalgamationError, match="the same"):
        measure(Case("x", doubled(x), doubled(x), lambda: math.nan, 1e-3, {}), 1)


def test_measure_takes_turns_and_judges_goals():
    order = []
    case = Case(
        "x",
        lambda: order.append("plain") or torch.randn(64, 64) @ torch.randn(64, 64),
        lambda: order.append("fast") or torch.randn(64, 32) @ torch.randn(32, 64),
        lambda: 0.0,
        0.0,
        {"multiply_adds": 2.0, "faster": 1e9},
    )
    row = measure(case, 4)
    assert order[-8:] == ["plain", "fast", "fast", "plain"] * 2
    assert row.multiply_adds == pytest.approx(2.0) and row.met == {"multiply_adds": True, "faster": False}


def test_routing_runs_one_expert_and_gives_the_same_bits():
    case = bench_ka2er._routing(32, (2, 3, 4, 5), 3)
    assert case.difference() == 0.0
    assert multiply_adds(case.plain) > 2 * multiply_adds(case.fast)


def test_a_step_costs_the_same_with_more_experts():
    one, four = (bench_ka2er.step(64, 12, (2, 3, 4), n, product=False) for n in (1, 4))
    assert multiply_adds(one) == pytest.approx(multiply_adds(four), rel=1e-6)


def test_only_what_is_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(bench, "cases", lambda *given: asked.append(given[-1]) or [])
    monkeypatch.setattr(bench, "growth", lambda *given: asked.append(given[-1]) or [])
    bench.bench(repeats=1, only="step,inference")
    bench.bench(repeats=1, only=("growth",), experts=3)
    assert asked == [["inference", "step"], [], [], [1, 3]]
    with pytest.raises(ConfigError, match="unknown parts"):
        bench.bench(only="speed")


def test_files_and_table(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "cases", lambda *_: [bench_ka2er._routing(32, (2, 3, 4), 2)])
    monkeypatch.setattr(bench, "growth", lambda *_: [(1, doubled(torch.randn(4, 4)))])
    text = bench.bench(repeats=1, out=str(tmp_path), threads=1, experts=2)
    written = json.loads((tmp_path / "bench_ka2er.json").read_text())
    assert written["rows"][0]["equal"] and written["steps"][0]["experts"] == 1 and written["machine"]["threads"] == 1
    assert (tmp_path / "bench_ka2er.md").read_text() == text + "\n" and "multiply-adds" in text


@pytest.mark.parametrize("options", [{"method": "other"}, {"size": 48}, {"size": 32}, {"repeats": 0}, {"experts": 0}])
def test_bad_options(options):
    with pytest.raises(ConfigError):
        bench.bench(**options)
