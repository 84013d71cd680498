"""The expert bundle from its command to nnU-Net's predictor, stage 2 and predictions on the input's own grid.

Also the test of ``common.experts.export``.
"""

import json
import os
import subprocess
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, verify_net_in_out

from common.backbones.nnunet.network import load_network, read_results_folder
from common.experts.expert_set import load_experts
from common.labels import LabelSpace
from common.weights import read_state_dict
from tests.warm_python import python

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "bundles" / "ka2er_expert" / "configs"


def run(*configs: str, **overrides: object) -> subprocess.CompletedProcess:
    files = "[" + ",".join(f"'bundles/ka2er_expert/configs/{c}.json'" for c in configs) + "]"
    words = [python(), "-m", "monai.bundle", "run", "--config_file", files]
    for key, value in overrides.items():
        words += [f"--{key}", str(value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def trained(phantom_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("expert run")
    folders = {"output_dir": out, "ckpt_dir": out, "dataset_dir": phantom_dir / "phantom_ct"}
    done = run("train", "smoke", **folders, spacing=[8, 8, 8], name="phantom_ct")
    assert done.returncode == 0, done.stderr[-3000:]
    return out, folders


def test_a_run_leaves_everything_behind(trained):
    out, _ = trained
    for file in ("model.pt", "plans.json", "dataset.json", "expert.json", "history.csv", "checkpoints/last.pth"):
        assert (out / file).is_file(), file
    state, card = read_state_dict(out / "model.pt")
    assert card.bundle == "ka2er_expert" and card.channels == ("CT",)
    assert card.extra["settings"]["configuration"] == "3d_fullres"
    assert card.extra["contract"] == json.loads((out / "contract.json").read_text())["contract"]
    assert (
        list(card.extra["contract"]["modalities"]) == ["CT"]
        and card.extra["contract"]["data"][0]["licence"] == "CC0-1.0"
    )
    torch.load(out / "model.pt", weights_only=True)
    assert any(key.startswith("decoder.encoder.") for key in state)


def test_nnunets_predictor_reads_the_results_folder(trained):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    out, _ = trained
    found = read_results_folder(out / "nnunet")
    with redirect_stdout(StringIO()):
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(found.folder), (0,))
    assert predictor.allowed_mirroring_axes == (0, 1, 2)
    x = torch.randn(1, 1, *predictor.configuration_manager.patch_size)
    with torch.no_grad():
        assert torch.equal(predictor.network.eval()(x), load_network(found)(x))
    state, _ = read_state_dict(out / "model.pt")
    assert all(torch.equal(state[k], v) for k, v in predictor.list_of_parameters[0].items())


def test_stage_two_finds_the_expert(trained, phantom_dir):
    out, _ = trained
    listed = json.loads((phantom_dir / "phantom_ct" / "dataset.json").read_text())["labels"]
    names = tuple(n for n in listed if n != "background")
    experts = load_experts(out / "expert.json", channels={"phantom_ct": ("CT",)}, labels=LabelSpace((*names, "more")))
    expert = experts.for_task("phantom_ct")
    assert expert.spec.labels.names == names and expert.spec.orientation == "RAS" and expert.spec.sha256
    raw, stats = torch.randn(1, 1, 16, 16, 16) * 100, torch.zeros(1, 1, 10)
    assert expert.logits(raw, stats, (8.0, 8.0, 8.0)).shape == (1, len(names) + 1, 16, 16, 16)


def test_the_same_command_again_changes_nothing(trained):
    out, folders = trained
    before = {f: (out / f).read_bytes() for f in ("model.pt", "expert.json")}
    done = run("train", "smoke", **folders, spacing=[8, 8, 8], name="phantom_ct")
    assert done.returncode == 0, done.stderr[-3000:]
    assert {f: (out / f).read_bytes() for f in before} == before


def test_evaluation_and_predictions_on_the_inputs_grid(trained, phantom_dir):
    out, folders = trained
    done = run("inference", "evaluate", **folders, split="test")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (out / "evaluation" / "summary.json").is_file() and (out / "evaluation" / "cases.csv").is_file()
    listing = json.loads((phantom_dir / "phantom_ct" / "dataset.json").read_text())
    written = sorted((out / "predictions").rglob("*.nii.gz"))
    assert len(written) == len(listing["test"])
    by_case = {p.name.removesuffix(".nii.gz"): nib.load(p) for p in written}
    for entry in listing["test"]:
        image, found = nib.load(phantom_dir / "phantom_ct" / entry["image"]), by_case[entry["id"]]
        assert found.shape == image.shape
        np.testing.assert_allclose(found.affine, image.affine, atol=1e-4)
        assert np.issubdtype(found.get_data_dtype(), np.integer)


def test_a_misspelt_override_is_refused(trained):
    _, folders = trained
    done = run("train", "smoke", **folders, max_epoch=3)
    assert done.returncode != 0 and "max_epochs" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["2d", "resenc", "low_memory", "no_mirroring"])
def test_overlays_train(phantom_dir, tmp_path, overlay):
    patch = [16, 16] if overlay == "2d" else [16, 16, 16]
    overrides = {"dataset_dir": phantom_dir / "phantom_mr", "output_dir": tmp_path, "ckpt_dir": tmp_path}
    done = run("train", "smoke", overlay, **overrides, patch_size=patch)
    assert done.returncode == 0, done.stderr[-3000:]
    experts = load_experts(tmp_path / "expert.json")
    raw = torch.randn(1, 1, 16, 16, 16)
    assert experts.for_task("phantom_mr").features(raw, torch.ones(1, 1, 10), (4.0, 4.0, 4.0))


def test_metadata_network_and_shipped_plans_agree(monkeypatch):
    monkeypatch.chdir(ROOT)
    files = {"config_file": str(CONFIGS / "inference.json"), "meta_file": str(CONFIGS / "metadata.json")}
    verify_net_in_out("network_def", device="cpu", **files, model_path="no/model.pt")
    parser = ConfigParser()
    parser.read_config(files["config_file"])
    parser["model_path"] = "no/model.pt"
    metadata = json.loads((CONFIGS / "metadata.json").read_text())["network_data_format"]
    assert parser.get_parsed_content("labels").channel_def() == metadata["outputs"]["pred"]["channel_def"]
    plan = parser.get_parsed_content("plan")
    assert list(plan.patch_size) == metadata["inputs"]["image"]["spatial_shape"]
    assert plan.channels == tuple(metadata["inputs"]["image"]["channel_def"].values())


def test_paper_settings_are_nnunets():
    train = json.loads((CONFIGS / "train.json").read_text())
    expected = {"max_epochs": 1000, "iterations_per_epoch": 250, "learning_rate": 0.01, "momentum": 0.99}
    assert {k: train[k] for k in expected} == expected
    assert train["weight_decay"] == 3e-5 and train["oversample"] == 0.33
    assert train["configuration"] == "3d_fullres" and train["planner"] == "ExperimentPlanner"
