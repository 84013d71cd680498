"""Every bundle writes what its model was taught on, and compares data with it wherever it reads some."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.data.survey import survey
from common.engine.run.settings import model_card
from tests.bundles.commands import parsed

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NAMES = sorted(p.parent.name for p in BUNDLES.glob("*/configs"))
SCORED = [n for n in NAMES if "CaseMetrics" in (BUNDLES / n / "configs" / "evaluate.json").read_text()]


def read(bundle: str, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((BUNDLES / bundle / "configs" / f"{name}.json").read_text())
    return content


def components(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from components(value)
    elif isinstance(node, list):
        for value in node:
            yield from components(value)


def named(content: Any, target: str) -> list[dict[str, Any]]:
    return [c for c in components(content) if str(c["_target_"]).endswith(target)]


def test_there_are_nine() -> None:
    assert len(NAMES) == 9 and len(SCORED) == 7


@pytest.mark.parametrize("bundle", NAMES)
def test_a_training_writes_the_contract(bundle: str) -> None:
    card = read(bundle, "train")["card"]
    assert card["dataset_dir"] == "@dataset_dir" and card["output_dir"] == "@output_dir"
    assert card["ignore_card"] == "@ignore_card" and read(bundle, "train")["ignore_card"] is False
    known = model_card.__kwdefaults__
    assert known is not None and set(card) - {"_target_", "bundle", "labels", "channels", "settings"} <= set(known)
    assert card.get("taught", True) is (bundle not in ("m4oe_expert", "samora_expert"))
    assert set(known) - {"output_dir", "contract", "dataset_dir"} <= set(survey.__kwdefaults__ or {})


@pytest.mark.parametrize("bundle", NAMES)
def test_what_is_read_is_compared(bundle: str) -> None:
    inference, evaluation = read(bundle, "inference"), read(bundle, "evaluate")
    assert inference["contract"] == {"_target_": "common.contract.contract_of", "path": "@model_path"}
    assert inference["ignore_card"] is False and named(inference, ".fitting_items")
    for content in (inference, evaluation):
        assert not named(content, "datalist.items")
        for found in named(content, ".fitting_items"):
            assert (found["contract"], found["ignore_card"]) == ("@contract", "@ignore_card")
        assert all(k["contract"] == "@contract" for k in named(content, ".KeepTargetsd"))


@pytest.mark.parametrize("bundle", NAMES)
def test_what_was_not_taught_is_left_out_or_told(bundle: str) -> None:
    """Prompts may be about anything and are remarked on; what learned no structures leaves none out."""
    inference, evaluation = read(bundle, "inference"), read(bundle, "evaluate")
    prompted, none = bundle.startswith("sam_med3d"), bundle in ("m4oe_expert", "samora_expert")
    masks = [named(c["postprocessing"], ".KeepTargetsd") for c in (inference, evaluation) if "postprocessing" in c]
    assert [len(m) for m in masks] == [0 if prompted or none else 1] * len(masks)
    told = named(inference["preprocessing"], ".TellUntaughtd")
    assert [t["contract"] for t in told] == (["@contract"] if prompted else [])
    order = [t if isinstance(t, str) else t["_target_"] for t in inference["preprocessing"]["transforms"]]
    assert not told or order.index(told[0]["_target_"]) > max(
        i for i, t in enumerate(order) if "Prompts" in t or t == "@request_prompts"
    )


@pytest.mark.parametrize("bundle", SCORED)
def test_scores_count_what_was_taught_and_lie_beside_the_weights(bundle: str) -> None:
    evaluation = read(bundle, "evaluate")
    assert named(evaluation["label_preprocessing"], ".DescribeCased")[0]["contract"] == "@contract"
    assert evaluation["metrics_handler"]["extra"]["ignore_card"] == "@ignore_card"
    handlers = evaluation["handlers"]
    assert handlers.index("@record_handler") > handlers.index("@metrics_handler")
    assert evaluation["record_handler"]["weights"] == "@model_path"


def test_an_ensemble_of_experts_has_no_card() -> None:
    overlay = read("ka2er", "evaluate_ensemble")
    assert (
        overlay["contract"] == {"_target_": "common.contract.Contract"} and overlay["record_handler"]["weights"] == ""
    )
    assert overlay["expert_set"]["ignore_card"] == "@ignore_card"
    for found in (overlay["expert_set"], read("ka2er", "train")["expert_set"]):
        assert {"channels", "modalities"} <= found.keys()


@pytest.mark.parametrize(("bundle", "start"), [
    ("sam_med3d_moe", "mixture"), ("sam_med3d_moe_expert", "general_model"), ("samora", "started"),
    ("samora_expert", "teacher"), ("m4oe", "started"),
])  # fmt: skip
def test_what_a_training_starts_from_is_compared_with_its_data(bundle: str, start: str) -> None:
    found = read(bundle, "train")[start]
    assert (found["dataset_dir"], found["ignore_card"]) == ("@dataset_dir", "@ignore_card")


@pytest.mark.parametrize("bundle", NAMES)
def test_a_budget_reaches_trainer_and_rate(bundle: str) -> None:
    train = read(bundle, "train")["train"]
    budget = {"epochs": "@max_epochs", "steps": "@max_steps", "minutes": "@max_minutes"}
    assert train["length"] == {"_target_": "common.engine.run.length.RunLength", **budget}
    assert "@train::length" in train["handlers"] and train["lr_scheduler"]["length"] == "@train::length"
    assert train["state_handler"]["save_dict"]["length"] == "@train::length", "what was fixed stays after a kill"


@pytest.mark.parametrize("preset", ["train", "smoke"])
def test_milestones_are_shares_of_the_training(preset: str) -> None:
    parser = parsed("sam_med3d_moe", ["train", preset])
    milestones, max_epochs = parser["milestones"], parser["max_epochs"]
    shares = parser.get_parsed_content("train::lr_scheduler::at")
    assert shares == [m / max_epochs for m in milestones] and 0 < min(shares) <= max(shares) <= 1
