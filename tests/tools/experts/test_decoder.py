"""A trained SAM-Med3D-MoE gets one more decoder from the command line, and forgets nothing."""

import pytest
import torch

from common.backbones.sam3d.network import sam3d_network
from common.card import save_weights
from common.engine.run.settings import model_settings
from common.errors import ExpertError, WeightError
from common.experts.sources import hash_files
from common.methods.sam_med3d_moe.start import read_decoders, trained_mixture
from common.methods.sam_med3d_moe.trained import read_mixture
from common.weights import load_weights, read_card, read_state_dict
from tools.__main__ import main
from tools.experts import decoder as experts_decoder
from tools.experts.command import Experts


@pytest.fixture
def files(sam3d_files, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    return sam3d_files


@pytest.fixture
def general(files):
    return files.general()


@pytest.fixture
def model(files, general):
    """A mixture that asks its tumour expert about some prompts and nobody about others."""
    return files.mixture(general=general, experts={"tumour": files.expert("tumour", "liver tumour", of=general)},
                         bias=[0.0, 1.0], tau=0.5)  # fmt: skip


def answers(path, seed=5):
    network = read_mixture(path).mixture.network.eval()
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(1, 1, 32, 32, 32, generator=generator)
    points = torch.randint(0, 32, (12, 2, 3), generator=generator).float()
    labels = torch.randint(0, 2, (12, 2), generator=generator)
    with torch.no_grad():
        return network.decode(network.encode(image), network.prompts(points=points, labels=labels))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_decoder_is_added_and_every_answer_stays(tmp_path, files, general, model, capsys, suffix):
    new = files.expert("gall", "gallbladder", "spleen", of=general, seed=8)
    out, before = tmp_path / f"new{suffix}", model.read_bytes()
    words = ["experts", "add_decoder", "--model", model, "--expert", new.parent, "--out", out]
    assert main([str(w) for w in words]) == 0
    assert model.read_bytes() == before
    was, now = answers(model), answers(out)
    alone = was.chosen == 0
    assert 0 < int(alone.sum()) < 12
    assert torch.equal(was.chosen, now.chosen) and torch.equal(was.masks[alone], now.masks[alone])
    torch.testing.assert_close(now.masks, was.masks, rtol=0, atol=1e-5)
    card, settings = read_card(out), read_card(out).extra["settings"]
    assert settings["network"]["experts"] == ["tumour", "gall"]
    assert settings["expert_structures"] == [["liver tumour"], ["gallbladder", "spleen"]]
    assert settings["expert_hashes"][1] == read_decoders([new], general_of(general))["gall"].sha256
    assert card.labels.names == ("liver", "spleen", "liver tumour", "gallbladder")  # old indices stay
    assert card.extra["parent"]["sha256"] == hash_files((model,)) and card.extra["added"] == {"expert": "gall"}
    text = capsys.readouterr().out
    assert "tumour, gall" in text and "same bits" in text and f"--start_from {out}" in text.replace("\n", "")


def general_of(path):
    network = sam3d_network("tiny", boxes=True)
    load_weights(network, path)
    return network


def test_inference_builds_the_result(tmp_path, files, general, model):
    new = files.expert("gall", "gallbladder", of=general, seed=8)
    Experts().add_decoder(str(model), str(new), str(tmp_path / "new.pt"), name="bile")
    keys = ("network", "expert_structures", "gate_at", "spacing", "clip")
    found = model_settings(tmp_path / "new.pt", {"structures": ["x"], "channels": ["image"], **dict.fromkeys(keys)})
    network = trained_mixture(found["network"])
    load_weights(network, tmp_path / "new.pt")
    decoder = {k.removeprefix("mask_decoder."): v for k, v in read_state_dict(new)[0].items() if "mask_decoder" in k}
    assert network.names == ("tumour", "bile")
    assert all(torch.equal(v, decoder[k]) for k, v in network.experts[1].state_dict().items())


def test_experts_that_do_not_belong_are_refused(tmp_path, files, general, model):
    other = files.general("other", seed=1)
    checks = {
        "another general model": (files.expert("a", "gallbladder", of=other), {}),
        "its encoders were trained": (files.expert("b", "gallbladder", of=general, encoder=True), {}),
        "an expert of that name": (files.expert("tumour 2", "gallbladder", of=general), {"name": "tumour"}),
        "an expert of that structure": (files.expert("c", "spleen", "liver tumour", of=general), {}),
        "here is no expert": (tmp_path / "nowhere", {}),
    }
    for message, (expert, options) in checks.items():
        with pytest.raises(ExpertError, match=message):
            Experts().add_decoder(str(model), str(expert), str(tmp_path / "new.pt"), **options)
    assert not (tmp_path / "new.pt").exists()


def test_other_files_are_refused(tmp_path, files, general, model):
    new = files.expert("gall", "gallbladder", of=general)
    for wrong in (general, new):
        with pytest.raises(WeightError, match="no weights of a trained SAM-Med3D-MoE"):
            Experts().add_decoder(str(wrong), str(new), str(tmp_path / "new.pt"))
    tensors, card = read_state_dict(model)
    lacking = {k: v for k, v in card.extra["settings"].items() if k != "expert_hashes"}
    save_weights(tmp_path / "lacking.pt", tensors, card.with_extra(settings=lacking))
    with pytest.raises(WeightError, match="lacks settings"):
        Experts().add_decoder(str(tmp_path / "lacking.pt"), str(new), str(tmp_path / "new.pt"))
    for out in (model, tmp_path / "new.bin"):
        with pytest.raises(WeightError, match=r"exists already|unknown weights format"):
            Experts().add_decoder(str(model), str(new), str(out))
    Experts().add_decoder(str(model), str(new), str(model), overwrite=True)
    assert read_mixture(model).mixture.network.names == ("tumour", "gall")


@pytest.mark.parametrize("spoil", ["score", "decoder"])
def test_nothing_is_written_when_the_proof_fails(tmp_path, files, general, model, monkeypatch, spoil):
    new = files.expert("gall", "gallbladder", of=general)
    append = experts_decoder.SAMMed3DMoE.add_expert

    def spoiled(network, *given):
        append(network, *given)
        if spoil == "score":
            network.gate.head[-1].bias.data[-1] = 9.0
        else:
            next(network.experts[0].parameters()).data.add_(1.0)

    monkeypatch.setattr(experts_decoder.SAMMed3DMoE, "add_expert", spoiled)
    with pytest.raises(WeightError, match="nothing was written"):
        Experts().add_decoder(str(model), str(new), str(tmp_path / "new.pt"))
    assert not (tmp_path / "new.pt").exists()
