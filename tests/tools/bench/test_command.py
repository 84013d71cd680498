"""What bench counts, checks and writes."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from common.backbones.sam3d.network import Sam3D
from common.errors import AmalgamationError, ConfigError
from common.layers import sam_adapters
from common.layers.attention import released_bias
from common.layers.attention import sam as sam_attention
from common.methods.sam_med3d_moe.network import SAMMed3DMoE
from common.methods.samora.stage_two import network as samora
from tools.__main__ import main
from tools.bench import command as bench
from tools.bench import ic_moe as bench_ic_moe
from tools.bench import ka2er as bench_ka2er
from tools.bench import m4oe as bench_m4oe
from tools.bench import sam as bench_sam
from tools.bench import sam_med3d_moe as bench_sam_med3d_moe
from tools.bench import samora as bench_samora
from tools.bench.measure import Case, measure, multiply_adds, peak_memory, tensor_memory


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


def test_tensor_memory_is_counted_to_the_byte():
    def use():
        a = torch.ones(1_000_000)  # 4 MB
        b = a + 1  # and 4
        del a
        return (b[:500_000] * 2).sum()  # and 2 while 4 are gone

    kept = torch.ones(1000)
    assert 8.0 <= tensor_memory(use) < 8.001
    assert tensor_memory(lambda: kept.add_(1)) < 0.001


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


def stand_in(monkeypatch, method, **changes):
    monkeypatch.setitem(bench.METHODS, method, replace(bench.METHODS[method], **changes))


def test_only_what_is_asked_for(monkeypatch):
    asked = []
    stand_in(
        monkeypatch,
        "ka2er",
        cases=lambda **given: asked.append(given["parts"]) or [],
        growth=lambda **given: asked.append(given["counts"]) or [],
    )
    bench.bench(repeats=1, only="step,inference")
    bench.bench(repeats=1, only=("growth",), experts=3)
    bench.bench(repeats=1, only="growth")
    assert asked == [["inference", "step"], [], [], [1, 3], [], [1, 10]]


@pytest.mark.parametrize(
    ("method", "only"),
    [("ka2er", "speed"), ("ka2er", "layer"), ("m4oe", "routing"), ("m4oe", ["layer", "speed"]), ("sam", "layer")],
)
def test_parts_of_another_method_are_refused(method, only):
    with pytest.raises(ConfigError, match="unknown parts"):
        bench.bench(method, only=only)


def test_files_and_table(tmp_path, monkeypatch):
    stand_in(
        monkeypatch,
        "ka2er",
        cases=lambda **_: [bench_ka2er._routing(32, (2, 3, 4), 2)],
        growth=lambda **_: [(1, doubled(torch.randn(4, 4)))],
    )
    text = bench.bench(repeats=1, out=str(tmp_path), threads=1, experts=2)
    written = json.loads((tmp_path / "bench_ka2er.json").read_text())
    assert written["rows"][0]["equal"] and written["steps"][0]["experts"] == 1 and written["machine"]["threads"] == 1
    assert (tmp_path / "bench_ka2er.md").read_text() == text + "\n" and "multiply-adds" in text
    assert text.startswith("Crop 64^3, fp32") and "KA2ER step (ours), experts" in text


def test_m4oe_from_the_command_line(tmp_path, monkeypatch, capsys):
    stand_in(monkeypatch, "m4oe", laptop={"size": 64, "embed": 12})
    small = ["--repeats", "1", "--experts", "2", "--threads", "1", "--only", "inference,layer,growth"]
    assert main(["bench", "m4oe", *small, "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "bench_m4oe.json").read_text())
    assert [row["goals"] for row in written["rows"]] == [{"faster": 1.4, "tensors": 0.4}] * 2
    assert all(row["equal"] and set(row["met"]) == set(row["goals"]) for row in written["rows"])
    assert [step["experts"] for step in written["steps"]] == [1, 2] and written["size"] == 64
    for row in written["rows"]:
        assert row["tensors"] == pytest.approx(row["fast_tensors_mb"] / row["plain_tensors_mb"])
        assert row["met"]["tensors"] == (row["tensors"] <= 0.4)
    text = (tmp_path / "bench_m4oe.md").read_text()
    assert text in capsys.readouterr().out
    assert text.startswith("Image 64^2, fp32") and "M4oE step (ours), experts" in text


@pytest.mark.parametrize("part", bench_m4oe.PARTS)
def test_m4oe_checks_see_experts_that_are_off_by_a_thousandth(part, monkeypatch):
    (case,) = bench_m4oe.cases(64, 12, 2, [part])
    assert case.difference() <= case.tolerance == 1e-5
    right = bench_m4oe.ExpertLoop.forward

    def wrong(self, *given):
        answer = right(self, *given)
        return answer._replace(tokens=answer.tokens * 1.001)

    monkeypatch.setattr(bench_m4oe.ExpertLoop, "forward", wrong)
    assert case.difference() > case.tolerance


def test_sam_from_the_command_line(tmp_path, monkeypatch, capsys):
    stand_in(monkeypatch, "sam", laptop={"size": 64, "embed": 64, "depth": 2})
    small = ["--repeats", "1", "--experts", "2", "--threads", "1", "--only", "training,experts,growth"]
    assert main(["bench", "sam", *small, "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "bench_sam.json").read_text())
    assert [row["goals"] for row in written["rows"]] == [{}, {}]
    assert all(row["equal"] for row in written["rows"])
    assert [step["experts"] for step in written["steps"]] == [1, 2]
    assert (tmp_path / "bench_sam.md").read_text() in capsys.readouterr().out


@pytest.mark.parametrize("part", ["encoder_256", "training"])
def test_sam_checks_see_a_position_bias_that_is_off_by_a_hundredth(part, monkeypatch):
    (case,) = bench_sam.cases(96, 64, 2, 1, [part])
    assert case.difference() <= case.tolerance
    right = sam_attention.axis_positions
    monkeypatch.setattr(sam_attention, "axis_positions", lambda *given: right(*given) * 1.01)
    assert case.difference() > case.tolerance


def test_sam_checks_see_an_expert_that_is_off_by_a_thousandth(monkeypatch):
    (case,) = bench_sam.cases(64, 64, 1, 2, ["experts"])
    assert case.difference() <= case.tolerance
    right = bench_sam.batched_qkv
    monkeypatch.setattr(bench_sam, "batched_qkv", lambda *given: right(*given) * 1.001)
    assert case.difference() > case.tolerance


def test_samora_from_the_command_line(tmp_path, monkeypatch):
    stand_in(monkeypatch, "samora", laptop={"size": 64, "embed": 64, "depth": 2})
    only = "training,low_memory,switching,growth"
    assert main(["bench", "samora", "--repeats", "1", "--threads", "1", "--only", only, "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "bench_samora.json").read_text())
    assert [row["goals"] for row in written["rows"]] == [{"faster": 1.15}, {"tensors": 0.2}, {}]
    assert all(row["equal"] for row in written["rows"])
    assert [step["experts"] for step in written["steps"]] == [2, 3]


@pytest.mark.parametrize("part", ["training", "switching"])
def test_samora_checks_see_an_expert_that_is_off_by_a_thousandth(part, monkeypatch):
    (case,) = bench_samora.cases(64, 64, 2, 3, [part])
    assert case.difference() <= case.tolerance
    right = samora.batched_qkv
    monkeypatch.setattr(samora, "batched_qkv", lambda *given: right(*given) * 1.001)
    assert case.difference() > case.tolerance


def test_ic_moe_from_the_command_line(tmp_path, monkeypatch):
    stand_in(monkeypatch, "ic_moe", laptop={"size": 64, "embed": 64, "depth": 3})
    only = "training_cached,growth"
    assert main(["bench", "ic_moe", "--repeats", "1", "--threads", "1", "--only", only, "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "bench_ic_moe.json").read_text())
    assert all(row["equal"] for row in written["rows"]) and [step["experts"] for step in written["steps"]] == [1, 3]
    assert written["rows"][0]["multiply_adds"] > 1


def test_ic_moe_sees_an_expert_that_is_off_by_a_thousandth(monkeypatch):
    (case,) = bench_ic_moe.cases(64, 64, 3, 3, ["training"])
    assert case.difference() <= case.tolerance
    right = sam_adapters.BlockAdapter.finish
    monkeypatch.setattr(sam_adapters.BlockAdapter, "finish", lambda *given: right(*given) * 1.001)
    assert case.difference() > case.tolerance


def test_sam_med3d_moe_from_the_command_line(tmp_path, monkeypatch):
    stand_in(monkeypatch, "sam_med3d_moe", laptop={"size": 64, "variant": "tiny"})
    small = ["--repeats", "1", "--threads", "1", "--experts", "2", "--only", "encoder,click,growth"]
    assert main(["bench", "sam_med3d_moe", *small, "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "bench_sam_med3d_moe.json").read_text())
    goals = [{"faster": 12.0, "tensors": 0.05}, {"faster": 8.0}]
    assert [row["goals"] for row in written["rows"]] == goals and all(row["equal"] for row in written["rows"])
    assert [step["experts"] for step in written["steps"]] == [1, 2]


@pytest.mark.parametrize("part", ["click", "session"])
def test_sam_med3d_moe_sees_an_expert_that_is_off_by_a_thousandth(part, monkeypatch):
    (case,) = bench_sam_med3d_moe.cases(32, "tiny", 2, [part])
    assert case.difference() <= case.tolerance
    right = SAMMed3DMoE._ask

    def wrong(self, *given):
        answer = right(self, *given)
        return answer._replace(masks=answer.masks * 1.001)

    monkeypatch.setattr(SAMMed3DMoE, "_ask", wrong)
    assert case.difference() > case.tolerance


def test_a_click_asks_one_expert_and_none_where_the_general_decoder_answers():
    def saved(part, count):
        (case,) = bench_sam_med3d_moe.cases(32, "tiny", count, [part])
        assert case.difference() <= case.tolerance
        return multiply_adds(case.plain), multiply_adds(case.fast)

    (three, ours), (six, same) = saved("click", 3), saved("click", 6)
    assert six > 1.6 * three and same == pytest.approx(ours, rel=1e-3)
    assert saved("click_general", 3)[1] < 0.65 * ours


def test_a_gate_s_training_encodes_a_crop_once(monkeypatch):
    (case,) = bench_sam_med3d_moe.cases(32, "tiny", 2, ["gate_training"])
    assert case.difference() == 0
    right, encoded = Sam3D.encode, []
    monkeypatch.setattr(Sam3D, "encode", lambda self, image: encoded.append(1) or right(self, image))
    case.fast(), case.fast()
    assert not encoded
    case.plain(), case.plain()
    assert len(encoded) == 2


def test_sam_med3d_moe_sees_a_position_bias_that_is_off_by_a_hundredth(monkeypatch):
    (case,) = bench_sam_med3d_moe.cases(32, "tiny", 1, ["encoder"])
    assert case.difference() <= case.tolerance
    right = released_bias.axis_positions
    monkeypatch.setattr(released_bias, "axis_positions", lambda *given: right(*given) * 1.01)
    assert case.difference() > case.tolerance


def test_choosing_one_expert_spares_the_others():
    def saved(part, count):
        (case,) = bench_m4oe.cases(64, 12, count, [part])
        return multiply_adds(case.plain) / multiply_adds(case.fast)

    assert saved("hard", 4) > 1.5
    gate = 4 / (8 * 12)  # multiply-adds of the gate over an expert's
    assert saved("top_k", 4) == pytest.approx((4 + gate) / (1 + gate))


@pytest.mark.parametrize("options", [{"method": "other"}, {"size": 48}, {"size": 32}, {"repeats": 0}, {"experts": 0}])
@pytest.mark.parametrize("method", ["ic_moe", "ka2er", "m4oe", "sam", "sam_med3d_moe"])
def test_bad_options(method, options):
    with pytest.raises(ConfigError):
        bench.bench(**{"method": method, **options})
