"""KA2ER's student as an nnU-Net: begun from an expert, trained, scored and handed to nnU-Net by typed commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from common.backbones.nnunet.network import load_network, read_results_folder
from common.card import ModelCard
from common.data.transforms.crops import flippable
from common.errors import ConfigError
from common.experts.tiles import Tiles
from common.geometry import Grid
from common.labels import LabelSpace
from common.methods.ka2er.student import pretrained
from common.weights import read_state_dict
from tests.bundles.commands import done, parsed
from tests.nnunet_folders import write_folder

CONFIGS = ("train", "smoke", "nnunet")


@pytest.fixture(scope="module")
def trained(phantom_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on CT and MR from an expert of one structure, in turned axes, and that expert."""
    out = tmp_path_factory.mktemp("student")
    expert = write_folder(out, norm="CTNormalization", channel_names=("CT",), spacing=(8.0, 6.0, 7.0),
                          transpose=(1, 0, 2), labels={"background": 0, "spleen": 1})  # fmt: skip
    data = f"{phantom_dir / 'phantom_ct'},{phantom_dir / 'phantom_mr'}"
    options = {"dataset_dir": data, "output_dir": out, "ckpt_dir": out, "start_from": expert}
    done("ka2er", *CONFIGS, **options, max_epochs=1, val_interval=9, select="last")
    return out, expert


def card_of(out: Path) -> ModelCard:
    card = read_state_dict(out / "model.pt")[1]
    assert card is not None
    return card


def test_a_training_leaves_a_student_and_nnunets_folders(trained: tuple[Path, Path]) -> None:
    out, expert = trained
    state, card = read_state_dict(out / "model.pt")
    assert card is not None
    settings = card.extra["settings"]
    assert settings["student"] == "nnunet" and settings["by_modality"]["CT"] == "3d_fullres"
    assert (settings["spacing"], settings["roi_size"], settings["orientation"]) == ([7, 8, 6], [16, 16, 16], "RAS")
    assert (settings["overlap"], settings["overlap_from"]) == (0.5, []), "no expert taught it"
    assert settings["mirror_axes"] == [0, 1]  # of A, S, R: kidneys have a side
    assert card.labels.names != ("spleen",) and "left kidney" in card.labels.names
    folders = sorted((out / "nnunet").glob("*/nnUNetTrainer__nnUNetPlans__*"))
    assert len(folders) == 2
    for folder in folders:
        results = read_results_folder(folder)
        load_network(results)
        own = results.weights
        assert all(torch.equal(own[k], v) for k, v in state.items() if "seg_layers" not in k)
    first = read_results_folder(expert).weights
    moved = [k for k, v in first.items() if "seg_layers" not in k and not torch.equal(v, state[k])]
    assert moved and max(float((first[k] - state[k]).abs().max()) for k in moved) < 0.5  # it began there


def test_it_is_scored_on_the_scans_own_grids(trained: tuple[Path, Path], phantom_dir: Path) -> None:
    out, _ = trained
    done("ka2er", "inference", "evaluate", dataset_dir=phantom_dir / "phantom_ct", output_dir=out, ckpt_dir=out)
    summary = json.loads((out / "evaluation" / "summary.json").read_text())
    assert summary and sorted((out / "predictions").rglob("*.nii.gz"))


def test_crops_lie_on_the_plans_grid(trained: tuple[Path, Path], phantom_dir: Path) -> None:
    out, expert = trained
    given = {
        "dataset_dir": f"{phantom_dir / 'phantom_ct'},{phantom_dir / 'phantom_mr'}",
        "output_dir": out,
        "start_from": str(expert),
        "quiet": True,
    }
    parser = parsed("ka2er", CONFIGS, **given)
    item = parser.get_parsed_content("train::dataset::data")[0]
    grid = parser.get_parsed_content("train::preprocessing")(item)
    assert Grid.of(grid["image"]).spacing == pytest.approx((8, 6, 7), rel=0.1)
    assert grid["image"].shape == grid["label"].shape and int(grid["label"].min()) == 0 and "raw" not in grid
    assert parser.get_parsed_content("flips") == flippable(LabelSpace(("left kidney",)), "ASR") == (0, 1)
    stages = parser.get_parsed_content("network").train()(grid["image"].as_tensor()[None, :, :16, :16, :16])
    assert isinstance(stages, list) and len(stages) == 2
    parser["tiles"] = Tiles(0.2, ("organs",))
    assert parser.get_parsed_content("validate::inferer").overlap == 0.2, "validated as it answers"
    assert parser.get_parsed_content("amalgamator") is parser.get_parsed_content("network")


def test_the_knob_alone_is_not_enough() -> None:
    with pytest.raises(ConfigError, match=r"(?s)another configuration.*nnunet\.json"):
        pretrained(None, kind="nnunet")
