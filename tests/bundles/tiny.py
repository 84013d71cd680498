"""Weights of a size for tests, written as each bundle's training writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from common.backbones.nnunet.plan import read_plan
from common.card import save_weights
from common.engine.run.settings import model_card
from common.labels import LabelSpace

ROOT = Path(__file__).resolve().parents[2]
STRUCTURES = ("liver", "spleen", "aorta")
SIZES: dict[str, dict[str, Any]] = {
    "ka2er": {
        "roi_size": [64, 32, 32],
        "spacing": [6.0, 6.0, 6.0],
        "network": {"feature_size": 12, "num_heads": [1, 2, 4, 8]},
    },
    "m4oe": {
        "image_size": 64,
        "modalities": ["CT", "T2 MR", "LGE MR"],
        "heads": [["phantom_ct", ["liver", "spleen", "aorta"]], ["phantom_mr", ["liver"]], ["phantom_lge", ["aorta"]]],
        "intensities": {m: {"scheme": "ZScoreNormalization"} for m in ("CT", "T2 MR", "LGE MR")},
        "network": {"embed": 12, "num_heads": [1, 2, 3, 6], "window": 2},
    },
    "m4oe_expert": {"image_size": 64, "network": {"embed": 12, "num_heads": [1, 2, 3, 6], "window": 2}},
    "samora": {
        "intensities": {"CT": {"scheme": "ZScoreNormalization"}},
        "network": {"variant": "tiny", "image_size": 64, "d_attn": 16, "heads": 2},
    },
    "samora_expert": {},
    "sam_med3d_moe": {"spacing": 6.0, "network": {"variant": "tiny", "image_size": 32, "hidden": 16}},
    "sam_med3d_moe_expert": {"spacing": 6.0, "network": {"variant": "tiny", "image_size": 32}},
    "ic_moe": {"network": {"variant": "tiny", "image_size": 64}},
}


def settings(bundle: str) -> dict[str, Any]:
    """The bundle's defaults at a size for tests."""
    content = json.loads((ROOT / "bundles" / bundle / "configs" / "inference.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = content["model"]["defaults"]
    for key, value in SIZES[bundle].items():
        found[key] = {**found[key], **value} if isinstance(value, dict) and key == "network" else value
    return {k: v for k, v in found.items() if k not in ("structures", "channels", "exclusive")}


def write(bundle: str, path: Path, *, seed: int = 0) -> Path:
    """A file of random weights with a card; samora_expert's are deltas that only its training writes."""
    labels = LabelSpace(STRUCTURES)
    parser = ConfigParser()
    parser.read_config(str(ROOT / "bundles" / bundle / "configs" / "inference.json"))
    parser["device"], parser["model_path"] = "$__import__('torch').device('cpu')", str(path)
    parser["bundle_root"] = str(ROOT / "bundles" / bundle)
    if bundle == "ka2er_expert":
        plan = read_plan(ROOT / "bundles" / bundle / "configs" / "plans")
        labels, chosen = plan.labels, plan.settings
    else:
        chosen = settings(bundle)
        parser["model::defaults"] = {"structures": list(STRUCTURES), "channels": ["image"], "exclusive": True, **chosen}
    torch.manual_seed(seed)
    network = parser.get_parsed_content("network_def")
    card = model_card(bundle, labels, ["image"], chosen)
    return save_weights(path, network.state_dict(), card)
