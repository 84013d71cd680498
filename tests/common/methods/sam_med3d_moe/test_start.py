"""What a SAM-Med3D-MoE is made of: general models and experts from files, and which files are refused."""

import copy

import pytest
import torch

from common.backbones.sam3d.network import sam3d_network
from common.card import save_weights
from common.errors import ConfigError, ExpertError, WeightError
from common.methods.sam_med3d_moe.start import general_model, mixture, read_decoders, trained_mixture
from common.weights import read_state_dict


@pytest.fixture
def files(sam3d_files):
    return sam3d_files


def public(path, network):
    """The layout of the released checkpoints."""
    state = {f"module.{k}": v for k, v in network.state_dict().items()}
    torch.save({"model_state_dict": state, "epoch": 3, "losses": [0.5]}, path)
    return path


def test_a_card_says_how_a_general_model_is_built(files):
    path = files.general(boxes=True)
    found = general_model(path)
    assert found.settings == {"variant": "tiny", "image_size": 32, "rel_pos": "intended", "boxes": True}
    assert found.network.boxes and found.network.image_size == 32
    assert all(torch.equal(v, found.network.state_dict()[k]) for k, v in read_state_dict(path)[0].items())
    same = general_model(path, variant="tiny", image_size=32, rel_pos="intended")
    assert same.settings == found.settings


@pytest.mark.parametrize(
    ("given", "key"), [({"variant": "small"}, "variant"), ({"image_size": 64}, "image_size"),
                       ({"rel_pos": "released"}, "rel_pos")],
)  # fmt: skip
def test_another_value_than_the_card_s_is_refused(files, given, key):
    with pytest.raises(ConfigError, match=f"(?s)trained with another value.*leave --{key} away"):
        general_model(files.general(), **given)


def test_a_public_file_is_the_released_network(tmp_path, caplog):
    network = sam3d_network("tiny", seed=4)
    path = public(tmp_path / "public.pth", network)
    found = general_model(path, variant="tiny")
    assert found.settings == {"variant": "tiny", "image_size": 32, "rel_pos": "released", "boxes": False}
    assert all(torch.equal(v, found.network.state_dict()[k]) for k, v in network.state_dict().items())
    with_boxes = general_model(path, variant="tiny", boxes=True)
    assert with_boxes.network.boxes and with_boxes.settings["boxes"] and "never trained on boxes" in caplog.text
    torch.rand(3)
    again, other = (general_model(path, variant="tiny", boxes=True, seed=s).network for s in (0, 1))
    corners = "prompt_encoder.box_embeddings.weight"
    assert torch.equal(again.state_dict()[corners], with_boxes.network.state_dict()[corners])
    assert not torch.equal(other.state_dict()[corners], with_boxes.network.state_dict()[corners])


def test_without_weights_the_seed_decides(files):
    one, two, three = (general_model(variant="tiny", seed=s).network for s in (0, 0, 1))
    assert general_model(variant="tiny").settings["rel_pos"] == "intended"
    name = "image_encoder.pos_embed" if one.image_encoder.pos_embed.any() else "mask_decoder.iou_token.weight"
    assert torch.equal(one.state_dict()[name], two.state_dict()[name])
    assert not torch.equal(one.state_dict()[name], three.state_dict()[name])


def test_experts_are_named_by_hand_by_card_or_by_folder(files, tmp_path):
    general = files.general()
    a, b = files.expert("a run", "liver tumour", of=general), files.expert("b", "spleen", of=general, seed=8)
    base = general_model(general).network
    found = read_decoders([a.parent, b], base)
    assert list(found) == ["a run", "b"]
    assert found["a run"].structures == ("liver tumour",) and found["b"].spacing == 4.0
    assert list(read_decoders(f"{a.parent}, {b}", base)) == ["a run", "b"]
    assert list(read_decoders({"x": a, "y": str(b)}, base)) == ["x", "y"]
    state = read_state_dict(a)[0]
    for path, name in ((tmp_path / "bare run" / "model.pt", "bare run"), (tmp_path / "tuned.pth", "tuned")):
        save_weights(path, state)  # no card
        bare = read_decoders([path], base)[name]
        assert bare.structures == (name,), "the gate learns it for the structure of its name"
        assert bare.spacing is None and bare.sha256 == found["a run"].sha256
    assert read_decoders({"spleen": path}, base)["spleen"].structures == ("spleen",)


