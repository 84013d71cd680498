"""Which experts and bases a SAMora takes, and which it refuses."""

import pytest
import torch
from torch import nn

from common.card import ModelCard, save_weights
from common.errors import ConfigError, DataError, ExpertError, WeightError
from common.labels import LabelSpace
from common.layers.fusion.hl_attention import LEVELS
from common.layers.lora.experts import add_experts, expert_parameters
from common.layers.lora.files import base_hash, save_adapter
from common.methods.samora.stage_two.build import base_network, samora_network
from common.methods.samora.stage_two.start import adapter_folder, expert_card, started
from common.weights import read_state_dict
from tests.common.methods.conftest import of_modality

SMALL = {"variant": "tiny", "image_size": 64, "classes": 3}


def network(**options):
    torch.manual_seed(1)
    return samora_network(**{**SMALL, "d_attn": 8, "heads": 2, **options})


@pytest.fixture
def expert(tmp_path):
    """Writes what a run of the first stage leaves: ``adapter/`` and a ``model.pt`` with a card."""

    def write(level, *, told=None, base_seed=0, rank=4, card=True):
        encoder = base_network(**SMALL, seed=base_seed).image_encoder
        add_experts(encoder, (level,), rank=rank)
        torch.manual_seed(LEVELS.index(level) + 5)
        for parameter in expert_parameters(encoder, level).values():
            nn.init.normal_(parameter)
        folder = tmp_path / f"{level} run"
        save_adapter(encoder, level, folder / "adapter")
        if card:
            settings = {"level": told or level, "base_hash": base_hash(encoder)}
            about = ModelCard(LabelSpace(("liver",)), ("image",), "samora_expert", extra={"settings": settings})
            save_weights(folder / "model.pt", {"x": torch.zeros(1)}, about)
        return folder, {n: p.detach().clone() for n, p in expert_parameters(encoder, level).items()}

    return write


def test_every_level_gets_its_expert(expert):
    runs = {level: expert(level) for level in LEVELS}
    built = started(network(), experts={level: folder for level, (folder, _) in runs.items()})
    for level, (_, state) in runs.items():
        own = expert_parameters(built.base.image_encoder, level)
        assert own.keys() == state.keys() and all(torch.equal(own[n], state[n]) for n in own)
        assert not any(p.requires_grad for p in own.values())


def test_adapter_folders_and_bare_files_of_peft_are_taken(expert, caplog):
    folder, _ = expert("patch", card=False)
    built = network(fuser="single", levels=["patch"])
    started(built, experts={"patch": str(folder / "adapter"), "image": None})
    assert "does not say which base" in caplog.text
    assert adapter_folder(folder) == folder / "adapter" == adapter_folder(folder / "adapter")
    assert expert_card(folder / "adapter") is None


def test_experts_that_do_not_fit_are_refused(expert, tmp_path):
    good = {level: expert(level)[0] for level in LEVELS}
    cases = {
        "a level without": ({"image": good["image"]}, ExpertError, "--patch_expert"),
        "no folder": ({**good, "pixel": tmp_path / "nowhere"}, ExpertError, "no such folder"),
        "an empty folder": ({**good, "pixel": tmp_path}, ExpertError, "adapter_config.json"),
        "another level": ({**good, "pixel": good["image"]}, ExpertError, "another level"),
    }
    for name, (experts, kind, text) in cases.items():
        with pytest.raises(kind, match=text):
            started(network(), experts=experts)
            pytest.fail(name)
    with pytest.raises(ExpertError, match="no level for"):
        started(network(levels=["image", "patch"]), experts=good)


def test_an_expert_of_another_base_is_refused(expert):
    folder, _ = expert("image", base_seed=3)
    with pytest.raises(ExpertError, match="another base"):
        started(network(fuser="single", levels=["image"]), experts={"image": folder})
    with pytest.raises(WeightError, match="rank"):
        folder, _ = expert("image", rank=2)
        started(network(fuser="single", levels=["image"]), experts={"image": folder})


def test_the_hash_of_a_base_does_not_see_experts_size_or_classes():
    hashes = {base_hash(network().base.image_encoder), base_hash(base_network(**SMALL).image_encoder),
              base_hash(base_network("hsam", "tiny", image_size=112, classes=5).image_encoder)}  # fmt: skip
    assert len(hashes) == 1


