"""Every overlay of both SAM-Med3D-MoE bundles builds its training, which takes a step."""

import math
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from common.errors import AmalgamationError, ConfigError, DataError, ExpertError, WeightError
from common.methods.sam_med3d_moe.trained import read_mixture
from tools.experts.command import Experts

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def files(sam3d_files, monkeypatch):
    monkeypatch.chdir(ROOT)
    return sam3d_files


@pytest.fixture
def general(files):
    return files.general()


@pytest.fixture
def experts(files, general):
    runs = [("tumour", "liver tumour"), ("gall", "gallbladder")]
    return [files.expert(name, structure, of=general, seed=i).parent for i, (name, structure) in enumerate(runs)]


def parsed(bundle, configs, folder, **given):
    parser = ConfigParser()
    parser.read_config([str(ROOT / f"bundles/{bundle}/configs/{c}.json") for c in configs])
    for key, value in {**given, "output_dir": folder, "ckpt_dir": folder, "max_epochs": 1}.items():
        parser[key] = str(value) if isinstance(value, Path) else value
    return parser


def one_step(parser):
    """What a trainer does with one batch: the loss's terms and the names of what changed."""
    training = parser.get_parsed_content("training")
    loader, loss = parser.get_parsed_content("train::dataloader"), parser.get_parsed_content("train::loss")
    optimizer, trainer = parser.get_parsed_content("train::optimizer"), parser.get_parsed_content("train::trainer")
    frozen = parser.get_parsed_content("train::frozen_handler")
    frozen.check()
    before = {k: v.clone() for k, v in training.network.state_dict().items()}
    image, target, _, named = trainer.prepare_batch(next(iter(loader)), torch.device("cpu"), False)
    terms = loss(training.train()(image, **named), target)
    terms["loss"].backward()
    optimizer.step()
    frozen.compare()
    assert terms["loss"].isfinite()
    return terms, {k for k, v in training.network.state_dict().items() if not torch.equal(v, before[k])}


EXPERTS = {
    "general": (["train", "general", "tiny_general", "smoke"], {"exclude": ["liver tumour", "gallbladder"]}),
    "general with boxes": (["train", "general", "tiny_general", "boxes", "smoke"], {}),
    "decoder": (["train", "smoke"], {}),
    "boxes": (["train", "boxes", "smoke"], {}),
    "boxes only": (["train", "boxes_only", "smoke"], {"structures": None}),
    "released protocol": (["train", "released_protocol", "smoke"], {}),
    "strict paper": (["train", "strict_paper", "smoke"], {}),
}


@pytest.mark.parametrize("variant", EXPERTS)
def test_stage_one(variant, files, phantom_dir, tmp_path):
    configs, given = EXPERTS[variant]
    alone = "general" in configs
    with_boxes = variant in ("boxes", "boxes only")
    base = {} if alone else {"general": files.general(boxes=with_boxes), "structures": ["liver tumour"]}
    parser = parsed("sam_med3d_moe_expert", configs, tmp_path, dataset_dir=phantom_dir, **{**base, **given})
    terms, changed = one_step(parser)
    card = parser.get_parsed_content("card").extra["settings"]
    rules = parser.get_parsed_content("click_rules")
    assert set(terms) == {"loss", "mask"} and rules.steps == 3
    assert rules.legacy_logit_05 == (variant in ("released protocol", "strict paper"))
    if alone:
        assert {n.split(".")[0] for n in changed} >= {"image_encoder", "mask_decoder"}
        assert card["name"] == "general" and card["network"]["variant"] == "tiny"
        assert ("liver tumour" in card["structures"]) == (not given)
        assert any("box_embeddings" in n for n in changed) == card["network"]["boxes"] == ("boxes" in variant)
    elif variant == "boxes only":
        assert changed == {"prompt_encoder.box_embeddings.weight"}
    else:
        assert changed and all(n.startswith("mask_decoder.") for n in changed)
        assert card["structures"] == ["liver tumour"] and card["name"] == "liver tumour"
    assert card["modalities"] == ["CT", "LGE MR", "T2 MR"] and card["spacing"] == 4.0


