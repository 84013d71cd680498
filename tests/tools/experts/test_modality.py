"""A trained M4oE gets one more modality from the command line."""

import json
import shutil

import nibabel
import numpy as np
import pytest
import torch

from common.card import save_weights
from common.data.intensity.modality import intensities
from common.engine.run.settings import model_card, model_settings
from common.errors import ConfigError, DataError, LabelError, WeightError
from common.experts.sources import hash_files
from common.labels import LabelSpace
from common.methods.m4oe.build import m4oe_network
from common.weights import load_weights, read_card, read_state_dict
from tools.__main__ import main
from tools.experts import modality as experts
from tools.experts.command import Experts

LABELS = LabelSpace(("liver", "spleen"))
SETTINGS = {
    "modalities": ["MR", "PET"],
    "heads": [["b", ["liver", "spleen"]], ["a", ["liver"]]],
    "intensities": {"MR": {"scheme": "ZScoreNormalization"}, "PET": {"scheme": "ZScoreNormalization"}},
    "image_size": 64,
    "orientation": "RAS",
}


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "neu data"
    folder.mkdir()
    for case in ("x", "y"):
        image = np.random.default_rng(0).normal(40, 9, (8, 8, 4)).astype(np.float32)
        label = np.zeros((8, 8, 4), np.uint8)
        label[2:5, 2:5] = 1
        label[6] = 7
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), folder / f"{case}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), folder / f"{case}_l.nii.gz")
    pair = {c: {"image": f"{c}.nii.gz", "label": f"{c}_l.nii.gz"} for c in ("x", "y")}
    description = {
        "name": "c",
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "kidney": 1, "liver": 7},
        "training": [pair["x"]],
        "validation": [pair["y"]],
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def change(folder, **entries):
    file = folder / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


@pytest.fixture
def make_model(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")

    def make(prefix="", bundle="m4oe", without=None, **options):
        torch.manual_seed(0)
        sizes = {"embed": 12, "num_heads": [1, 2, 3, 6], "window": 2, "depths": [1, 1, 1, 1], **options}
        settings = {"network": sizes, **SETTINGS}
        network = m4oe_network(
            labels=LABELS, modalities=settings["modalities"], heads=settings["heads"], **settings["network"]
        )
        for name, parameter in network.named_parameters():
            if ".gate." in name:
                torch.nn.init.normal_(parameter, std=0.5)
        stored = {k: v for k, v in settings.items() if k != without}
        card = model_card(bundle, LABELS, ["image"], stored).with_extra(epoch=3)
        state = {prefix + k: v for k, v in network.state_dict().items()}
        return save_weights(tmp_path / "model.pt", state, card), network.eval()

    return make


def rebuilt(file, prefix=""):
    """As an inference configuration builds it."""
    keys = ("network", "modalities", "heads", "intensities", "image_size")
    settings = model_settings(file, {"structures": ["liver"], "channels": ["image"], **dict.fromkeys(keys)})
    network = m4oe_network(
        labels=settings["labels"], modalities=settings["modalities"], heads=settings["heads"], **settings["network"]
    )
    load_weights(network, file, strip=prefix)
    return network.eval(), settings


@torch.no_grad()
def outputs(network, modality, head):
    image = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(5))
    return network(image, torch.tensor([modality]), torch.tensor([head])).logits


