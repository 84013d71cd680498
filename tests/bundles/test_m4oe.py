"""Both M4oE bundles, from their commands to label maps on the input's own grid."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser

from common.errors import DataError
from common.weights import read_state_dict
from tests.bundles.commands import ROOT, done, killed_and_resumed, run
from tools.predict.command import segment


@pytest.fixture(scope="module")
def experts(phantom_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("experts")
    done("m4oe_expert", "train", "smoke", dataset_dir=phantom_dir, output_dir=out, ckpt_dir=out)
    return out


@pytest.fixture(scope="module")
def trained(phantom_dir, experts, tmp_path_factory):
    out = tmp_path_factory.mktemp("m4oe run")
    options = {"dataset_dir": phantom_dir, "pretrained": experts / "model.pt"}
    done("m4oe", "train", "smoke", **options, output_dir=out, ckpt_dir=out)
    return out, options


def test_phase_one_leaves_experts_pictures_and_a_curve(experts):
    state, card = read_state_dict(experts / "model.pt")
    assert card.extra["settings"]["modalities"] == ["CT", "LGE MR", "T2 MR"]
    assert all(t.shape[0] == 3 for n, t in state.items() if n.startswith("backbone.layers.") and ".experts." in n)
    assert (experts / "pictures" / "rebuilt.png").is_file() and (experts / "history.csv").is_file()


def test_phase_one_rebuilds_volumes_on_their_own_grid(experts, phantom_dir, tmp_path):
    options = {"dataset_dir": phantom_dir, "ckpt_dir": experts}
    done("m4oe_expert", "inference", **options, output_dir=tmp_path)
    case = json.loads((phantom_dir / "phantom_mr" / "dataset.json").read_text())["test"][0]
    source = nib.load(phantom_dir / "phantom_mr" / case["image"])
    rebuilt = nib.load(next(tmp_path.glob(f"{Path(case['image']).name.split('.')[0]}*")))
    assert rebuilt.shape == source.shape and np.allclose(rebuilt.affine, source.affine, atol=1e-3)
    done("m4oe_expert", "inference", "evaluate", **options, output_dir=tmp_path)
    table = pd.read_csv(tmp_path / "evaluation" / "rebuilt.csv")
    assert set(table.modality) == {"CT", "T2 MR", "LGE MR"} and np.isfinite(table.mse).all()


def test_phase_two_starts_from_phase_one(trained, experts):
    out, _ = trained
    log = (out / "history.csv").read_text()
    assert log.count("\n") == 3
    _, card = read_state_dict(out / "model.pt")
    settings = card.extra["settings"]
    assert [task for task, _ in settings["heads"]] == ["phantom_ct", "phantom_lge", "phantom_mr"]
    assert dict(settings["heads"])["phantom_lge"] == ["left atrium", "myocardium", "scar", "aorta"]
    assert settings["intensities"]["CT"]["scheme"] == "CTNormalization"
    assert card.bundle == "m4oe" and settings["network"]["gate"] == "expert"


def test_evaluation_and_predictions(trained, phantom_dir, tmp_path):
    out, _ = trained
    done("m4oe", "inference", "evaluate", dataset_dir=phantom_dir, ckpt_dir=out, output_dir=tmp_path)
    rows = pd.read_csv(tmp_path / "evaluation" / "cases.csv")
    assert set(rows.task) == {"phantom_ct", "phantom_lge", "phantom_mr"}
    usage = pd.read_csv(tmp_path / "evaluation" / "gate_usage.csv")
    whole = usage[usage.block == "all"]
    assert np.allclose(whole.groupby("modality").mean_weight.sum(), 1, atol=1e-3)
    assert (tmp_path / "pictures" / "gate_usage.png").is_file()
    for task in ("phantom_ct", "phantom_lge"):
        described = json.loads((phantom_dir / task / "dataset.json").read_text())
        for case in described["test"]:
            image = nib.load(phantom_dir / task / case["image"])
            label = nib.load(tmp_path / "predictions" / task / f"{case['id']}.nii.gz")
            assert label.shape == image.shape and np.allclose(label.affine, image.affine, atol=1e-3)
    # a case is decoded for its own data set's structures and no others
    names = read_state_dict(out / "model.pt")[1].labels.names
    allowed = {0, *(names.index(n) + 1 for n in ("left atrium", "myocardium", "scar", "aorta"))}
    assert set(np.unique(np.asarray(label.dataobj)).tolist()) <= allowed


def test_heads_keep_the_collections_order(phantom_dir, tmp_path):
    """Whatever the order of names; otherwise a case would be decoded by another data set's head."""
    listing = {"datasets": [str(phantom_dir / task) for task in ("phantom_mr", "phantom_ct")]}
    (tmp_path / "collection.json").write_text(json.dumps(listing))
    folders = {"output_dir": tmp_path, "ckpt_dir": tmp_path, "dataset_dir": tmp_path / "collection.json"}
    done("m4oe", "train", "smoke", **folders, max_epochs=1)
    parser = ConfigParser()
    parser.read_config(str(ROOT / "bundles/m4oe/configs/inference.json"))
    parser["ckpt_dir"] = str(tmp_path)
    network = parser.get_parsed_content("network_def").network
    assert network.tasks == ["phantom_mr", "phantom_ct"] and network.modalities == ["T2 MR", "CT"]
    names = parser.get_parsed_content("labels").names
    own = ["spleen", "liver", "right kidney", "left kidney", "gallbladder"]
    assert network.heads.classes[0] == (0, *(names.index(n) + 1 for n in own))


