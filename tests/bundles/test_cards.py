"""Every bundle writes what its model was taught on, and compares data with it wherever it reads some."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.card import ModelCard, save_weights
from common.data.survey import survey
from common.engine.run.settings import model_card
from common.errors import DataError
from common.weights import read_card
from tests.bundles import tiny
from tests.bundles.commands import parsed
from tools.workflow import config_files, run_bundle

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
            assert found.get("modality") == ("@modality" if "modality" in inference else None)
        assert all(k["contract"] == "@contract" for k in named(content, ".KeepTargetsd"))


@pytest.mark.parametrize("bundle", NAMES)
def test_reading_compares_whoever_lists_the_cases(bundle: str) -> None:
    """A list in the place of ``fitting_items`` goes through the same steps; nothing changes the image before."""
    inference = read(bundle, "inference")
    load, compare, *_ = inference["preprocessing"]["transforms"]
    assert load["_target_"].endswith(".LoadCased") and load["tags"] is True
    assert compare == {"_target_": "common.data.transforms.compared.CompareReadd", "contract": "@contract",
                       "ignore_card": "@ignore_card",
                       **({"modality": "@modality"} if "modality" in inference else {})}  # fmt: skip
    for name in ("inference", "evaluate"):  # no chain of its own reads the images of the cases
        content = read(bundle, name)
        chains = {k: v for k, v in content.items() if k not in ("preprocessing", "objects")}
        assert not [c for c in named(chains, ".LoadCased") if "image" in c["keys"]]
    assert "preprocessing" not in read(bundle, "evaluate")
    last = named(inference["postprocessing"], ".SavePredictiond") or named(
        inference["postprocessing"], "KeepOverriddend"
    )
    assert len(last) == 1, "a result that was not compared has no record"


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


@pytest.mark.parametrize("bundle", ["ka2er", "samora"])
def test_a_list_of_ones_own_is_compared(
    bundle: str, tmp_path: Path, dicom_series: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What a packed bundle's documents say: ``--dataset::data``, which replaces the data set and its comparison."""
    known = {"channels": ["CT"], "dim": 3, "intensities": [{"lows": [-1024, -1000], "highs": [100, 300]}]}
    said = {"format": 1, "modalities": {"CT": known}, "taught": {"CT": ["liver"]}, "data": []}
    file = tiny.write(bundle, tmp_path / "model.pt")
    card = read_card(file)
    assert card is not None
    card = ModelCard(card.labels, ("CT",), card.bundle, card.version, extra={**card.extra, "contract": said})
    save_weights(file, torch.load(file, weights_only=True), card)
    voxels = np.where(np.indices((20, 18, 8)).sum(0) % 2, -1000, 60)
    for name, tag in (("mr", "MR"), ("ct", "CT")):
        dicom_series(tmp_path / name, voxels, change=lambda _, d, t=tag: setattr(d, "Modality", t))

    def ask(name: str, **settings: Any) -> Path:
        given = {"dataset::data": [{"image": str(tmp_path / name)}], "model_path": str(file), "num_workers": 0,
                 "output_dir": str(tmp_path / "out"), "bundle_root": str(BUNDLES / bundle)}  # fmt: skip
        caplog.clear()
        run_bundle(config_files(BUNDLES / bundle, "inference"), {"quiet": True, **settings}, given)
        return tmp_path / "out" / f"{name}.nii.gz"

    with pytest.raises(DataError, match="not what the model was trained on") as error:
        ask("mr")
    assert error.value.got == "MR" and error.value.where == "case mr" and not (tmp_path / "out" / "mr.nii.gz").exists()
    result = ask("mr", ignore_card=True)
    record = json.loads(result.with_name("mr.nii.gz.record.json").read_text())
    assert result.exists() and record["notes"] == ["case mr: MR in the place of channel CT, as asked"]
    result = ask("ct")
    assert result.exists() and not result.with_name("ct.nii.gz.record.json").exists()
    assert not [r for r in caplog.records if "common" in r.name and "compared" in r.name]
