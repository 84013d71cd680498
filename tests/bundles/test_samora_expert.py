"""SAMora's first stage from its commands: experts, teachers, what they leave behind, and what is refused."""

import json
import subprocess
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser

from common.layers.lora.files import base_hash, load_adapter
from common.methods.samora.base import frozen_encoder
from common.weights import read_card, read_state_dict
from tests.bundles import commands
from tests.bundles.commands import ENVIRONMENT, ROOT, killed_and_resumed
from tests.warm_python import python

words = partial(commands.words, "samora_expert")
run = partial(commands.run, "samora_expert")
done = partial(commands.done, "samora_expert")

pytestmark = pytest.mark.slow  # whole commands, many of them


@pytest.fixture(scope="module")
def trained(phantom_dir, tmp_path_factory):
    """A run of each level; those that are taught, by the teachers that were trained before."""
    out = tmp_path_factory.mktemp("stage one")
    for level in ("teacher_image", "teacher_patch"):
        done("train", level, "small", "smoke", dataset_dir=phantom_dir, output_dir=out / level)
    done("train", "pixel", "smoke", dataset_dir=phantom_dir, output_dir=out / "pixel")
    for level in ("image", "patch"):
        weights = out / f"teacher_{level}" / "model.pt"
        done("train", level, "smoke", dataset_dir=phantom_dir, output_dir=out / level, teacher_weights=weights)
    return out


@pytest.mark.parametrize("level", ["image", "patch", "pixel"])
def test_an_expert_and_its_card(trained, level):
    state, card = read_state_dict(trained / level / "model.pt")
    assert any(".lora_A." in n for n in state) and not any("blocks.0.norm1" in n for n in state)
    settings = card.extra["settings"]
    encoder = frozen_encoder(variant="tiny", image_size=64)
    assert settings["level"] == level and settings["rank"] == 4 and settings["base_hash"] == base_hash(encoder)
    assert set(settings["intensities"]) == {"CT", "LGE MR", "T2 MR"} and settings["image_size"] == 64
    load_adapter(encoder, level, trained / level / "adapter")
    assert json.loads((trained / level / "adapter" / "card.json").read_text())["extra"]["settings"] == settings
    assert (trained / level / "pictures" / "expert.png").is_file()
    assert (trained / level / "history.csv").read_text().count("\n") == 3
    assert bool(settings["teacher"]) == (level != "pixel")


def test_teachers_keep_their_public_layout(trained):
    image, patch = (read_state_dict(trained / f"teacher_{n}" / "model.pt")[0] for n in ("image", "patch"))
    assert {"resnet.net.0.0.weight", "resnet.fc.weight", "head.layers.0.weight"} <= set(image)
    assert {"cls_token", "pos_embed", "blocks.0.mlp.fc1.weight", "decoder_blocks.0.attn.qkv.weight"} <= set(patch)
    assert not (trained / "teacher_image" / "adapter").exists()
    assert read_card(trained / "teacher_patch" / "model.pt").extra["settings"]["level"] == "teacher_patch"


def test_predictions_lie_on_the_scans_own_grid(trained, phantom_dir, tmp_path):
    case = json.loads((phantom_dir / "phantom_mr" / "dataset.json").read_text())["test"][0]
    source = nib.load(phantom_dir / "phantom_mr" / case["image"])
    for level, ending, last in (("pixel", "denoised", ()), ("patch", "features", (3,))):
        out = tmp_path / level
        done("inference", dataset_dir=phantom_dir, ckpt_dir=trained / level, output_dir=out)
        found = nib.load(next(out.glob(f"{Path(case['image']).name.split('.')[0]}_{ending}*")))
        assert found.shape == (*source.shape, *last) and np.allclose(found.affine, source.affine, atol=1e-3)


WANTED = {
    "image": {"mse", "explained", "cosine", "rank"},
    "patch": {"mse", "explained", "cosine", "rank"},
    "pixel": {"mse", "psnr", "gain"},
    "teacher_image": {"retrieval", "rank"},
    "teacher_patch": {"mse", "explained", "rank"},
}


SLOWLY = [pytest.param(level, marks=pytest.mark.slow) for level in ("image", "teacher_image", "teacher_patch")]


@pytest.mark.parametrize("level", ["pixel", "patch", *SLOWLY])
def test_evaluation(trained, level, phantom_dir, tmp_path):
    teacher = {"teacher_weights": trained / f"teacher_{level}" / "model.pt"} if level in ("image", "patch") else {}
    options = {"dataset_dir": phantom_dir, "ckpt_dir": trained / level, "output_dir": tmp_path, **teacher}
    done("inference", "evaluate", **options)
    table = pd.read_csv(tmp_path / "evaluation" / "expert.csv")
    assert set(table.modality) == {"CT", "T2 MR", "LGE MR"}
    assert set(table.columns) == {"task", "case", "modality", *WANTED[level]}
    assert np.isfinite(table[sorted(WANTED[level])].to_numpy()).all()


VARIANTS = [
    (("image",), {"ssl": "scratch"}),
    (("image", "dense"), {}),
    (("image",), {"image_features": "neck"}),
    (("patch",), {"ssl": "scratch"}),
    (("patch", "masked_student"), {}),
    (("patch", "masked_student"), {"mask_loss": "hidden"}),
    (("patch", "base_sam2"), {}),
    (("released_pixel",), {}),
    (("pixel", "fused_lora"), {}),
    (("pixel", "strict_paper"), {}),
    (("pixel", "base_sam2"), {"checkpointing": True}),
    (("teacher_image", "small"), {}),
    (("teacher_patch", "small"), {}),
]


