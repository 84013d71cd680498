"""The plan in a model's card is judged before it is used."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.backbones.nnunet.kept import check_kept
from common.backbones.nnunet.plan import plan_of_model, plan_of_settings
from common.card import ModelCard, save_weights
from common.errors import AmalgamationError
from common.labels import LabelSpace

FOLDER = Path(__file__).resolve().parents[4] / "bundles" / "ka2er_expert" / "configs" / "plans"
PLANS = json.loads((FOLDER / "plans.json").read_text())
NAME = PLANS.pop("configuration", None) or next(iter(PLANS["configurations"]))
GOOD = {"plans": PLANS, "dataset_json": json.loads((FOLDER / "dataset.json").read_text()), "configuration": NAME}


def _with(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(GOOD), **changes}


def _configured(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    found = _with()
    change(found["plans"]["configurations"][NAME])
    return found


ODD: dict[str, tuple[dict[str, Any], str]] = {
    "no plans": (_with(plans=None), "settings.plans"),
    "plans of text": (_with(plans="x"), "settings.plans"),
    "no configurations": (_with(plans={}), "settings.plans"),
    "another configuration": (_with(configuration="x"), "this configuration"),
    "no configuration": (_with(configuration=None), "settings.configuration"),
    "a number": (_with(configuration=5), "settings.configuration"),
    "no labels": (_with(dataset_json={}), "settings.dataset_json"),
    "no description": (_with(dataset_json=[1]), "settings.dataset_json"),
    "no patch": (_configured(lambda c: c.pop("patch_size")), "patch_size"),
    "a patch of text": (_configured(lambda c: c.update(patch_size="abc")), "patch_size"),
    "a class": (_configured(lambda c: c["architecture"].update(network_class_name="os.system")), "network_class_name"),
    "code in a structure": (_with(dataset_json={**GOOD["dataset_json"], "labels": {"$x": 1}}), "structure"),
    "a channel's reference": (_with(dataset_json={**GOOD["dataset_json"], "channel_names": {"0": "@x"}}), "channel"),
    "plans without a name": (_with(plans={k: v for k, v in PLANS.items() if k != "plans_name"}), "plans_name"),
    "plans called by a list": (_with(plans={**PLANS, "plans_name": ["a"]}), "plans"),
    "plans that lead elsewhere": (_with(plans={**PLANS, "plans_name": "x/../../../../out"}), "plans"),
    "half a character": (_with(dataset_json={**GOOD["dataset_json"], "name": "\ud800x"}), "name"),
    "a configuration that leads elsewhere": (
        _with(
            plans={**PLANS, "configurations": {"y/../../z": PLANS["configurations"][NAME]}}, configuration="y/../../z"
        ),
        "configuration",
    ),
    "a channel of two names": (_with(dataset_json={**GOOD["dataset_json"], "channel_names": {"0": "a|b"}}), "channel"),
}


@pytest.mark.parametrize(("settings", "word"), ODD.values(), ids=ODD)
def test_what_no_training_keeps_is_refused_by_its_entry(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(AmalgamationError, match=word) as caught:
        check_kept(settings, "model.pt")
    assert "model.pt" in str(caught.value) or word == "channel"


@pytest.mark.parametrize("name", ["$__import__('os').system('x')", "a\nb", "@x", "\ud800"])
def test_a_modality_that_a_card_plans_for_has_a_name(name: str) -> None:
    with pytest.raises(AmalgamationError, match="modality"):
        plan_of_settings(_with(by_modality={name: NAME}), ".")
    elsewhere = {**PLANS["configurations"], "y/../../z": PLANS["configurations"][NAME]}
    with pytest.raises(AmalgamationError, match="configuration"):
        plan_of_settings(_with(plans={**PLANS, "configurations": elsewhere}, by_modality={"MR": "y/../../z"}), ".")


def test_a_model_s_plan_is_read_through_it(tmp_path: Path) -> None:
    for name, settings in (("good", GOOD), ("bad", _with(dataset_json={"labels": {"$x": 1}}))):
        card = ModelCard(LabelSpace(("liver",)), ("CT",), extra={"settings": settings})
        save_weights(tmp_path / f"{name}.pt", {"w": torch.ones(1)}, card)
    assert plan_of_model(tmp_path / "good.pt", "nowhere").settings == GOOD
    with pytest.raises(AmalgamationError, match="structure"):
        plan_of_model(tmp_path / "bad.pt", "nowhere")
