"""What a card of weights says is data in a label server's configuration and in a packed bundle, whatever it says."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from common.card import ModelCard, save_weights
from common.contract import Contract
from common.errors import ConfigError, LabelError, WeightError
from common.labels import LabelSpace
from common.literals import inert, value
from common.weights import read_state_dict
from tests.label.toys import toy_weights
from tools.bundle.pack import _describe
from tools.label.config import Model, _compared, dicom_tags, read_model, tags_by_modality
from tools.label.layout import _targeting, folder_name, lay_out

BUNDLES = Path(__file__).resolve().parents[3] / "bundles"
RUN = "$__import__('os').environ.update(PWNED='1')"
ODD = {
    "note": RUN, "a#b": "@model", "more": [f"x {RUN}", "%inference.json::device", "a::b", "common.errors.few", 1.5],
    "none": None, "deep": {"_target_": "os.system", "command": "touch PWN", "_requires_": [RUN], "_disabled_": "true"},
}  # fmt: skip


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Weights of a bundle whose card has further settings; nothing of them may have run afterwards."""
    monkeypatch.delenv("PWNED", raising=False)

    def make(bundle, **settings):
        state, card = read_state_dict(toy_weights(bundle, tmp_path / "toy"))
        told = {**card.extra["settings"], **ODD, **settings}
        return save_weights(tmp_path / bundle / "model.pt", state, card.with_extra(settings=told)), told

    yield make
    assert "PWNED" not in os.environ


def parsed(folder, name):
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / f"{name}.json"))
    parser["bundle_root"] = str(folder)
    return parser


@pytest.mark.parametrize(
    ("bundle", "kind", "settings"),
    [
        ("ka2er", "segmentation", {}),
        ("ka2er", "deepedit", {}),
        ("samora", "segmentation", {"intensities": {"T2 MR": {"scheme": "ZScoreNormalization"}}}),
        ("m4oe", "segmentation", {"heads": [["abdomen", ["liver", "spleen"]], ["kidneys", ["left kidney", "liver"]]]}),
        ("sam_med3d_moe", "deepgrow", {"modalities": ["T2 MR"]}),
    ],
)
def test_settings_are_data_for_the_server(hostile, tmp_path, bundle, kind, settings):
    file, told = hostile(bundle, **settings)
    given = {"modality": "CT", "head": "abdomen"} if bundle == "m4oe" else {}
    folder = lay_out(read_model(BUNDLES / bundle, file), tmp_path / "model", kind, given=given)
    for name in ("inference", "train"):
        parser = parsed(folder, name)
        model = parser.get_parsed_content("model")
        assert {k: model[k] for k in told} == told
        parser.get_parsed_content("network_def")
        parser.get_parsed_content("preprocessing" if bundle != "sam_med3d_moe" or name == "inference" else "objects")
    card = parser.get_parsed_content("card")
    assert card.extra["settings"] == told and card.labels == model["labels"]


@pytest.mark.parametrize(
    ("bundle", "settings"),
    [("samora", {"intensities": {RUN: {"scheme": "ZScoreNormalization"}}}), ("sam_med3d_moe", {"modalities": [RUN]})],
)
def test_names_in_settings_are_judged_when_the_card_is_read(hostile, bundle, settings):
    file, _ = hostile(bundle, **settings)
    with pytest.raises(WeightError, match="cannot be the name of a modality"):
        read_model(BUNDLES / bundle, file)


def test_the_head_that_is_trained(hostile, tmp_path):
    file, _ = hostile("m4oe")
    folder = lay_out(read_model(BUNDLES / "m4oe", file), tmp_path / "m", "segmentation",
                     given={"modality": "CT", "head": "kidneys"})  # fmt: skip
    step = parsed(folder, "train").get_parsed_content("train::transforms").transforms[0]
    assert step.known.tolist() == [True, True, False, True]  # background, liver, spleen, left kidney
    parser = parsed(folder, "train")
    parser["head"] = "feet"
    with pytest.raises(Exception, match=r"ServerLabeld|annotated_by") as caught:
        parser.get_parsed_content("train::transforms")
    cause = caught.value
    while cause is not None and not isinstance(cause, LabelError):
        cause = cause.__cause__ or cause.__context__
    assert "no such head" in str(cause)