def test_a_scan_of_a_known_modality_is_segmented_by_name(trained, phantom_dir, tmp_path):
    out, _ = trained
    scan = next((phantom_dir / "phantom_mr" / "imagesTs").glob("*.nii.gz"))
    options = {"weights": out / "model.pt", "task": "phantom_mr"}
    alone = Path(shutil.copy(scan, tmp_path / "scan.nii.gz"))  # nothing beside it says what it is
    with pytest.raises(DataError, match=r"does not say its modality(.|\n)*CT, LGE MR, T2 MR"):
        segment(str(ROOT / "bundles" / "m4oe"), alone, tmp_path / "a", **options)
    told = segment(str(ROOT / "bundles" / "m4oe"), alone, tmp_path / "b", **options, overrides={"modality": "T2 MR"})
    found = segment(str(ROOT / "bundles" / "m4oe"), scan, tmp_path / "c", **options)  # its dataset.json says it
    one, other = (nib.load(next(iter(maps.values()))) for maps in (told, found))
    assert one.shape == nib.load(scan).shape and np.array_equal(one.dataobj, other.dataobj)


VARIANTS = [
    "hard",
    "channel_official",
    "image_mean",
    "top1",
    "encoder_only",
    "balanced",
    "cosine",
    "sgd",
    "strict_paper",
]
SCRATCH = ["decoder_only", "no_experts"]


