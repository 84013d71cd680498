"""Where a mixture's training begins: with files of decoders, or with a mixture whose gate goes on."""

import logging

import pytest
import torch

from common.card import save_weights
from common.errors import ConfigError, DataError, ExpertError, WeightError
from common.methods.sam_med3d_moe.trained import read_mixture, start_mixture
from common.weights import read_state_dict
from tests.common.methods.conftest import of_modality
from tools.experts.command import Experts


@pytest.fixture
def general(sam3d_files):
    return sam3d_files.general()


@pytest.fixture
def experts(sam3d_files, general):
    return {
        n: sam3d_files.expert(n, s, of=general, seed=i) for i, (n, s) in enumerate((("a", "liver"), ("b", "spleen")))
    }


def test_parts_become_a_mixture_that_knows_its_experts(general, experts, caplog):
    found = start_mixture(general=general, experts=experts, hidden=16, spacing=4.0, tau=0.7, train="joint")
    assert found.network.names == ("a", "b") and found.structures == [("liver",), ("spleen",)]
    assert (found.network.tau, found.network.train_what) == (0.7, "joint") and len(set(found.hashes)) == 2
    assert "4 mm" not in caplog.text
    with caplog.at_level(logging.WARNING):
        start_mixture(general=general, experts=experts, hidden=16, spacing=1.5)
    assert "expert a was tuned on crops of 4 mm, this training has 1.5 mm" in caplog.text


def test_a_mixture_is_read_back(sam3d_files, general, experts):
    path = sam3d_files.mixture(general=general, experts=experts, tau=0.6, fusion="avg")
    found, card = read_mixture(path)
    state = read_state_dict(path)[0]
    assert all(torch.equal(v, state[k]) for k, v in found.network.state_dict().items())
    assert found.structures == [("liver",), ("spleen",)] and card.extra["epoch"] == 3
    assert (found.network.tau, found.network.fusion) == (0.6, "avg")
    assert read_mixture(path, tau=0.5).mixture.network.tau == 0.5


def test_a_trained_gate_goes_on_as_it_was(sam3d_files, general, experts):
    path = sam3d_files.mixture(general=general, experts=experts, tau=0.6)
    found = start_mixture(start_from=path, tau=0.7, train="joint", spacing=4.0)
    state = read_state_dict(path)[0]
    assert all(torch.equal(v, state[k]) for k, v in found.network.state_dict().items())
    assert (found.network.tau, found.network.train_what) == (0.7, "joint")
    assert found.network.settings["tau"] == 0.7  # what the new card says
    assert found.hashes == read_mixture(path).mixture.hashes


def test_an_expert_that_was_added_gets_a_score_to_learn_from(sam3d_files, general, experts, tmp_path, caplog):
    path = sam3d_files.mixture(general=general, experts=experts)
    Experts().add_decoder(
        str(path), str(sam3d_files.expert("c", "liver tumour", of=general, seed=5)), str(tmp_path / "n.pt")
    )
    asleep = read_mixture(tmp_path / "n.pt").mixture.network.gate.head[-1]
    assert not asleep.weight[3].any() and float(asleep.bias[3].detach()) == -30
    with caplog.at_level(logging.INFO):
        found = start_mixture(start_from=tmp_path / "n.pt", seed=3)
    woken = found.network.gate.head[-1]
    assert "begins to learn when to ask c" in caplog.text and found.structures[2] == ("liver tumour",)
    assert woken.weight[3].any() and float(woken.bias[3].detach()) == 0
    assert torch.equal(woken.weight[:3], asleep.weight[:3]) and torch.equal(woken.bias[:3], asleep.bias[:3])
    again, other = (start_mixture(start_from=tmp_path / "n.pt", seed=s).network.gate.head[-1] for s in (3, 4))
    assert torch.equal(again.weight, woken.weight) and not torch.equal(other.weight, woken.weight)
    assert found.network.gate.wake() == []


def test_refusals(sam3d_files, general, experts):
    path = sam3d_files.mixture(general=general, experts=experts)
    with pytest.raises(ExpertError, match="needs experts"):
        start_mixture(general=general)
    for parts in ({"general": general}, {"experts": experts}):
        with pytest.raises(ConfigError, match="brings its own parts"):
            start_mixture(start_from=path, **parts)
    gates = {"heads": 4, "hidden": 8, "prompt_pool": "mean", "general_logit": False, "spacing": 1.5}
    for key, value in gates.items():
        with pytest.raises(ConfigError, match=f"(?s)another value.*{key}"):
            start_mixture(start_from=path, **{key: value})
    with pytest.raises(WeightError, match="no weights of a trained SAM-Med3D-MoE"):
        start_mixture(start_from=general)
    save_weights(path, read_state_dict(path)[0])
    with pytest.raises(WeightError, match="no card"):
        read_mixture(path)


def test_parts_that_were_taught_on_something_else_are_refused(sam3d_files, general, experts):
    pet = of_modality("PET")
    mixed = sam3d_files.mixture(general=general, experts=experts)
    for parts in ({"general": general, "experts": experts}, {"start_from": mixed}):
        with pytest.raises(DataError, match="not what the model was trained on"):
            start_mixture(**parts, dataset_dir=pet, hidden=16)
    other = sam3d_files.expert("c", "liver tumour", of=general)
    state, card = read_state_dict(other)
    entry = {"modalities": {"CT": {"channels": ["image"]}}, "taught": {"CT": ["kidney tumour"]}}
    save_weights(other, state, card.with_extra(contract=entry))
    with pytest.raises(DataError, match="not taught the structure"):
        start_mixture(general=general, experts={"c": other}, dataset_dir=of_modality("CT"), hidden=16)
    start_mixture(general=general, experts={"c": other}, dataset_dir=of_modality("CT"), hidden=16, ignore_card=True)
    start_mixture(general=general, experts=experts, dataset_dir=of_modality("T2 MR"), hidden=16)