def test_a_trainable_expert_needs_no_start():
    built = network(fuser="single", levels=["image"], train_experts=True)
    assert started(built, experts={"image": None}) is built


@pytest.mark.parametrize("base", ["sam", "hsam", "sam2"])
def test_public_weights_fill_the_base_before_experts_come(base, tmp_path):
    size = {"sam2": 64}.get(base, 64)
    if base == "sam2":
        pytest.importorskip("sam2")
    kind = "sam2" if base == "sam2" else "sam"
    public = base_network(kind, "tiny", image_size=size, classes=4, seed=7)
    path = tmp_path / "public.pth"
    torch.save(public.state_dict(), path)
    built = samora_network(**{**SMALL, "base": base}, base_weights=path)
    assert base_hash(built.base.image_encoder) == base_hash(public.image_encoder)


def test_samed_s_file_fills_one_trainable_expert(tmp_path):
    one = {"fuser": "single", "levels": ["image"], "train_experts": True}
    source = network(**one)
    encoder = source.base.image_encoder
    state = {n.removeprefix("base."): p for n, p in source.state_dict().items()
             if n.startswith(("base.prompt_encoder.", "base.mask_decoder."))}  # fmt: skip
    for name, p in expert_parameters(encoder, "image").items():
        nn.init.normal_(p)
        index = 2 * int(name.split(".")[1]) + (".v." in name)
        state[f"w_{'a' if 'lora_A' in name else 'b'}_{index:03d}"] = p.detach()
    torch.save(state, tmp_path / "samed.pth")
    built = started(network(**one), experts={}, samed=tmp_path / "samed.pth")
    own = expert_parameters(built.base.image_encoder, "image")
    assert all(torch.equal(p, expert_parameters(encoder, "image")[n]) for n, p in own.items())
    with pytest.raises(ConfigError, match="lora_one"):
        started(network(), experts={}, samed=tmp_path / "samed.pth")


def test_public_hsam_needs_switches_that_reach_its_decoder():
    given = {"image_size": 112, "classes": 5, "seed": 0}
    decoder = base_network("hsam", "tiny", **given, decoder_grid=14, selection="released", class_noise=(),
                           similarity_dropout=0.0).mask_decoder2  # fmt: skip
    assert (decoder.selection, decoder.grid, decoder.noise) == ("released", 14, ())
    assert base_network("hsam", "tiny", **given).mask_decoder2.selection == "positions"
    network = samora_network(base="hsam", variant="tiny", image_size=112, classes=5, fuser="none", levels=[],
                             selection="released")  # fmt: skip
    assert network.base.mask_decoder2.selection == "released"
    with pytest.raises(ConfigError, match="selection"):
        base_network("hsam", "tiny", **given, selection="none")


def test_a_damaged_card_beside_an_expert_is_told(expert):
    folder, _ = expert("patch", card=False)
    file = folder / "adapter" / "card.json"
    for content, more in ((b"\xff\xfe{", "utf-8.*next: +copy the expert's folder again"), (b"{", "JSON")):
        file.write_bytes(content)
        with pytest.raises(WeightError, match=rf"(?s)adapter/card\.json: the .*card cannot be read.*{more}"):
            expert_card(folder / "adapter")


def test_an_expert_that_was_taught_on_something_else_is_refused(expert):
    folder, _ = expert("patch")
    state, card = read_state_dict(folder / "model.pt")
    entry = {"modalities": {"CT": {"channels": ["image"]}}}
    save_weights(folder / "model.pt", state, card.with_extra(contract=entry))
    one, mr = {"fuser": "single", "levels": ["patch"]}, of_modality("T2 MR")
    for path in (folder, folder / "model.pt"):
        assert adapter_folder(path) == folder / "adapter"
        with pytest.raises(DataError, match="not what the model was trained on"):
            started(network(**one), experts={"patch": path}, dataset_dir=mr)
    (folder / "adapter" / "card.json").write_text(card.with_extra(contract=entry).to_json())
    (folder / "model.pt").unlink()
    with pytest.raises(DataError, match="not what the model was trained on"):
        started(network(**one), experts={"patch": folder / "adapter"}, dataset_dir=mr)
    started(network(**one), experts={"patch": folder}, dataset_dir=of_modality("NCCT"))
