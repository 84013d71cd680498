"""A card's settings of another kind than inference reads are refused by file and key, not by whoever stumbles."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from common.card import save_weights
from common.engine.run.settings import model_card, model_settings
from common.engine.run.settings_form import CardSettings, checked_settings
from common.errors import WeightError
from common.labels import LabelSpace

BUNDLES = Path(__file__).parents[4] / "bundles"
CT = {"scheme": "CTNormalization", "mean": 1.0, "std": 2, "percentile_00_5": -100.0, "percentile_99_5": 300}
DEFAULTS = {
    "spacing": [1.5, 1.5, 1.5], "roi_size": [96, 96, 96], "image_size": 224, "orientation": "RAS", "intensities": {},
    "modalities": ["CT"], "heads": [["task", ["liver"]]], "clip": {"CT": [-1000, 1000]}, "exclude": True,
    "network": {"gate": "expert", "feature_size": 48, "rate": 0.5, "top_k": None, "num_heads": [3, 6], "moe": True},
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [
    ("spacing", (2.0, 2, 3.5)), ("orientation", None), ("modalities", []), ("exclude", False), ("further", object),
    ("heads", [["a", ["x", "y"]], ["b", []]]), ("clip", {"CT": [-160.5, 240], "T2 MR": None}), ("clip", {}),
    ("intensities", {"CT": CT, "T2 MR": {"scheme": "ZScoreNormalization"}}), ("image_size", 64),
    ("network", {"gate": None, "feature_size": 12, "rate": 1, "top_k": "any", "num_heads": [1, 2, 4], "more": "x"}),
])  # fmt: skip
def test_what_inference_reads(key: str, value: Any) -> None:
    assert checked_settings({key: value}, DEFAULTS, "model.pt") == {key: value}


@pytest.mark.parametrize(("key", "value", "place"), [
    ("spacing", "1.5", "spacing"), ("spacing", 1.5, "spacing"), ("spacing", [1.5, 1.5], "spacing"),
    ("spacing", [1.5, "a", 1.5], "spacing[1]"), ("spacing", [1.5, 0.0, 1.5], "spacing"), ("spacing", None, "spacing"),
    ("spacing", [1.5, float("nan"), 1.5], "spacing[1]"), ("spacing", {"x": 1}, "spacing"),
    ("roi_size", [96, 96, 96.5], "roi_size[2]"), ("roi_size", [96, 96], "roi_size"),
    ("image_size", "224", "image_size"),
    ("image_size", -1, "image_size"), ("image_size", True, "image_size"), ("orientation", 5, "orientation"),
    ("modalities", "CT", "modalities"), ("modalities", ["CT", 1], "modalities[1]"), ("modalities", {}, "modalities"),
    ("heads", [["a"]], "heads[0]"), ("heads", [["a", "liver"]], "heads[0][1]"), ("heads", {"a": []}, "heads"),
    ("network", None, "network"), ("network", "vit_b", "network"), ("network", [], "network"),
    ("network", {"feature_size": "48"}, "network.feature_size"),
    ("network", {"feature_size": 4.5}, "network.feature_size"),
    ("network", {"num_heads": 3}, "network.num_heads"), ("network", {"moe": "yes"}, "network.moe"),
    ("network", {"gate": {"a": 1}}, "network.gate"), ("network", {"rate": "fast"}, "network.rate"),
    ("exclude", 1, "exclude"),
    ("intensities", [], "intensities"), ("intensities", {"CT": "z"}, "intensities.CT"),
    ("intensities", {"CT": {"scheme": 5}}, "intensities.CT"),
    ("intensities", {"CT": {**CT, "mean": "1"}}, "intensities.CT.mean"),
    ("intensities", {"CT": {"scheme": "CTNormalization"}}, "intensities.CT.mean"),
    ("clip", {"CT": 5}, "clip.CT"), ("clip", {"CT": [1]}, "clip.CT"), ("clip", {"CT": ["a", "b"]}, "clip.CT"),
])  # fmt: skip
def test_what_it_does_not(key: str, value: Any, place: str) -> None:
    with pytest.raises(WeightError, match="the card is damaged") as caught:
        checked_settings({key: value}, DEFAULTS, "model.pt")
    assert str(caught.value.where).startswith(f"model.pt, settings.{place}") and caught.value.hint


def test_a_setting_that_is_missing_further_down_is_named() -> None:
    network = checked_settings({"network": {"gate": "expert"}}, DEFAULTS, "model.pt")["network"]
    for one in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert dict(**one) == {"gate": "expert"}
        with pytest.raises(WeightError, match="lacks settings") as caught:
            one["feature_size"]
        assert caught.value.where == "model.pt, settings.network" and caught.value.expected == "feature_size"
    assert CardSettings({}, "x").get("y") is None


def test_every_bundle_s_defaults_have_their_own_form(tmp_path: Path) -> None:
    found = 0
    for file in BUNDLES.glob("*/configs/inference.json"):
        defaults = json.loads(file.read_text()).get("model", {}).get("defaults")
        if defaults is None:
            continue
        found += 1
        settings = {k: v for k, v in defaults.items() if k not in ("structures", "channels", "exclusive")}
        assert checked_settings(settings, settings, "model.pt") == settings
        card = model_card("b", LabelSpace(("liver",)), ("CT",), {**settings, "network": 7})
        save_weights(tmp_path / "model.pt", {"a": torch.zeros(1)}, card)
        if "network" in defaults:
            with pytest.raises(WeightError, match=r"settings\.network"):
                model_settings(tmp_path / "model.pt", defaults)
    assert found > 5
