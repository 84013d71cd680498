"""The table of what gates choose, and which experts are said to be idle."""

import csv
import json

import pytest
import torch

from common.methods.m4oe.gate_usage import (
    BlockUse,
    CaseUse,
    block_use,
    idle_experts,
    usage_rows,
    usage_summary,
    write_usage,
)


def test_weights_per_image_count_for_all_of_its_tokens():
    assert block_use(torch.tensor([[1.0, 0.0], [0.25, 0.75]]), 16) == BlockUse((20.0, 12.0), (32.0, 16.0), 32)
    weights = torch.tensor([[[[0.5, 1.0]], [[0.5, 0.0]]]])
    assert block_use(weights, 2) == BlockUse((1.5, 0.5), (2.0, 1.0), 2)


def cases():
    fine = BlockUse((80.0, 20.0), (100.0, 50.0), 100)
    coarse = BlockUse((0.0, 4.0), (0.0, 4.0), 4)
    again = BlockUse((0.0, 300.0), (0.0, 300.0), 300)
    return [
        CaseUse("a", "t", "CT", {"encoder 0.0": fine, "decoder 1.0": coarse, "decoder 3.0": fine}),
        CaseUse("b", "t", "CT", {"encoder 0.0": again, "decoder 1.0": coarse, "decoder 3.0": fine}),
        CaseUse("c", "u", "MR", {"encoder 0.0": coarse, "decoder 1.0": coarse, "decoder 3.0": coarse}),
    ]


def test_tokens_weigh_within_a_block_and_blocks_weigh_the_same():
    rows = {(r["modality"], r["block"], r["expert"]): r for r in usage_rows(cases(), ["CT", "MR"])}
    assert rows["CT", "encoder 0.0", "CT"]["mean_weight"] == pytest.approx(80 / 400)
    assert rows["CT", "encoder 0.0", "MR"]["asked"] == pytest.approx(350 / 400)
    assert rows["CT", "decoder", "CT"]["mean_weight"] == pytest.approx((0 + 0.8) / 2)
    assert rows["CT", "all", "CT"]["mean_weight"] == pytest.approx((0.2 + 0 + 0.8) / 3)
    assert rows["CT", "all", "CT"]["tokens"] == 400 + 8 + 200 and rows["CT", "all", "CT"]["cases"] == 2
    assert usage_summary(list(rows.values()), "decoder")["MR"] == {"CT": 0.0, "MR": 1.0}
    assert len(rows) == 2 * 2 * (3 + 3)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"CT": {"CT": 0.6, "MR": 0.4}, "MR": {"CT": 0.5, "MR": 0.5}}, []),
        ({"CT": {"CT": 0.995, "MR": 0.005}, "MR": {"CT": 0.991, "MR": 0.009}}, [("MR", "idle")]),
        ({"CT": {"CT": 0.98, "MR": 0.02}, "MR": {"CT": 0.991, "MR": 0.009}}, [("MR", "not_its_own")]),
        ({"CT": {"CT": 1.0, "MR": 0.0}}, []),  # no MR was evaluated
        ({"X": {"CT": 1.0, "MR": 0.0}}, []),
    ],
)
def test_idle_experts(shares, expected):
    found = idle_experts(shares)
    assert [(f["expert"], f["kind"]) for f in found] == expected
    assert all("--balance 0.01" in f["message"] and f["message"].startswith(f"expert {f['expert']} ") for f in found)


def test_files(tmp_path):
    rows = usage_rows(cases(), ["CT", "MR"])
    write_usage(tmp_path, rows, {"learned": True})
    with (tmp_path / "gate_usage.csv").open() as stream:
        stored = list(csv.DictReader(stream))
    assert list(stored[0]) == ["modality", "block", "expert", "mean_weight", "asked", "cases", "tokens"]
    assert [float(r["mean_weight"]) for r in stored] == pytest.approx([r["mean_weight"] for r in rows], abs=1e-5)
    content = json.loads((tmp_path / "gate_usage.json").read_text())
    assert content["learned"] and content["cases"] == {"CT": 2, "MR": 1}
    assert content["mean_weight"] == usage_summary(rows) and content["encoder"] == usage_summary(rows, "encoder")


def test_a_hundredth_of_the_weight_is_asked():
    table = {"CT": {"CT": 0.01, "MR": 0.99}, "MR": {"CT": 0.0, "MR": 1.0}}
    assert idle_experts(table) == []
    table["CT"]["CT"] = 0.0099
    (found,) = idle_experts(table)
    assert found["expert"] == "CT" and found["kind"] == "idle" and "at most 0.99%" in found["message"]
    table["MR"]["CT"] = 0.01
    (found,) = idle_experts(table)
    assert found["kind"] == "not_its_own" and "MR is preferred (99%), and 1% in MR" in found["message"]
    assert idle_experts({}) == [] == idle_experts({"PET": {"CT": 0.0}}), "nobody looked at its own modality"