@pytest.mark.parametrize("variant", [*VARIANTS, *SCRATCH])
def test_a_variant_builds_its_training(variant, trained, tmp_path, monkeypatch):
    """Its trainer is built and takes one step; the whole command runs in the slow tests."""
    monkeypatch.chdir(ROOT)
    _, options = trained
    parser = ConfigParser()
    parser.read_config([str(ROOT / f"bundles/m4oe/configs/{c}.json") for c in ("train", "smoke", variant)])
    given = options if variant in VARIANTS else {"dataset_dir": options["dataset_dir"]}
    for key, value in {**given, "output_dir": tmp_path, "ckpt_dir": tmp_path, "max_epochs": 1}.items():
        parser[key] = str(value) if isinstance(value, Path) else value
    network = parser.get_parsed_content("network")
    before = {k: v.clone() for k, v in network.state_dict().items()}
    loader, loss = parser.get_parsed_content("train::dataloader"), parser.get_parsed_content("train::loss")
    optimizer = parser.get_parsed_content("train::optimizer")
    trainer = parser.get_parsed_content("train::trainer")
    image, target, _, named = trainer.prepare_batch(next(iter(loader)), torch.device("cpu"), False)
    terms = loss(network(image, **named), target)
    terms["loss"].backward()
    optimizer.step()
    assert terms["loss"].isfinite() and ("balance" in terms) == (variant in ("top1", "balanced"))
    assert any(not torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("variant", [*VARIANTS, *SCRATCH])
def test_a_variant_trains_and_is_evaluated(variant, trained, tmp_path):
    _, options = trained
    given = options if variant in VARIANTS else {"dataset_dir": options["dataset_dir"]}
    done("m4oe", "train", "smoke", variant, **given, output_dir=tmp_path, ckpt_dir=tmp_path)
    done("m4oe", "inference", "evaluate", dataset_dir=options["dataset_dir"], ckpt_dir=tmp_path, output_dir=tmp_path)


def test_separate_experts_are_merged(phantom_dir, tmp_path):
    files = []
    for modality in ("CT", "LGE MR", "T2 MR"):
        out = tmp_path / modality.replace(" ", "_")
        own = {"modality": modality, "max_epochs": 1, "output_dir": out, "ckpt_dir": out}
        done("m4oe_expert", "train", "smoke", dataset_dir=phantom_dir, **own)
        files.append(str(out / "model.pt"))
    options = {"dataset_dir": phantom_dir, "output_dir": tmp_path / "m", "ckpt_dir": tmp_path / "m", "max_epochs": 1}
    done("m4oe", "train", "smoke", **options, pretrained=",".join(files))
    result = run("m4oe", "train", "smoke", **{**options, "output_dir": tmp_path / "n"}, pretrained=",".join(files[:2]))
    assert result.returncode and "T2 MR" in result.stderr and "exactly one" in result.stderr


@pytest.mark.parametrize("bundle", ["m4oe", "m4oe_expert"])
def test_a_killed_training_ends_with_the_same_weights(bundle, phantom_dir, tmp_path):
    options = {"dataset_dir": phantom_dir, "max_epochs": 3}
    if bundle == "m4oe":
        options["val_interval"] = 3
    killed_and_resumed(bundle, ("train", "smoke"), options, tmp_path)


REFUSED = {  # bundle, configurations, knobs ({}: the trained model's folder), parts of the message
    "a checkpoint of other experts": (
        "m4oe", ("train", "smoke"), {"dataset_dir": "phantom_ct", "output_dir": "{}", "ckpt_dir": "{}"},
        ["with other labels", "last.pth"],
    ),
    "an unknown modality": (
        "m4oe", ("inference",), {"ckpt_dir": "{}", "modality": "PET"}, ["PET", "CT or channel LGE MR or channel T2 MR"]
    ),
    "an unknown head": ("m4oe", ("inference",), {"ckpt_dir": "{}", "head": "liver"}, ["liver", "phantom_ct"]),
    "a modality that nothing was trained on": ("m4oe_expert", ("train", "smoke"), {"modality": "PET"}, ["PET"]),
    "a misspelt knob": ("m4oe", ("train", "smoke"), {"gaet": "none"}, ["gaet", "gate"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_refused_in_one_message(trained, phantom_dir, tmp_path, name):
    bundle, configurations, knobs, parts = REFUSED[name]
    out, options = trained
    given = {**options, "output_dir": tmp_path / "x", "ckpt_dir": tmp_path / "x"}
    if "train" not in configurations or bundle == "m4oe_expert":
        given = {k: v for k, v in given.items() if k in ("output_dir", "ckpt_dir")}
    own = {k: out if v == "{}" else v for k, v in knobs.items()}
    own["dataset_dir"] = phantom_dir / own.get("dataset_dir", "")
    result = run(bundle, *configurations, **{**given, **own})
    assert result.returncode
    last = result.stderr[-1500:]
    assert all(p in last for p in parts), last