@pytest.mark.parametrize(("prefix", "suffix"), [("", ".pt"), ("network.", ".safetensors")])
def test_hard_routing_keeps_every_bit(tmp_path, dataset, make_model, capsys, prefix, suffix):
    file, old = make_model(prefix, gate="none")
    out = tmp_path / f"plus{suffix}"
    before = file.read_bytes()
    assert (
        main(["experts", "add_modality", "--model", str(file), "--dataset_dir", str(dataset), "--out", str(out)]) == 0
    )
    assert file.read_bytes() == before
    new, settings = rebuilt(out, prefix)
    assert settings["labels"].names == ("liver", "spleen", "kidney")  # old indices stay
    assert settings["modalities"] == new.modalities == ["MR", "PET", "CT"]
    assert settings["heads"] == [*SETTINGS["heads"], ["c", ["kidney", "liver"]]]
    assert new.heads.classes == [(0, 1, 2), (0, 1), (0, 3, 1)]
    assert settings["intensities"] == {**SETTINGS["intensities"], **intensities(dataset)}
    assert settings["image_size"] == 64
    for modality in (0, 1):
        for head in (0, 1):
            was, now = outputs(old, modality, head), outputs(new, modality, head)
            assert torch.equal(was, now[:, :3]) and bool((now[:, 3] == -torch.inf).all())
    assert torch.isfinite(outputs(new, 2, 2)[:, [0, 1, 3]]).all()
    card = read_card(out)
    assert card.extra["parent"]["sha256"] == hash_files((file,)) and card.extra["parent"]["extra"] == {"epoch": 3}
    text = capsys.readouterr().out
    assert "MR, PET, CT" in text and "b, a, c" in text and "the same bits" in text and "new structures: kidney" in text
    for network in (old, new):
        assert f"{sum(p.numel() for p in network.parameters()):,}" in text
    assert "on noise: 0 " in text


def test_a_copy_leaves_the_mixture_as_it_is(tmp_path, dataset, make_model, capsys):
    file, old = make_model()
    Experts().add_modality(str(file), str(dataset), str(tmp_path / "plus.pt"), copy_of="PET")
    new, _ = rebuilt(tmp_path / "plus.pt")
    torch.testing.assert_close(outputs(new, 0, 0)[:, :3], outputs(old, 0, 0), rtol=0, atol=1e-5)
    assert "rounding" in capsys.readouterr().out


def test_learned_gates_say_that_training_is_needed(tmp_path, dataset, make_model, capsys):
    file, old = make_model()
    Experts().add_modality(str(file), str(dataset), str(tmp_path / "plus.pt"))
    new, _ = rebuilt(tmp_path / "plus.pt")
    assert not torch.equal(outputs(new, 0, 0)[:, :3], outputs(old, 0, 0))
    text = capsys.readouterr().out
    assert "needs training" in text and "--copy_of" in text and "same bits" not in text
    largest = float(text.split("on noise: ")[1].split()[0])
    with torch.no_grad():
        generator, expected = torch.Generator().manual_seed(0), 0.0
        for i in range(2):
            image = torch.randn(1, 1, 64, 64, generator=generator)
            ids = torch.tensor([i]), torch.tensor([i])
            was, now = (n(image, *ids).logits.softmax(1) for n in (old, new))
            expected = max(expected, float((was - now[:, :3]).abs().max()))
    assert 0 < largest == pytest.approx(expected, rel=1e-2)


def test_the_seed_decides_what_is_random(tmp_path, dataset, make_model):
    file, _ = make_model(gate="none")
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        torch.rand(3)
        Experts().add_modality(str(file), str(dataset), str(tmp_path / f"{name}.pt"), seed=seed)
    one, two, three = (read_state_dict(tmp_path / f"{n}.pt")[0] for n in ("one", "two", "three"))
    head = "heads.outputs.2.weight"
    assert torch.equal(one[head], two[head]) and not torch.equal(one[head], three[head])


def test_files_are_not_replaced_unless_asked(tmp_path, dataset, make_model):
    file, _ = make_model(gate="none")
    before = file.read_bytes()
    for out in (file, tmp_path / "neu data" / "dataset.json"):
        with pytest.raises(WeightError, match=r"exists already|unknown weights format"):
            Experts().add_modality(str(file), str(dataset), str(out))
    assert file.read_bytes() == before
    Experts().add_modality(str(file), str(dataset), str(file), overwrite=True)
    assert rebuilt(file)[0].modalities == ["MR", "PET", "CT"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"name": "a"}, "the model has this task already"),
        ({"channel_names": {"0": "PET"}}, "the model has this modality already"),
        ({"channel_names": {"0": "CT", "1": "T1"}}, "another number of channels"),
        ({"training": []}, "one modality is added at a time"),
    ],
)
def test_unfitting_data_sets_are_refused(tmp_path, dataset, make_model, entries, message):
    file, _ = make_model(gate="none")
    if len(entries.get("channel_names", ())) == 2:
        entries = {
            **entries,
            "training": [{"image": ["x.nii.gz", "x.nii.gz"], "label": "x_l.nii.gz"}],
            "validation": [],
        }
    change(dataset, **entries)
    with pytest.raises(DataError, match=message):
        Experts().add_modality(str(file), str(dataset), str(tmp_path / "plus.pt"))
    assert not (tmp_path / "plus.pt").exists()


