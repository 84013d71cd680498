"""Where the second phase starts from."""

import pytest
import torch

from common.card import save_weights
from common.engine.run.settings import model_card
from common.errors import ConfigError, DataError, WeightError
from common.labels import LabelSpace
from common.methods.m4oe.build import m4oe_network
from common.methods.m4oe.phase_one import m4oe_autoencoder
from common.methods.m4oe.start import started
from tests.common.methods.conftest import of_modality

SIZES = {"embed": 12, "num_heads": (1, 2, 3, 6), "window": 2}
LABELS = LabelSpace(("liver",))


def network(modalities=("CT", "MR"), **options):
    torch.manual_seed(0)
    return m4oe_network(labels=LABELS, modalities=modalities, heads={"a": ["liver"]}, **SIZES, **options)


def expert(path, modalities, seed):
    torch.manual_seed(seed)
    state = m4oe_autoencoder(modalities=modalities, **SIZES).state_dict()
    card = model_card("m4oe_expert", LABELS, ["image"], {"modalities": list(modalities)})
    return save_weights(path, state, card), state


def encoder(name):
    return name.startswith(("backbone.patch_embed", "backbone.layers.", "backbone.norm."))


def test_one_file_for_all_modalities_in_another_order(tmp_path):
    file, state = expert(tmp_path / "model.pt", ("MR", "CT"), 1)
    before = network().state_dict()
    after = started(network(), pretrained=str(file)).state_dict()
    for name, tensor in after.items():
        if encoder(name) and ".experts." in name:
            assert torch.equal(tensor, state[name].flip(0)), name
        elif encoder(name) and ".gate." not in name:
            assert torch.equal(tensor, state[name]), name
        else:
            assert torch.equal(tensor, before[name]), name


def test_one_file_per_modality_is_merged(tmp_path):
    ct, first = expert(tmp_path / "ct.pt", ("CT",), 1)
    mr, second = expert(tmp_path / "mr.pt", ("MR",), 2)
    after = started(network(), pretrained=f"{mr}, {ct}").state_dict()
    for name, tensor in after.items():
        if encoder(name) and ".experts." in name:
            assert torch.equal(tensor[0], first[name][0]) and torch.equal(tensor[1], second[name][0]), name
        elif encoder(name) and ".gate." not in name:
            wanted = (first[name].double() + second[name].double()) / 2
            torch.testing.assert_close(tensor.double(), wanted, rtol=0, atol=1e-6)


def test_gate_none_has_no_gates_to_miss(tmp_path):
    file, state = expert(tmp_path / "model.pt", ("CT", "MR"), 1)
    after = started(network(gate="none"), pretrained=[file]).state_dict()
    assert torch.equal(after["backbone.norm.weight"], state["backbone.norm.weight"])


@pytest.mark.parametrize(("files", "message"), [((("CT",),), "0 of"), ((("CT", "MR"), ("MR",)), "2 of")])
def test_modalities_must_be_found_once(tmp_path, files, message):
    paths = [expert(tmp_path / f"{i}.pt", names, i)[0] for i, names in enumerate(files)]
    with pytest.raises(WeightError, match=message):
        started(network(), pretrained=paths)


def test_a_further_modality_in_a_file_does_no_harm(tmp_path):
    ct, _ = expert(tmp_path / "ct.pt", ("CT",), 1)
    both, state = expert(tmp_path / "both.pt", ("US", "MR"), 2)
    after = started(network(), pretrained=[ct, both]).state_dict()
    name = next(n for n in after if encoder(n) and ".experts." in n)
    assert torch.equal(after[name][1], state[name][1])


def test_refusals(tmp_path):
    file, state = expert(tmp_path / "model.pt", ("CT", "MR"), 1)
    with pytest.raises(ConfigError, match="one source"):
        started(network(), pretrained=file, swin="swin.pth")
    with pytest.raises(WeightError, match="no experts in its encoder"):
        started(network(moe_encoder=False), pretrained=file)
    bare = save_weights(tmp_path / "bare.pt", state)
    with pytest.raises(WeightError, match="which modalities"):
        started(network(), pretrained=bare)
    other = m4oe_autoencoder(modalities=("CT", "MR"), **{**SIZES, "embed": 24}).state_dict()
    wide = save_weights(tmp_path / "wide.pt", other, model_card("m4oe_expert", LABELS, ["image"],
                                                                {"modalities": ["CT", "MR"]}))  # fmt: skip
    with pytest.raises(WeightError, match="fit"):
        started(network(), pretrained=wide)
    assert started(network()).state_dict().keys() == network().state_dict().keys()


def test_a_first_phase_of_something_else_is_refused(tmp_path):
    file, state = expert(tmp_path / "model.pt", ("A",), 1)
    contract = {"modalities": {"A": {"channels": ["CT"]}}}
    save_weights(file, state, model_card("m4oe_expert", LABELS, ["CT"], {"modalities": ["A"]}, contract=contract))
    with pytest.raises(DataError, match="not what the model was trained on"):
        started(network(("A",)), pretrained=file, dataset_dir=of_modality("A", "T2 MR"))
    for data in (of_modality("A", "CT"), of_modality("B", "T2 MR")):  # of B another file would have to know
        started(network(("A",)), pretrained=file, dataset_dir=data)
    started(network(("A",)), pretrained=file, dataset_dir=of_modality("A", "T2 MR"), ignore_card=True)
