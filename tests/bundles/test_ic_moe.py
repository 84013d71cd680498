"""The ic_moe bundle, from its commands to masks of the pictures' own size."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from common.backbones.sam.weights import DECODER_GROUPS
from common.errors import AmalgamationError
from common.weights import read_state_dict
from tests.bundles import commands
from tests.bundles.commands import ROOT, killed_and_resumed
from tests.bundles.public_sam import tiny_public, whole_public
from tools.predict.command import segment

run = partial(commands.run, "ic_moe")
done = partial(commands.done, "ic_moe")
parsed = partial(commands.parsed, "ic_moe")

EXPERTS = ["basic", "semantic", "adaptive"]
ANSWERS = ["pred", "basic", "semantic", "adaptive", "mean"]


@pytest.fixture(scope="module")
def skin(phantom_2d_dir):
    return phantom_2d_dir / "phantom_2d_skin"


@pytest.fixture(scope="module")
def trained(skin, tmp_path_factory):
    out = tmp_path_factory.mktemp("ic_moe run")
    done("train", "smoke", dataset_dir=skin, output_dir=out, ckpt_dir=out)
    return out


@pytest.mark.slow
def test_a_training_leaves_a_model_that_knows_how_it_was_made(trained):
    assert (trained / "history.csv").read_text().count("\n") == 3
    state, card = read_state_dict(trained / "model.pt")
    settings = card.extra["settings"]
    assert settings["network"]["answer"] == "vote" and settings["prompt"] == "none"
    assert card.channels == ("R", "G", "B") and card.labels.names == ("lesion",)
    assert {n.split(".")[0] for n in state} == {"encoders", "heads", "contrast"}


@pytest.mark.slow
def test_masks_have_the_pictures_size_with_scores_and_pictures(trained, skin, tmp_path):
    done("inference", "evaluate", dataset_dir=skin, ckpt_dir=trained, output_dir=tmp_path)
    cases = json.loads((skin / "dataset.json").read_text())["test"]
    for case in cases:
        mask = Image.open(tmp_path / "predictions" / skin.name / f"{case['id']}.png")
        assert mask.size == Image.open(skin / case["image"]).size
    scores = pd.read_csv(tmp_path / "evaluation" / "pixels.csv")
    assert set(scores.answer) == set(ANSWERS) and len(scores) == len(ANSWERS) * len(cases)
    table = pd.read_csv(tmp_path / "evaluation" / "cases.csv").set_index("case")
    own = scores[scores.answer == "pred"].set_index("case")
    assert np.allclose(table.dice, own.dice.loc[table.index], equal_nan=True)
    assert len(pd.read_csv(tmp_path / "evaluation" / "votes.csv")) == 2
    assert len(list((tmp_path / "pictures").glob("vote_*.png"))) == 2


@pytest.mark.slow
def test_of_several_tasks_with_several_classes(phantom_2d_dir, tmp_path):
    done("train", "smoke", dataset_dir=phantom_2d_dir, output_dir=tmp_path, ckpt_dir=tmp_path)
    done("inference", "evaluate", dataset_dir=phantom_2d_dir, ckpt_dir=tmp_path, output_dir=tmp_path, pictures=1)
    scores = pd.read_csv(tmp_path / "evaluation" / "pixels.csv")
    assert set(scores[scores.task == "phantom_2d_mr"].structure) == {
        "spleen", "liver", "right kidney", "left kidney", "gallbladder",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_one_command_from_a_picture_to_its_mask(trained, tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 255, (50, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a picture{suffix}")
    found = segment(str(ROOT / "bundles" / "ic_moe"), tmp_path, tmp_path / "out", weights=trained / "model.pt")
    assert Image.open(found["a picture"]).size == (80, 50) and found["a picture"].suffix == ".png"


@pytest.mark.slow
def test_a_grey_picture_goes_in_as_well(trained, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 60), dtype=np.uint8)).save(tmp_path / "g.png")
    found = segment(str(ROOT / "bundles" / "ic_moe"), tmp_path / "g.png", tmp_path / "o", weights=trained / "model.pt")
    assert Image.open(found["g"]).size == (60, 70)


VARIANTS = ["no_sgcl", "mean", "basic", "semantic", "adaptive", "samed", "equation_index", "contrast_tokens",
            "fgbg_grad", "aux_expert_loss", "l1_literal", "no_balance", "literal_equations", "boxes", "augmented",
            "low_memory"]  # fmt: skip


@pytest.mark.parametrize("variant", [*VARIANTS, "strict_paper"])
def test_a_variant_takes_a_step(variant, skin, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    parser = parsed(("train", variant, "smoke"), output_dir=tmp_path, ckpt_dir=tmp_path, dataset_dir=skin)
    network = parser.get_parsed_content("network")
    loader, loss = parser.get_parsed_content("train::dataloader"), parser.get_parsed_content("train::loss")
    optimizer, trainer = parser.get_parsed_content("train::optimizer"), parser.get_parsed_content("train::trainer")
    frozen = parser.get_parsed_content("train::frozen_handler")
    frozen.check()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    image, target, _, named = trainer.prepare_batch(next(iter(loader)), torch.device("cpu"), False)
    assert ("box" in named) == (variant == "boxes")
    terms = loss(network.train()(image, **named), target)
    terms["loss"].backward()
    optimizer.step()
    frozen.compare()
    changed = [k for k, v in network.state_dict().items() if not torch.equal(v, before[k])]
    alone = variant in ("basic", "semantic", "adaptive", "samed")
    assert terms["loss"].isfinite() and any(n.startswith("heads.") for n in changed)
    assert any(n.startswith("encoders.adapters") for n in changed) == (variant not in ("basic", "semantic", "samed"))
    assert any(n.startswith("encoders.semantic") for n in changed) == (variant not in ("basic", "adaptive", "samed"))
    assert any(".lora_" in n for n in changed) == (variant == "samed")
    assert ("sgcl" in terms) == (not alone and variant not in ("no_sgcl", "mean"))


@pytest.mark.parametrize(
    ("make", "configs", "more"),
    [
        (tiny_public, ("train", "smoke"), {}),
        pytest.param(whole_public, ("train",), {"image_size": 128}, marks=pytest.mark.slow),
    ],
)
def test_a_public_sam_drops_in_by_one_option(make, configs, more, skin, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    public = make()
    torch.save(public, tmp_path / "sam.pth")
    folders = {"output_dir": tmp_path, "ckpt_dir": tmp_path, "dataset_dir": skin, **more}
    network = parsed(configs, **folders, sam_weights=str(tmp_path / "sam.pth")).get_parsed_content("network")
    state = network.state_dict()
    last = len(network.encoders.encoder.blocks) - len(network.encoders.semantic)
    own = tuple(f"mask_decoder.{group}." for group in DECODER_GROUPS)
    for name, value in public.items():
        if name.startswith(own) or "pos_embed" in name or "rel_pos" in name:
            continue  # of other masks; resized
        part = name.removeprefix("image_encoder.")
        places = [f"encoders.encoder.{part}"] if part != name else [f"heads.{e}.{name}" for e in EXPERTS]
        block = part.split(".")
        if block[0] == "blocks" and int(block[1]) >= last:  # the semantic expert begins with the same last blocks
            places.append(".".join(["encoders.semantic", str(int(block[1]) - last), *block[2:]]))
        assert all(torch.equal(state[place].cpu(), value) for place in places), name


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["mean", "adaptive", "samed", "boxes"])
def test_a_variant_trains_and_is_evaluated(variant, skin, tmp_path):
    done("train", variant, "smoke", dataset_dir=skin, output_dir=tmp_path, ckpt_dir=tmp_path)
    done("inference", "evaluate", dataset_dir=skin, ckpt_dir=tmp_path, output_dir=tmp_path)
    answers = set(pd.read_csv(tmp_path / "evaluation" / "pixels.csv").answer)
    assert answers == ({"pred"} if variant in ("adaptive", "samed") else set(ANSWERS))
    if variant == "boxes":
        refused = run("inference", dataset_dir=skin, ckpt_dir=tmp_path, output_dir=tmp_path / "p")
        assert refused.returncode and "was trained with boxes" in refused.stderr[-800:]
        given = {"dataset_dir": skin, "ckpt_dir": tmp_path, "output_dir": tmp_path / "p"}
        done("inference", **given, box="[[5,5],[50,50]]")
        for box in ("[[5,5],[5,50]]", "[[5,5],[50,500]]"):
            assert "box" in run("inference", **given, box=box).stderr[-800:]


@pytest.mark.slow
@pytest.mark.parametrize("augment", [0.0, 1.0])  # with kept features, with random numbers
def test_a_killed_training_ends_with_the_same_weights(skin, tmp_path, augment):
    options = {"dataset_dir": skin, "max_epochs": 3, "val_interval": 3, "augment": augment}
    killed_and_resumed("ic_moe", ("train", "smoke"), options, tmp_path)


@pytest.mark.slow
def test_kept_features_train_the_same_model(skin, tmp_path):
    folders = [tmp_path / "kept", tmp_path / "not"]
    for folder, gigabytes in zip(folders, (1.0, 0.0), strict=True):
        done("train", "smoke", dataset_dir=skin, output_dir=folder, ckpt_dir=folder, cache_gb=gigabytes, val_interval=9)
    lines = [(f / "history.csv").read_text().splitlines()[-1].split(",") for f in folders]
    assert float(lines[0][4]) == pytest.approx(float(lines[1][4]), rel=1e-3)


def dataset(folder, image, label, labels=None):
    """A data set of one picture; more are made of the same file."""
    folder.mkdir(parents=True)
    image(folder / "a.png"), label(folder / "m.png")
    entry = {"image": "a.png", "label": "m.png"}
    described = {"name": "odd", "dim": 2, "channel_names": {"0": "R", "1": "G", "2": "B"},
                 "labels": labels or {"background": 0, "lesion": 1},
                 "training": [{**entry, "id": "first"}], "validation": [{**entry, "id": "second"}]}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def cause(error):
    while error is not None and not isinstance(error, AmalgamationError):
        error = error.__cause__
    return str(error)


def picture(path, size=(40, 40), high=255):
    Image.fromarray(np.random.default_rng(0).integers(0, high, (*size, 3), dtype=np.uint8)).save(path)


def mask(path, size=(40, 40), value=1):
    array = np.zeros(size, np.uint8)
    array[5:20, 5:20] = value
    Image.fromarray(array).save(path)


WRONG = {
    "text": (lambda p: p.write_text("no picture"), mask, r"(?s)first.*a\.png.*cannot be read"),
    "size": (picture, lambda p: mask(p, (40, 30)), r"(?s)first.*do not lie on one grid.*40, 40"),
    "class": (picture, lambda p: mask(p, value=7), r"(?s)first.*undeclared values.*7.*declare them"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_pictures_are_refused_by_name(wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    image, label, message = WRONG[wrong]
    folder = dataset(tmp_path / "data", image, label)
    with pytest.raises(Exception) as failure:
        parsed(("train", "smoke"), dataset_dir=folder, output_dir=tmp_path).get_parsed_content("train::dataset")
    import re

    assert re.search(message, cause(failure.value)), cause(failure.value)


@pytest.mark.slow
def test_wrong_input_is_refused_in_one_message(skin, phantom_dir, tmp_path):
    wrong = {"output_dir": tmp_path / "x", "ckpt_dir": tmp_path / "x"}
    text = dataset(tmp_path / "text", WRONG["text"][0], mask)
    checks = {
        "a size the encoder cannot take": (run("train", "smoke", dataset_dir=skin, **wrong, image_size=100),
                                           ["multiple of the patch size", "100"]),
        "an image that is none": (run("train", "smoke", dataset_dir=text, **wrong), ["case first", "cannot be read"]),
        "a misspelt knob": (run("train", "smoke", dataset_dir=skin, **wrong, anwser="mean"), ["anwser", "answer"]),
        "volumes": (run("train", "smoke", dataset_dir=phantom_dir, **wrong), ["2-D"]),
        "SgCL of one expert": (run("train", "smoke", dataset_dir=skin, **wrong, answer="basic"),
                               ["SgCL contrasts three experts", "--sgcl 0"]),
    }  # fmt: skip
    for name, (result, parts) in checks.items():
        assert result.returncode, name
        last = result.stderr[-1500:]
        assert all(p in last for p in parts) and "Traceback" not in last, f"{name}: {last}"