def test_a_decoder_alone_is_taken_with_a_warning(files, tmp_path, caplog):
    general = files.general()
    base = general_model(general).network
    whole = files.expert("a", of=general)
    state = read_state_dict(whole)[0]
    read_decoders([whole], base)
    assert "not checked" not in caplog.text
    save_weights(tmp_path / "alone.pt", {k: v for k, v in state.items() if k.startswith("mask_decoder.")})
    read_decoders([tmp_path / "alone.pt"], base)
    assert "alone.pt holds a decoder alone" in caplog.text and "not checked" in caplog.text


def test_a_decoder_is_the_file_s_and_the_general_one_stays(files):
    general = files.general()
    expert = files.expert("a", "liver tumour", of=general)
    base = general_model(general).network
    before = copy.deepcopy(base.state_dict())
    decoder = read_decoders([expert], base)["a"].decoder
    state = read_state_dict(expert)[0]
    assert all(torch.equal(v, state[f"mask_decoder.{k}"]) for k, v in decoder.state_dict().items())
    assert all(torch.equal(v, base.state_dict()[k]) for k, v in before.items())
    assert any(not torch.equal(v, before[f"mask_decoder.{k}"]) for k, v in decoder.state_dict().items())


def test_public_layouts_are_experts_too(files, tmp_path):
    general = files.general(boxes=False)
    base = general_model(general).network
    tuned = copy.deepcopy(base)
    tuned.mask_decoder.iou_token.weight.data.add_(1.0)
    found = read_decoders([public(tmp_path / "fine_tuned.pth", tuned)], base)["fine_tuned"]
    assert torch.equal(found.decoder.iou_token.weight, tuned.mask_decoder.iou_token.weight)


def test_the_hash_is_of_the_decoder(files):
    general = files.general()
    base = general_model(general).network
    one = read_decoders([files.expert("one", of=general, seed=1)], base)["one"]
    two = read_decoders([files.expert("two", of=general, seed=1)], base)["two"]
    other = read_decoders([files.expert("other", of=general, seed=2)], base)["other"]
    assert one.sha256 == two.sha256 != other.sha256


def test_experts_that_do_not_belong_are_refused(files, tmp_path):
    general, other = files.general(), files.general("other", seed=1)
    base = general_model(general).network
    expert = files.expert("a", of=general)
    (tmp_path / "empty").mkdir()
    cases = {
        "from another general model": [files.expert("b", of=other)],
        "or its encoders were trained": [files.expert("c", of=general, encoder=True)],
        "two experts have one name": [expert, expert.parent],
        "needs experts": [],
        "no model.pt": [tmp_path / "empty"],
        "no such file": [tmp_path / "nowhere"],
    }
    for message, experts in cases.items():
        with pytest.raises(ExpertError, match=message):
            read_decoders(experts, base)
    with pytest.raises(ExpertError, match="needs experts"):
        read_decoders(" , ", base)
    state = {k: v for k, v in read_state_dict(expert)[0].items() if "iou_token" not in k}
    save_weights(tmp_path / "half.pt", state)
    with pytest.raises(WeightError, match="are required"):
        read_decoders([tmp_path / "half.pt"], base)


def test_a_mixture_and_the_one_that_its_settings_build(files):
    general = files.general()
    found = read_decoders([files.expert("a", of=general), files.expert("b", of=general, seed=8)],
                          general_model(general).network)  # fmt: skip
    built = mixture(general_model(general), found, prompt_pool="mean", tau=0.7, fusion="avg", train="joint")
    assert built.gate.mlp[0].out_features == 2048  # the mask decoder's
    assert built.settings["experts"] == ["a", "b"] and built.settings["tau"] == 0.7
    again = trained_mixture(built.settings)
    assert again.names == built.names and (again.tau, again.fusion, again.train_what) == (0.7, "avg", "gate")
    assert again.gate.pool == "mean" and again.settings == built.settings
    again.load_state_dict(built.state_dict())
    assert trained_mixture(built.settings, tau=0.5, train="joint").tau == 0.5
    with pytest.raises(ConfigError, match=r"(?s)lacks settings.*tau"):
        trained_mixture({k: v for k, v in built.settings.items() if k != "tau"})
