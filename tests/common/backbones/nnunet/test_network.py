"""Networks and results folders: whatever nnU-Net or TotalSegmentator wrote is read from plans and weights alone."""

import json
import shutil

import pytest
import torch

from common.backbones.nnunet.network import (
    build_network,
    deep_supervision_when_training,
    describe_results,
    load_network,
    read_json,
    read_results_folder,
)
from common.errors import WeightError


def forward(folder, **options):
    network = load_network(read_results_folder(folder, **options))
    return network(torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1)))


def test_the_trainer_class_need_not_exist(nnunet_folder):
    plain = forward(nnunet_folder("a"))
    other = nnunet_folder("b", trainer="nnUNetTrainer_4000epochs_NoMirroring")
    assert torch.equal(plain, forward(other))
    assert read_results_folder(other).trainer == "nnUNetTrainer_4000epochs_NoMirroring"


def test_plans_without_architecture_give_the_same_network(nnunet_folder):
    new, old = nnunet_folder("new"), nnunet_folder("old", old=True)
    assert "architecture" not in json.loads((old / "plans.json").read_text())["configurations"]["3d_fullres"]
    assert torch.equal(forward(new), forward(old))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_compiled_and_parallel_networks_are_taken_off(nnunet_folder, prefix):
    assert torch.equal(forward(nnunet_folder("a")), forward(nnunet_folder("b", prefix=prefix)))


def test_residual_encoders_are_read(nnunet_folder):
    network = load_network(read_results_folder(nnunet_folder("r", resenc=True)))
    assert any(key.startswith("encoder.stages.0.blocks") for key in network.state_dict())


def test_state_dict_has_the_public_layout(nnunet_plans):
    network = build_network(nnunet_plans(), "3d_fullres", in_channels=1, out_channels=3)
    keys = set(network.state_dict())
    expected = {
        "encoder.stages.0.0.convs.0.conv.weight",
        "encoder.stages.0.0.convs.0.all_modules.0.weight",
        "decoder.encoder.stages.0.0.convs.0.conv.weight",
        "decoder.transpconvs.0.weight",
        "decoder.seg_layers.1.bias",
    }
    assert expected <= keys


def test_found_from_the_dataset_folder_and_the_results_root(nnunet_folder):
    folder = nnunet_folder("Dataset900_tiny")
    for path in (folder, folder.parent, folder.parent.parent):
        assert read_results_folder(path).folder == folder


def test_several_configurations_need_a_choice(nnunet_folder):
    flat = {"spacing": (1.0, 1.0), "strides": ((1, 1), (2, 2), (2, 2))}
    folder, other = nnunet_folder("d"), nnunet_folder("e", **flat)
    shutil.move(other, folder.parent / other.name)
    with pytest.raises(WeightError, match="not one nnU-Net results folder"):
        read_results_folder(folder.parent)
    assert read_results_folder(folder.parent, "2d").configuration == "2d"


def test_missing_fold_lists_what_is_there(nnunet_folder):
    with pytest.raises(WeightError, match=r"(?s)weights are missing.*fold_0/checkpoint_final\.pth"):
        read_results_folder(nnunet_folder(), fold=3)


def test_weights_that_are_there_are_proposed(nnunet_folder):
    folder = nnunet_folder(fold="all")
    for given, options in (
        ({}, "--fold all"),
        ({"fold": "all", "checkpoint": "best.pth"}, "--checkpoint checkpoint_final.pth"),
        ({"fold": 2, "checkpoint": "best.pth"}, "--fold all --checkpoint checkpoint_final.pth"),
    ):
        with pytest.raises(WeightError) as caught:
            read_results_folder(folder, **given)
        assert caught.value.hint == f"take what is there: {options}"
    assert read_results_folder(folder, fold="all").checkpoint.is_file()
    (folder / "fold_all" / "checkpoint_final.pth").unlink()
    with pytest.raises(WeightError) as caught:
        read_results_folder(folder)
    assert caught.value.hint is None and "no fold_*" in caught.value.got


def test_missing_configuration_lists_what_is_there(nnunet_folder):
    with pytest.raises(WeightError, match="3d_fullres"):
        read_results_folder(nnunet_folder(), "3d_lowres")


def test_no_folder_and_broken_plans(tmp_path, nnunet_folder):
    with pytest.raises(WeightError, match=r"no folder with plans\.json"):
        read_results_folder(tmp_path)
    folder = nnunet_folder()
    (folder / "plans.json").write_text("{")
    with pytest.raises(WeightError, match=r"plans\.json"):
        read_results_folder(folder)


def test_weights_of_another_network_are_refused(nnunet_folder):
    folder, other = nnunet_folder("a"), nnunet_folder("b", labels={"background": 0, "liver": 1})
    shutil.copy(other / "fold_0" / "checkpoint_final.pth", folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(WeightError, match="do not fit the network that the plans describe"):
        load_network(read_results_folder(folder))


def test_unknown_architecture(nnunet_plans):
    plans = nnunet_plans()
    plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "nowhere.NoNet"
    with pytest.raises(WeightError, match=r"not nnU-Net.s own: network_class_name"):
        build_network(plans, "3d_fullres", in_channels=1, out_channels=2)


@pytest.mark.parametrize("transpose", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (1, 2, 0)])
def test_spacing_is_given_in_x_y_z(nnunet_folder, transpose):
    zyx = (5.0, 3.0, 1.0)
    folder = nnunet_folder(transpose=transpose, spacing=tuple(zyx[i] for i in transpose))
    assert describe_results(read_results_folder(folder))["spacing"] == (1.0, 3.0, 5.0)


@pytest.mark.parametrize(("reader", "orientation"), [("NibabelIOWithReorient", "RAS"), ("SimpleITKIO", None)])
def test_orientation_follows_from_the_reader(nnunet_folder, reader, orientation):
    assert describe_results(read_results_folder(nnunet_folder(reader=reader)))["orientation"] == orientation


def test_deep_supervision_only_when_training(nnunet_plans):
    network = build_network(nnunet_plans(), "3d_fullres", in_channels=1, out_channels=3, deep_supervision=True)
    deep_supervision_when_training(network)
    x = torch.randn(1, 1, 16, 16, 16)
    assert [tuple(t.shape[2:]) for t in network.train()(x)] == [(16, 16, 16), (8, 8, 8)]
    assert network.eval()(x).shape == (1, 3, 16, 16, 16)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", "9" * 5000])
def test_a_file_that_is_no_json_object_is_named(tmp_path, text):
    (tmp_path / "plans.json").write_text(text)
    with pytest.raises(WeightError, match="cannot read this file"):
        read_json(tmp_path / "plans.json")