@pytest.mark.parametrize("overlays, knobs", VARIANTS)
def test_a_variant_builds_its_training(overlays, knobs, trained, phantom_dir, tmp_path, monkeypatch):
    """Its trainer is built and takes one step; the whole command runs in the slow tests."""
    monkeypatch.chdir(ROOT)
    parser = ConfigParser()
    parser.read_config([str(ROOT / f"bundles/samora_expert/configs/{c}.json") for c in ("train", *overlays, "smoke")])
    given = {"dataset_dir": str(phantom_dir), "output_dir": str(tmp_path), **knobs}
    if overlays[0] in ("image", "patch") and knobs.get("ssl") != "scratch":
        given["teacher_weights"] = str(trained / f"teacher_{overlays[0]}" / "model.pt")
    for key, value in given.items():
        parser[key] = value
    network = parser.get_parsed_content("network")
    before = {k: v.clone() for k, v in network.state_dict().items()}
    loader, loss = parser.get_parsed_content("train::dataloader"), parser.get_parsed_content("train::loss")
    optimizer = parser.get_parsed_content("train::optimizer")
    trainer = parser.get_parsed_content("train::trainer")
    torch.manual_seed(0)
    image, target, _, named = trainer.prepare_batch(next(iter(loader)), torch.device("cpu"), False)
    assert image.shape[2:] == (1, 64, 64) and image.min() >= 0 and image.max() <= 1 + 1e-6
    terms = loss(network(image, **named), target)
    terms["loss"].backward()
    optimizer.step()
    assert terms["loss"].isfinite()
    assert any(not torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("overlays, knobs", VARIANTS)
def test_a_variant_trains_and_is_evaluated(overlays, knobs, trained, phantom_dir, tmp_path):
    given = dict(knobs)
    if overlays[0] in ("image", "patch") and knobs.get("ssl") != "scratch":
        given["teacher_weights"] = trained / f"teacher_{overlays[0]}" / "model.pt"
    done("train", *overlays, "smoke", dataset_dir=phantom_dir, output_dir=tmp_path, **given)
    done("inference", "evaluate", dataset_dir=phantom_dir, ckpt_dir=tmp_path, output_dir=tmp_path)


def test_any_folder_of_slices_will_do(tmp_path):
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(4):
        picture = random.integers(0, 255, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"p{number}.png")
    options = {"dataset_dir": tmp_path, "modality": "rgb_to_0_1", "max_epochs": 1, "output_dir": tmp_path / "run"}
    done("train", "pixel", "smoke", **options)
    settings = read_card(tmp_path / "run" / "model.pt").extra["settings"]
    assert settings["image_channels"] == 3 and settings["intensities"] == {
        "rgb_to_0_1": {"scheme": "RGBTo01Normalization"}
    }


KILLED_SLOWLY = [pytest.param(level, marks=pytest.mark.slow) for level in ("patch", "teacher_image")]


@pytest.mark.parametrize("level", ["pixel", *KILLED_SLOWLY])
def test_a_killed_training_ends_with_the_same_weights(level, trained, phantom_dir, tmp_path):
    options = {"dataset_dir": phantom_dir, "max_epochs": 3}
    overlays = ("train", level, "smoke") if level != "teacher_image" else ("train", level, "small", "smoke")
    if level == "patch":
        options |= {"teacher_weights": trained / "teacher_patch" / "model.pt", "mask_student": 0.5}
    whole, cut = killed_and_resumed("samora_expert", overlays, options, tmp_path, outputs=("output_dir",))
    if level != "teacher_image":
        one, two = (read_state_dict(f / "adapter" / "adapter_model.safetensors")[0] for f in (whole, cut))
        assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.slow
def test_two_processes_train_one_expert(phantom_dir, tmp_path):
    launcher = [python(), "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for configs, knobs in ((("image",), {"ssl": "scratch"}), (("teacher_image", "small"), {}), (("pixel",), {})):
        out = tmp_path / configs[0]
        given = {"dataset_dir": phantom_dir, "output_dir": out, "max_epochs": 1, **knobs}
        command = words(("train", *configs, "smoke", "multi_gpu_train"), given)
        result = subprocess.run([*launcher, *command[1:]], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True,
                                check=False)  # fmt: skip
        assert result.returncode == 0, result.stdout[-1500:] + result.stderr[-3000:]
        assert (out / "model.pt").is_file()


def test_wrong_input_is_refused_in_one_message(trained, phantom_dir, tmp_path):
    smoke = {"dataset_dir": phantom_dir, "output_dir": tmp_path / "x"}
    checks = {
        "a teacher without weights": (
            run("train", "image", "smoke", **smoke),
            ["without weights", "teacher_image.json"],
        ),
        "another base": (
            run("inference", dataset_dir=phantom_dir, ckpt_dir=trained / "pixel", output_dir=tmp_path / "p",
                **{"model::defaults::base_seed": 1, "slice_network::settings": "$dict(@model, base_seed=1)"}),
            ["another base", "--sam_weights"],
        ),
        "a misspelt knob": (run("train", "smoke", **smoke, noise_sgima="[0,1]"), ["noise_sgima", "noise_sigma"]),
    }  # fmt: skip
    for name, (result, parts) in checks.items():
        assert result.returncode, name
        last = result.stderr[-1500:]
        assert all(p in last for p in parts), f"{name}: {last}"
