"""Both SAM-Med3D-MoE bundles, from their commands to label maps on the input's own grid."""

import csv
import json
import subprocess

import nibabel as nib
import numpy as np
import pytest
import torch

from common.weights import read_state_dict
from tests.bundles.commands import ENVIRONMENT, ROOT, done, killed_and_resumed, run
from tests.warm_python import python
from tools.predict.command import segment

pytestmark = pytest.mark.slow  # whole commands, many of them

EXPERT, MOE = "sam_med3d_moe_expert", "sam_med3d_moe"
OBLIQUE = np.array([[-2.3, 0.4, 0, 12], [0.4, 2.3, 0, -30], [0, 0, 3.0, 7], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def general(phantom_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("general model")
    done(EXPERT, "train", "general", "tiny_general", "boxes", "smoke", dataset_dir=phantom_dir, output_dir=out,
         exclude="['liver tumour']", max_epochs=3, val_interval=3)  # fmt: skip
    return out


@pytest.fixture(scope="module")
def expert(phantom_dir, general, tmp_path_factory):
    out = tmp_path_factory.mktemp("tumour expert")
    done(EXPERT, "train", "boxes", "smoke", dataset_dir=phantom_dir, output_dir=out, general=general / "model.pt",
         structures="['liver tumour']", name="tumour")  # fmt: skip
    return out


@pytest.fixture(scope="module")
def trained(phantom_dir, general, expert, tmp_path_factory):
    out = tmp_path_factory.mktemp("mixture")
    options = {"dataset_dir": phantom_dir, "general": general / "model.pt", "experts": expert}
    done(MOE, "train", "boxes", "smoke", **options, output_dir=out, ckpt_dir=out)
    return out, options


def test_an_expert_shares_everything_but_its_decoder(general, expert):
    base, own = (read_state_dict(f / "model.pt") for f in (general, expert))
    assert own[1].extra["settings"]["structures"] == ["liver tumour"] and own[1].extra["settings"]["name"] == "tumour"
    assert "liver tumour" not in base[1].extra["settings"]["structures"]
    other = {k for k, v in own[0].items() if not torch.equal(v, base[0][k])}
    assert other and all(k.startswith("mask_decoder.") for k in other)
    for folder in (general, expert):
        assert (folder / "history.csv").is_file() and (folder / "curves.png").is_file()


def test_a_mixture_keeps_both_and_says_so(trained, general, expert):
    out, _ = trained
    state, card = read_state_dict(out / "model.pt")
    base, own = read_state_dict(general / "model.pt")[0], read_state_dict(expert / "model.pt")[0]
    assert all(torch.equal(v, state[f"base.{k}"]) for k, v in base.items())
    decoder = {k.removeprefix("mask_decoder."): v for k, v in own.items() if k.startswith("mask_decoder.")}
    assert all(torch.equal(v, state[f"experts.0.{k}"]) for k, v in decoder.items())
    settings = card.extra["settings"]
    assert settings["network"]["experts"] == ["tumour"] and settings["expert_structures"] == [["liver tumour"]]
    assert (out / "history.csv").read_text().count("\n") == 3


def test_evaluation_gives_label_maps_and_the_forgetting_report(trained, phantom_dir, tmp_path):
    out, _ = trained
    done(MOE, "inference", "evaluate", dataset_dir=phantom_dir, ckpt_dir=out, output_dir=tmp_path)
    for task in ("phantom_ct", "phantom_mr", "phantom_lge"):
        for case in json.loads((phantom_dir / task / "dataset.json").read_text())["test"]:
            image = nib.load(phantom_dir / task / case["image"])
            label = nib.load(tmp_path / "predictions" / task / f"{case['id']}.nii.gz")
            assert label.shape == image.shape and np.allclose(label.affine, image.affine, atol=1e-3)
    with (tmp_path / "evaluation" / "forgetting.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {r["decoder"] for r in rows} == {"general", "tumour", "mixture"}
    assert {r["prompt"] for r in rows} == {"1 click", "3 clicks", "5 clicks", "box"}
    assert {r["expert"] for r in rows if r["structure"] == "liver tumour"} == {"tumour"}
    found = json.loads((tmp_path / "evaluation" / "forgetting.json").read_text())
    assert set(found["groups"]) == {"tumour", "others"}
    assert (tmp_path / "pictures" / "forgetting.png").is_file() and (tmp_path / "evaluation" / "cases.csv").is_file()


@pytest.fixture(scope="module")
def oblique(phantom_dir, tmp_path_factory):
    entry = json.loads((phantom_dir / "phantom_mr" / "dataset.json").read_text())["test"][0]
    path = tmp_path_factory.mktemp("scans") / "an oblique scan.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(nib.load(phantom_dir / "phantom_mr" / entry["image"]).dataobj), OBLIQUE), path)
    return path


@pytest.mark.parametrize("bundle", [MOE, EXPERT])
def test_a_scan_is_answered_on_its_own_grid(bundle, trained, general, oblique, tmp_path):
    weights = (trained[0] if bundle == MOE else general) / "model.pt"
    middle = [n // 2 for n in nib.load(oblique).shape]
    prompts = {"liver": {"inside": [middle], "box": [[2, 2, 2], [n - 3 for n in nib.load(oblique).shape]]},
               "stone": {"inside": [[4, 5, 6]], "outside": [[5, 8, 6]]}}  # fmt: skip
    options = {"weights": weights, "overrides": {"modality": "T2 MR", "prompts": prompts}}
    found = segment(str(ROOT / "bundles" / bundle), oblique, tmp_path, **options)
    label = nib.load(next(iter(found.values())))
    assert label.shape == nib.load(oblique).shape and np.allclose(label.affine, OBLIQUE, atol=1e-3)
    structures = len(read_state_dict(weights)[1].labels)
    assert set(np.unique(np.asarray(label.dataobj))) <= {0, 1, structures + 1}


def test_prompts_that_cannot_be_meant_are_refused_in_one_message(trained, oblique, tmp_path):
    model = trained[0] / "model.pt"
    checks = {
        "a point lies outside the volume": {"liver": {"inside": [[500, 1, 1]]}},
        "a box has no extent": {"liver": {"box": [[5, 5, 5], [5, 9, 9]]}},
        "prompts are not understood": {"liver": {}},
    }
    for message, prompts in checks.items():
        scans = tmp_path / "data"
        result = run_on(oblique, scans, model, prompts, tmp_path / "out")
        assert result.returncode, message
        last = result.stderr[-1500:]
        assert message in last and "Traceback" not in last, f"{message}: {last}"
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def run_on(scan, folder, model, prompts, out):
    folder.mkdir(exist_ok=True)
    described = {"name": "d", "channel_names": {"0": "T2 MR"}, "labels": {"background": 0, "liver": 1}}
    described |= {"training": [], "test": [{"image": str(scan), "id": "x"}]}
    (folder / "dataset.json").write_text(json.dumps(described))
    return run(MOE, "inference", dataset_dir=folder, model_path=model, output_dir=out, prompts=json.dumps(prompts))


def test_boxes_for_a_network_that_never_saw_any_are_refused(phantom_dir, tmp_path, oblique):
    bare = tmp_path / "bare"
    done(EXPERT, "train", "general", "tiny_general", "smoke", dataset_dir=phantom_dir, output_dir=bare, max_epochs=1)
    wrong = run(EXPERT, "inference", "evaluate", dataset_dir=phantom_dir, ckpt_dir=bare, output_dir=bare, prompt="box")
    assert wrong.returncode and "without box embeddings used with boxes" in wrong.stderr[-1500:]
    assert "Traceback" not in wrong.stderr[-1500:]


def test_wrong_experts_are_refused_in_one_message(trained, expert, tmp_path):
    _, options = trained
    folders = {"output_dir": tmp_path / "x", "ckpt_dir": tmp_path / "x"}
    checks = {
        "no such file": {**options, "experts": f"{expert},runs/nobody"},
        "two experts have one name": {**options, "experts": f"{expert},{expert}"},
        "fusion": {**options, "fusin": "avg"},
    }
    for message, given in checks.items():
        result = run(MOE, "train", "smoke", **given, **folders)
        assert result.returncode and message in result.stderr[-1500:], f"{message}: {result.stderr[-1500:]}"
        assert "Traceback" not in result.stderr[-1500:]


def test_one_command_adds_an_expert_and_another_trains_its_gate(trained, general, phantom_dir, tmp_path):
    second = tmp_path / "gall run"
    done(EXPERT, "train", "boxes", "smoke", dataset_dir=phantom_dir, output_dir=second, general=general / "model.pt",
         structures="['gallbladder']", name="gall", max_epochs=1)  # fmt: skip
    command = [python(), "-m", "tools", "experts", "add_decoder", "--model", str(trained[0] / "model.pt"),
               "--expert", str(second), "--out", str(tmp_path / "new.pt")]  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "same bits" in result.stdout, result.stderr
    out = tmp_path / "further"
    done(MOE, "train", "boxes", "smoke", dataset_dir=phantom_dir, start_from=tmp_path / "new.pt", output_dir=out,
         ckpt_dir=out, max_epochs=1)  # fmt: skip
    card = read_state_dict(out / "model.pt")[1].extra["settings"]
    assert card["network"]["experts"] == ["tumour", "gall"]
    done(MOE, "inference", "evaluate", dataset_dir=phantom_dir, ckpt_dir=out, output_dir=out, report_clicks="[1]")
    found = json.loads((out / "evaluation" / "forgetting.json").read_text())
    assert set(found["groups"]) == {"tumour", "gall", "others"}


@pytest.mark.parametrize("stage", ["expert", "gate", "joint"])
def test_a_killed_training_ends_with_the_same_weights(stage, trained, general, phantom_dir, tmp_path):
    options = {**trained[1], "max_epochs": 4, "val_interval": 4}
    configs = {"expert": ("train", "boxes", "smoke"), "gate": ("train", "boxes", "smoke"),
               "joint": ("train", "joint", "smoke")}[stage]  # fmt: skip
    bundle = EXPERT if stage == "expert" else MOE
    if stage == "expert":
        options = {k: v for k, v in options.items() if k != "experts"}
    killed_and_resumed(bundle, configs, options, tmp_path)