@pytest.mark.parametrize("name", [RUN, "@model", "T2#MR", "a::b", "../CT"])
def test_a_choice_has_a_name_that_a_viewer_can_send_back(hostile, tmp_path, name):
    file, _ = hostile("m4oe", modalities=["CT", name])
    with pytest.raises(WeightError, match="cannot be the name of a modality"):
        lay_out(
            read_model(BUNDLES / "m4oe", file), tmp_path, "segmentation", given={"modality": "CT", "head": "abdomen"}
        )


def test_what_studies_of_each_modality_are_called(tmp_path):
    entries = {"CT": {"kind": "CT", "channels": ["CT"]}, "T2 MR": {"kind": "MR"}, "scanner A": {"kind": ""}}
    told = {"settings": {}, "contract": {"modalities": entries}}
    card = ModelCard(LabelSpace(("liver",)), ("CT | T2 MR",), extra=told)
    model = Model(tmp_path, save_weights(tmp_path / "model.pt", {"w": torch.zeros(1)}, card), card)
    assert tags_by_modality(model) == {"CT": ["CT"], "T2 MR": ["MR", "MS"], "scanner A": []}
    assert dicom_tags(model) == []
    del entries["scanner A"]
    file = save_weights(tmp_path / "known.pt", {"w": torch.zeros(1)}, card.with_extra(**told))
    assert dicom_tags(Model(tmp_path, file, card)) == ["CT", "MR", "MS"]


@pytest.mark.parametrize("name", ["../x", "a/b", "$x", "a,b", ".."])
def test_a_model_has_a_name_that_is_a_folder(hostile, name):
    with pytest.raises(ConfigError, match="model"):
        folder_name(read_model(BUNDLES / "ka2er", hostile("ka2er")[0]), "segmentation", name)


def test_settings_are_data_in_a_packed_bundle(hostile, tmp_path):
    file, told = hostile("ka2er")
    folder = tmp_path / "packed"
    shutil.copytree(BUNDLES / "ka2er" / "configs", folder / "configs")
    _describe(folder, read_state_dict(file)[1], [])
    parser = parsed(folder, "inference")
    parser["model"]["path"] = ""
    model = parser.get_parsed_content("model")
    assert {k: model[k] for k in told} == told and model["labels"].names == ("liver", "spleen", "left kidney")
    assert RUN not in (folder / "configs" / "inference.json").read_text()


@pytest.mark.parametrize(
    "data", [1, None, True, "left kidney", ["a", 1.5], {"a": {"b": [1, "c, (d)"]}}, {"_kw": 1}, "a: b", "a$b"]
)
def test_harmless_values_stay_readable(data):
    assert inert(data) == data


@pytest.mark.parametrize("data", [RUN, "@a", "%a", "a#b", "a@::b", {"a#b": 1}, {"a::b": 1}, {"$a": 1},
                                  {"_target_": "x"}, {"a": [{"_disabled_": 1}]}, {"_desc_": "x"}, {1: "a"},
                                  ODD])  # fmt: skip
def test_others_come_back_unchanged_from_a_configuration(data):
    kept = inert(data)
    assert kept["_target_"] == "common.literals.value"
    assert not any(sign in kept["text"] for sign in ("$", "@", "%", "#", "::"))
    parser = ConfigParser({"x": json.loads(json.dumps(kept)), "y": {"z": "@x"}})
    assert parser.get_parsed_content("y")["z"] == json.loads(json.dumps(data))
    with pytest.raises(ConfigError, match="cannot be read"):
        value("{")


def test_only_what_is_called_is_renamed_for_a_packed_bundle():
    content = {
        "a": {"_target_": "common.literals.value", "text": "common.bile duct"},
        "b": ["common.x", {"c": "common.y"}],
    }
    assert _targeting(content, "p_bundle") == {
        **content,
        "a": {**content["a"], "_target_": "p_bundle.common.literals.value"},
    }


def test_what_was_taught_is_compared_by_the_server():
    contract = Contract(("CT",), {"CT": {"channels": ["CT"]}}, {"CT": ("liver", RUN)})
    step = ConfigParser({"x": _compared(contract, flat=False, asked=False)}).get_parsed_content("x")
    assert (step.contract.channels, step.contract.taught) == (contract.channels, contract.taught)
