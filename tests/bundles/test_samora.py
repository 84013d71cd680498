"""The samora bundle, from its commands to label maps on the input's own grid."""

import json
from functools import partial

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from common.backbones.sam.weights import DECODER_GROUPS
from common.card import ModelCard, save_weights
from common.errors import ExpertError
from common.labels import LabelSpace
from common.layers.fusion.hl_attention import LEVELS
from common.layers.lora.experts import add_experts, expert_parameters
from common.layers.lora.files import base_hash, save_adapter
from common.methods.samora.stage_two.build import base_network
from common.weights import read_state_dict
from tests.bundles import commands
from tests.bundles.commands import ROOT, killed_and_resumed
from tests.bundles.public_sam import tiny_public, whole_public
from tools.predict.command import segment

run = partial(commands.run, "samora")
done = partial(commands.done, "samora")
parsed = partial(commands.parsed, "samora")


def write_experts(root, base="sam", base_seed=0):
    """What three runs of the first stage leave for the tiny base of the smoke test."""
    found = {}
    for number, level in enumerate(LEVELS):
        encoder = base_network(base, "tiny", image_size=64, classes=4, seed=base_seed).image_encoder
        add_experts(encoder, (level,))
        torch.manual_seed(number)
        for parameter in expert_parameters(encoder, level).values():
            nn.init.normal_(parameter, std=0.05)
        save_adapter(encoder, level, root / level / "adapter")
        settings = {"level": level, "base_hash": base_hash(encoder)}
        card = ModelCard(LabelSpace(("liver",)), ("image",), "samora_expert", extra={"settings": settings})
        save_weights(root / level / "model.pt", {"x": torch.zeros(1)}, card)
        found[f"{level}_expert"] = root / level
    return found


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    return write_experts(tmp_path_factory.mktemp("the experts"))


@pytest.fixture(scope="module")
def trained(phantom_dir, experts, tmp_path_factory):
    out = tmp_path_factory.mktemp("samora run")
    options = {"dataset_dir": phantom_dir, **experts}
    done("train", "smoke", **options, labelled_fraction=0.5, output_dir=out, ckpt_dir=out)
    return out, options


@pytest.mark.slow
def test_a_training_leaves_a_model_that_knows_how_it_was_made(trained, experts):
    out, _ = trained
    assert (out / "history.csv").read_text().count("\n") == 3
    state, card = read_state_dict(out / "model.pt")
    settings = card.extra["settings"]
    assert settings["network"]["levels"] == list(LEVELS) and settings["network"]["variant"] == "tiny"
    assert set(settings["experts"]) == set(LEVELS) and settings["labelled"]["fraction"] == 0.5
    chosen = json.loads((out / "labelled.json").read_text())
    assert chosen["digest"] == settings["labelled"]["digest"] and chosen["slices"] == settings["labelled"]["slices"]
    assert 2 * chosen["slices"] == pytest.approx(chosen["of_slices"], abs=1)
    for level in LEVELS:
        adapter = read_state_dict(experts[f"{level}_expert"] / "adapter" / "adapter_model.safetensors")[0]
        own = {n: t for n, t in state.items() if f".{level}.weight" in n}
        assert len(own) == len(adapter) == 16
        assert sum(float(t.abs().sum()) for t in own.values()) == pytest.approx(
            sum(float(t.abs().sum()) for t in adapter.values()), rel=1e-6
        )  # frozen


@pytest.mark.slow
def test_label_maps_lie_on_the_input_s_grid_with_scores_and_pictures(trained, phantom_dir, tmp_path):
    out, _ = trained
    done("inference", "evaluate", dataset_dir=phantom_dir, ckpt_dir=out, output_dir=tmp_path)
    for task in ("phantom_ct", "phantom_mr", "phantom_lge"):
        described = json.loads((phantom_dir / task / "dataset.json").read_text())
        for case in described["test"]:
            image = nib.load(phantom_dir / task / case["image"])
            label = nib.load(tmp_path / "predictions" / task / f"{case['id']}.nii.gz")
            assert label.shape == image.shape and np.allclose(label.affine, image.affine, atol=1e-3)
        assert list((tmp_path / "pictures").glob(f"fusion_{task}_*.png"))
    views = pd.read_csv(tmp_path / "evaluation" / "fusion.csv")
    assert set(views.without) == {*LEVELS, "all"} and set(views.task) == {"phantom_ct", "phantom_mr", "phantom_lge"}


@pytest.mark.slow
def test_a_scan_is_segmented_by_naming_its_modality(trained, phantom_dir, tmp_path):
    out, _ = trained
    scan = next((phantom_dir / "phantom_mr" / "imagesTs").glob("*.nii.gz"))
    bundle, weights = str(ROOT / "bundles" / "samora"), out / "model.pt"
    options = {"weights": weights, "task": "phantom_mr", "overrides": {"modality": "T2 MR"}}
    found = segment(bundle, scan, tmp_path, **options)
    assert nib.load(next(iter(found.values()))).shape == nib.load(scan).shape


VARIANTS = ["lac", "lac_outputs", "mole", "order_1-1-2", "order_1-2-1", "query_last", "signal_attention",
            "signal_block", "global_window", "few_shot", "few_scans", "no_augmentation", "low_memory"]  # fmt: skip
SINGLE = {"single_image": ("image",), "single_patch": ("patch",), "single_pixel": ("pixel",), "decoder_only": (),
          "lora_one": (), "image_patch": ("image", "patch"), "image_pixel": ("image", "pixel"),
          "patch_pixel": ("patch", "pixel")}  # fmt: skip


