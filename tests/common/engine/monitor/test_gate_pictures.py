"""Pictures of gates: what is more is brighter, and captions of other pictures stay."""

import json

import numpy as np
import pytest
from PIL import Image

from common.engine.monitor.gate_pictures import (
    GateSlice,
    add_captions,
    draw_gate_slice,
    draw_usage,
    forget_pictures,
)


def brightness(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"), float)


def one(weight, parts=("encoder", "decoder"), shape=(32, 48)):
    foreground = np.zeros(shape, bool)
    foreground[5:9, 5:9] = True
    maps = {p: np.stack([np.full(shape, weight), np.full(shape, 1 - weight)]) for p in parts}
    return GateSlice("c", "t", "CT", np.random.default_rng(0).normal(size=shape), foreground, maps, (1.0, 2.0))


def test_more_weight_is_brighter_at_the_experts_place(tmp_path):
    for name, weight in (("low", 0.1), ("high", 0.9)):
        draw_gate_slice(tmp_path / f"{name}.png", one(weight), ["CT", "MR"])
    change = brightness(tmp_path / "high.png") - brightness(tmp_path / "low.png")
    middle = change.shape[1] // 2
    assert change[:, : middle + 20].mean() > 1 and change[:, middle + 20 :].mean() < -1


@pytest.mark.parametrize("parts", [("encoder",), ("encoder", "decoder")])
def test_a_slice_without_foreground_and_without_contrast(tmp_path, parts):
    flat = one(0.5, parts)._replace(image=np.zeros((32, 48)), foreground=np.zeros((32, 48), bool))
    draw_gate_slice(tmp_path / "flat.png", flat, ["CT", "MR"])
    assert brightness(tmp_path / "flat.png").std() > 10


def test_usage_has_a_panel_per_part_with_blocks(tmp_path):
    table = {"CT": {"CT": 1.0, "MR": 0.0}, "MR": {"CT": 0.0, "MR": 1.0}}
    draw_usage(tmp_path / "one.png", {"encoder": table, "decoder": {}})
    draw_usage(tmp_path / "two.png", {"encoder": table, "decoder": table})
    assert brightness(tmp_path / "two.png").shape[1] > brightness(tmp_path / "one.png").shape[1]
    swapped = {"CT": table["MR"], "MR": table["CT"]}
    draw_usage(tmp_path / "other.png", {"encoder": swapped, "decoder": {}})
    assert np.abs(brightness(tmp_path / "other.png") - brightness(tmp_path / "one.png")).mean() > 5


def test_captions_of_other_pictures_stay(tmp_path):
    add_captions(tmp_path, {"attention_t.png": "kept"})
    (tmp_path / "gate_t_c.png").write_bytes(b"")
    add_captions(tmp_path, {"gate_t_c.png": "gone"})
    forget_pictures(tmp_path)
    assert json.loads((tmp_path / "captions.json").read_text()) == {"attention_t.png": "kept"}
    assert not list(tmp_path.glob("*.png"))