def test_two_data_sets_are_refused(tmp_path, dataset, make_model):
    file, _ = make_model(gate="none")
    shutil.copytree(dataset, tmp_path / "second")
    change(tmp_path / "second", name="d")
    with pytest.raises(DataError, match="one task is added at a time") as caught:
        Experts().add_modality(str(file), [str(dataset), str(tmp_path / "second")], str(tmp_path / "plus.pt"))
    assert "c, d" in str(caught.value)


def test_overlapping_structures_are_refused(tmp_path, dataset, make_model):
    file, _ = make_model(gate="none")
    change(dataset, exclusive=False)
    with pytest.raises(LabelError, match="cannot be united"):
        Experts().add_modality(str(file), str(dataset), str(tmp_path / "plus.pt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bundle": "ka2er"}, "no weights of a trained M4oE"),
        ({"without": "intensities"}, "lacks settings"),
        ({"unknown": 3}, "cannot be built"),
    ],
)
def test_other_weights_are_refused(tmp_path, dataset, make_model, monkeypatch, options, message):
    if "unknown" in options:
        file, _ = make_model(gate="none")
        tensors, card = read_state_dict(file)
        settings = {**card.extra["settings"], "network": {**card.extra["settings"]["network"], **options}}
        save_weights(file, tensors, card.with_extra(settings=settings))
    else:
        file, _ = make_model(gate="none", **options)
    with pytest.raises(WeightError, match=message):
        Experts().add_modality(str(file), str(dataset), str(tmp_path / "plus.pt"))


def test_weights_that_do_not_cover_the_network_are_refused(tmp_path, dataset, make_model):
    file, _ = make_model(gate="none")
    tensors, card = read_state_dict(file)
    tensors.pop("heads.outputs.1.weight")
    save_weights(file, tensors, card)
    with pytest.raises(WeightError, match="are required"):
        Experts().add_modality(str(file), str(dataset), str(tmp_path / "plus.pt"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pt")
    with pytest.raises(WeightError, match="no weights of a trained M4oE"):
        Experts().add_modality(str(tmp_path / "plain.pt"), str(dataset), str(tmp_path / "plus.pt"))


def test_gates_and_copies_that_cannot_grow_are_refused(tmp_path, dataset, make_model):
    file, _ = make_model(gate="channel_official")
    with pytest.raises(ConfigError, match="no row per expert"):
        Experts().add_modality(str(file), str(dataset), str(tmp_path / "plus.pt"))
    file, _ = make_model()
    with pytest.raises(ConfigError, match="no such modality"):
        Experts().add_modality(str(file), str(dataset), str(tmp_path / "plus.pt"), copy_of="CT")
    assert not (tmp_path / "plus.pt").exists()


@pytest.mark.parametrize(("options", "copy_of"), [({"gate": "none"}, None), ({}, "MR")])
def test_nothing_is_written_when_the_proof_fails(tmp_path, dataset, make_model, monkeypatch, options, copy_of):
    file, _ = make_model(**options)
    add = experts.M4oE.add_modality

    def spoiled(network, *arguments, **more):
        add(network, *arguments, **more)
        network.heads.outputs[0].weight.data += torch.randn_like(network.heads.outputs[0].weight)

    monkeypatch.setattr(experts.M4oE, "add_modality", spoiled)
    with pytest.raises(WeightError, match="nothing was written"):
        Experts().add_modality(str(file), str(dataset), str(tmp_path / "plus.pt"), copy_of=copy_of)
    assert not (tmp_path / "plus.pt").exists()