def one_step(parser):
    network = parser.get_parsed_content("network")
    loader, loss = parser.get_parsed_content("train::dataloader"), parser.get_parsed_content("train::loss")
    optimizer, trainer = parser.get_parsed_content("train::optimizer"), parser.get_parsed_content("train::trainer")
    parser.get_parsed_content("train::frozen_handler").check()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    image, target, _, named = trainer.prepare_batch(next(iter(loader)), torch.device("cpu"), False)
    terms = loss(network.train()(image, **named), target)
    terms["loss"].backward()
    optimizer.step()
    parser.get_parsed_content("train::frozen_handler").compare()
    assert terms["loss"].isfinite()
    return terms, [k for k, v in network.state_dict().items() if not torch.equal(v, before[k])]


@pytest.mark.parametrize("variant", [*VARIANTS, *SINGLE, "base_hsam", "released_hsam", "base_sam2", "lorahub"])
def test_a_variant_builds_its_training(variant, phantom_dir, experts, tmp_path, monkeypatch):
    """Its trainer is built and takes one step; the whole command runs in the slow tests."""
    monkeypatch.chdir(ROOT)
    if variant == "base_sam2":
        pytest.importorskip("sam2")
        experts = write_experts(tmp_path, "sam2")
    levels = SINGLE.get(variant, LEVELS)
    given = {f"{level}_expert": experts[f"{level}_expert"] for level in levels}
    folders = {"output_dir": tmp_path, "ckpt_dir": tmp_path, "dataset_dir": phantom_dir}
    terms, changed = one_step(parsed(("train", variant, "smoke"), **given, **folders, max_epochs=1))
    assert ("balance" in terms) == (variant == "mole") and ("fine_dice" in terms) == variant.endswith("_hsam")
    fused = variant not in ("lac", "lac_outputs", "lorahub", "decoder_only", "lora_one") and len(levels) > 1
    assert any(n.startswith("fusers.") for n in changed) == fused
    assert any("lora_" in n for n in changed) == (variant == "lora_one")
    assert any("mask_decoder" in n for n in changed)


PUBLIC = pytest.mark.parametrize(
    ("make", "overlays"),
    [
        (tiny_public, ("decoder_only", "smoke")),
        pytest.param(whole_public, ("decoder_only", "laptop"), marks=pytest.mark.slow),
    ],
    ids=["tiny", "ViT-B"],
)


@PUBLIC
def test_a_public_sam_drops_in_by_one_option(make, overlays, phantom_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    public = make()
    torch.save(public, tmp_path / "sam.pth")
    folders = {"output_dir": tmp_path, "ckpt_dir": tmp_path, "dataset_dir": phantom_dir}
    made = parsed(("train", *overlays), **folders, sam_weights=str(tmp_path / "sam.pth"))
    network = made.get_parsed_content("network")
    base = network.base.state_dict()
    same = [k for k, v in public.items() if k in base and base[k].shape == v.shape and torch.equal(base[k].cpu(), v)]
    resized = [k for k in public if "pos_embed" in k or "rel_pos" in k]
    own = [k for k in public if k.startswith(tuple(f"mask_decoder.{group}." for group in DECODER_GROUPS))]
    assert set(public) == {*same, *resized, *own} and len(same) > len(public) / 2
    assert network(torch.rand(1, 3, network.base.image_size, network.base.image_size)).logits.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", [*VARIANTS, *SINGLE, "base_hsam", "released_hsam", "base_sam2", "lorahub", "strict_paper"]
)
def test_a_variant_trains_and_is_evaluated(variant, phantom_dir, experts, tmp_path):
    if variant == "lorahub":
        pytest.importorskip("nevergrad")
    if variant == "base_sam2":
        pytest.importorskip("sam2")
        experts = write_experts(tmp_path / "experts", "sam2")
    given = {f"{level}_expert": experts[f"{level}_expert"] for level in SINGLE.get(variant, LEVELS)}
    done("train", variant, "smoke", **given, dataset_dir=phantom_dir, output_dir=tmp_path, ckpt_dir=tmp_path)
    done("inference", "evaluate", dataset_dir=phantom_dir, ckpt_dir=tmp_path, output_dir=tmp_path)
    assert (variant == "lorahub") == (tmp_path / "weights.json").is_file()


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_weights(phantom_dir, experts, tmp_path):
    options = {"dataset_dir": phantom_dir, "max_epochs": 3, "val_interval": 3, **experts}
    killed_and_resumed("samora", ("train", "smoke"), options, tmp_path)


@pytest.mark.slow
def test_wrong_input_is_refused_in_one_message(experts, phantom_dir, tmp_path):
    wrong = {"dataset_dir": phantom_dir, "output_dir": tmp_path / "x", "ckpt_dir": tmp_path / "x"}
    checks = {
        "no expert": (run("train", "smoke", **wrong), ["a level has no expert", "--image_expert"]),
        "a misspelt knob": (run("train", "smoke", **wrong, **experts, fusr="lac"), ["fusr", "fuser"]),
    }
    for name, (result, parts) in checks.items():
        assert result.returncode, name
        last = result.stderr[-1500:]
        assert all(p in last for p in parts) and "Traceback" not in last, f"{name}: {last}"


def test_experts_of_another_base_are_refused(tmp_path, phantom_dir, monkeypatch):
    monkeypatch.chdir(ROOT)
    other = write_experts(tmp_path, base_seed=1)
    with pytest.raises(RuntimeError) as failure:
        parsed(("train", "smoke"), **other, dataset_dir=phantom_dir).get_parsed_content("network")
    cause = failure.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert isinstance(cause, ExpertError) and "another base" in str(cause) and "--base_seed" in str(cause)