VARIANTS = ["", "aft_weight", "avg", "boxes", "cached", "gate_first", "joint", "literal_gate", "pooled_prompts",
            "strict_paper", "tau_07"]  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_stage_two(variant, files, general, experts, phantom_dir, tmp_path):
    given = {"general": general, "experts": ",".join(map(str, experts)), "dataset_dir": phantom_dir}
    parser = parsed("sam_med3d_moe", ["train", *([variant] if variant else []), "smoke"], tmp_path, **given)
    network = parser.get_parsed_content("network")
    with torch.no_grad():  # experts are asked, so that what follows an answer is seen
        network.gate.head[-1].bias.copy_(torch.tensor([0.0, 4.0] if variant == "literal_gate" else [0.0, 4.0, 0.0]))
    terms, changed = one_step(parser)
    assert {n.split(".")[0] for n in changed} == ({"gate", "experts"} if variant == "joint" else {"gate"})
    assert set(terms) == {"loss", "mask", "gate"}
    card = parser.get_parsed_content("card").extra["settings"]
    assert card["network"]["experts"] == ["tumour", "gall"] and len(set(card["expert_hashes"])) == 2
    assert card["expert_structures"] == [["liver tumour"], ["gallbladder"]]
    expected = {"aft_weight": ("fusion", "aft_weight"), "avg": ("fusion", "avg"), "tau_07": ("tau", 0.7),
                "literal_gate": ("general_logit", False), "pooled_prompts": ("prompt_pool", "mean")}  # fmt: skip
    key, value = expected.get(variant, ("tau", 0.5))
    assert card["network"][key] == value
    assert card["gate_at"] == ("first" if variant == "gate_first" else "every")
    assert (network.kept is not None) == (variant == "cached")
    dataset = parser.get_parsed_content("train::dataset")
    assert {dataset[i]["name"]: dataset[i]["expert"] for i in range(len(dataset))}["liver tumour"] == 1


def test_a_grown_mixture_is_trained_further(files, general, experts, phantom_dir, tmp_path):
    """One command appends an expert; with --start_from the gate learns when to ask it."""
    model = files.mixture(general=general, experts={"tumour": experts[0]})
    Experts().add_decoder(str(model), str(experts[1]), str(tmp_path / "new.pt"))
    parser = parsed("sam_med3d_moe", ["train", "smoke"], tmp_path, dataset_dir=phantom_dir, hidden=16,
                    start_from=tmp_path / "new.pt", min_voxels=1, structures=["gallbladder"])  # fmt: skip
    network = parser.get_parsed_content("network")
    before = float(network.gate.head[-1].bias[2].detach())
    terms, changed = one_step(parser)
    card = parser.get_parsed_content("card").extra["settings"]
    old = read_mixture(tmp_path / "new.pt").card.extra["settings"]
    assert {n.split(".")[0] for n in changed} == {"gate"} and math.isfinite(float(terms["gate"].detach()))
    assert before == 0.0 and float(network.gate.head[-1].bias[2].detach()) > before  # it is asked more often now
    assert {k: card[k] for k in ("network", "expert_structures", "expert_hashes")} == {
        k: old[k] for k in ("network", "expert_structures", "expert_hashes")
    }
    assert parser.get_parsed_content("train::dataset")[0]["expert"] == 2


def cause(parser, name):
    with pytest.raises((RuntimeError, AmalgamationError)) as failure:
        parser.get_parsed_content(name)
    error = failure.value
    while error.__cause__ is not None and not isinstance(error, AmalgamationError):
        error = error.__cause__
    return error


def test_what_does_not_fit_is_refused(files, general, experts, phantom_dir, tmp_path):
    other = files.expert("other", "spleen", of=files.general("another", seed=1))
    plain = files.general("plain", boxes=False)
    stage_one = {"dataset_dir": phantom_dir, "general": general}
    stage_two = {**stage_one, "experts": ",".join(map(str, experts))}
    first, second = ("sam_med3d_moe_expert", stage_one), ("sam_med3d_moe", stage_two)
    checks = [
        (second, {"experts": None}, "network", "needs experts", ExpertError),
        (second, {"experts": str(other)}, "network", "another general model", ExpertError),
        (second, {"experts": "nowhere"}, "network", "no such file", ExpertError),
        (second, {"fusion": "max"}, "network", "weighted, avg, aft_weight", ConfigError),
        (second, {"structures": ["lung"]}, "train::dataset", "no such structures", ConfigError),
        (second, {"min_voxels": 10**6}, "train::dataset", "no object to train on", DataError),
        (first, {"variant": "small"}, "network", "trained with another", ConfigError),
        (first, {"general": plain, "prompts": "both"}, "training", "--boxes True", ConfigError),
        (first, {"general": "nowhere.pt"}, "network", "no such weights", WeightError),
    ]
    for (bundle, given), change, name, message, kind in checks:
        error = cause(parsed(bundle, ["train", "smoke"], tmp_path, **{**given, **change}), name)
        assert isinstance(error, kind) and message in str(error), f"{message}: {error}"
