"""Plans name nnU-Net's own networks, layers and functions; any other name is refused before it is imported."""

import copy
import json
import sys

import pytest

from common.backbones.nnunet.allowed import check_plans
from common.backbones.nnunet.network import build_network, plan_managers, read_results_folder
from common.backbones.nnunet.plan import Plan
from common.data.intensity.modality import NormalizeModalityd
from common.errors import ConfigError, WeightError
from tests.nnunet_folders import tiny_plans

CONFIGURATION = "3d_fullres"
HOSTILE = ["os.system", "subprocess.Popen", "planted.Network", "dynamic_network_architectures.planted.PlainConvUNet",
           "dynamic_network_architectures.architectures.unet.PlainConvUNet.__init__", "torch.nn.Module",
           "torch.hub.load", "torch.nn.modules.conv.os", "torch.nn.Conv3d\n", "builtins.exec", "", 3, ["x"],
           {"a": 1}]  # fmt: skip


def changed(*keys, value, **options):
    plans = copy.deepcopy(tiny_plans(**options))
    node = plans["configurations"][CONFIGURATION]
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    return plans


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A module that could be imported, as a foreign file in the working folder could."""
    (tmp_path / "planted.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    assert "planted" not in sys.modules


@pytest.mark.parametrize("options", [{}, {"resenc": True}, {"old": True}, {"norm": "CTNormalization"},
                                     {"spacing": (1.0, 1.0), "strides": ((1, 1), (2, 2))}])  # fmt: skip
def test_plans_of_nnunet_pass(options):
    plans = tiny_plans(**options)
    check_plans(plans, next(iter(plans["configurations"])))


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("keys", [("architecture", "network_class_name"), ("architecture", "arch_kwargs", "conv_op"),
                                  ("architecture", "arch_kwargs", "norm_op"), ("architecture", "arch_kwargs", "nonlin"),
                                  ("preprocessor_name",), ("resampling_fn_data",), ("resampling_fn_seg",),
                                  ("resampling_fn_probabilities",), ("normalization_schemes",), ("architecture",),
                                  ("inherits_from",)])  # fmt: skip
def test_other_names_are_refused_before_they_are_imported(planted, keys, value):
    plans = changed(*keys, value=[value] if keys == ("normalization_schemes",) else value)
    with pytest.raises(WeightError):
        plan_managers(plans, CONFIGURATION)
    with pytest.raises(WeightError):
        build_network(plans, CONFIGURATION, in_channels=1, out_channels=2)


def test_names_may_not_come_by_another_way(planted):
    own = changed("architecture", "_kw_requires_import", value=["n_stages", "conv_op"])
    own["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]["n_stages"] = "planted.Network"
    inherited = tiny_plans()
    inherited["configurations"]["base"] = changed("architecture", "network_class_name", value="planted.Network")[
        "configurations"
    ][CONFIGURATION]
    inherited["configurations"][CONFIGURATION] = {"inherits_from": "base"}
    circle = changed("inherits_from", value=CONFIGURATION)
    for plans in (own, inherited, circle, {**tiny_plans(), "label_manager": "os"},
                  changed("UNet_class_name", value="planted", old=True)):  # fmt: skip
        with pytest.raises(WeightError):
            plan_managers(plans, CONFIGURATION)


def test_a_refusal_says_which_file_and_entry(nnunet_folder, planted):
    folder = nnunet_folder()
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"][CONFIGURATION]["architecture"]["network_class_name"] = "planted.Network"
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(WeightError, match=r"(?s)plans\.json.*network_class_name.*planted\.Network.*PlainConvUNet"):
        read_results_folder(folder)


def test_plans_in_a_card_are_judged_as_well(tmp_path, planted):
    plans = changed("architecture", "network_class_name", value="planted.Network")
    data = {"labels": {"background": 0, "liver": 1}, "channel_names": {"0": "CT"}}
    plan = Plan(plans, data, CONFIGURATION, tmp_path)
    for use in (lambda: plan.patch_size, lambda: plan.batch_size):
        with pytest.raises(WeightError, match="not nnU-Net's own"):
            use()
    with pytest.raises(WeightError, match="not nnU-Net's own"):
        build_network(plans, CONFIGURATION, in_channels=1, out_channels=2)


@pytest.mark.parametrize(("fold", "checkpoint"), [("../0", "checkpoint_final.pth"), (0, "../x.pth"), (0, "/x.pth"),
                                                  ("0/..", "x.pth"), (0, ""), (0, "a\\b")])  # fmt: skip
def test_weights_lie_in_the_fold(nnunet_folder, fold, checkpoint):
    with pytest.raises(WeightError, match=r"not a fold|cannot be the name of a checkpoint"):
        read_results_folder(nnunet_folder(), fold=fold, checkpoint=checkpoint)


@pytest.mark.parametrize("scheme", ["ABC", "np", "ImageNormalization", "__loader__", None, ["x"], "os.system"])
def test_a_card_names_nnunets_normalisations_alone(scheme):
    import torch
    from monai.data import MetaTensor

    change = NormalizeModalityd("image", schemes={"CT": {"scheme": scheme}})
    with pytest.raises(ConfigError, match="unknown normalisation"):
        change({"image": MetaTensor(torch.ones(1, 4, 4, 4)), "modality": "CT"})


@pytest.mark.parametrize(
    ("key", "value"),
    [("normalization_schemes", 5), ("normalization_schemes", [["x"]]), ("spacing", "abc"), ("spacing", [1, 0, 1]),
     ("spacing", [1, 1]), ("spacing", [1, float("nan"), 1]), ("spacing", 5), ("patch_size", [8, 8.5, 8]),
     ("patch_size", [8] * 4), ("use_mask_for_norm", "no")],
)  # fmt: skip
def test_entries_of_another_kind_are_refused(key, value):
    with pytest.raises(WeightError, match=r"another kind|not nnU-Net's own"):
        plan_managers(changed(key, value=value), CONFIGURATION)


@pytest.mark.parametrize("value", [5, None, [], "x", {CONFIGURATION: 5}])
def test_configurations_of_another_kind_are_refused(value):
    with pytest.raises(WeightError):
        plan_managers({**tiny_plans(), "configurations": value}, CONFIGURATION)


@pytest.mark.parametrize("order", [5, "012", [0, 1], [0, 1, 1], [0, 1, 2.0], [0, 1, None]])
@pytest.mark.parametrize("key", ["transpose_forward", "transpose_backward"])
def test_axes_are_in_some_order(key, order):
    with pytest.raises(WeightError, match=key):
        plan_managers({**tiny_plans(), key: order}, CONFIGURATION)


@pytest.mark.parametrize("value", [5, "conv_op", {"conv_op": 1}, [5]])
def test_imported_names_are_a_list(value):
    with pytest.raises(WeightError, match="_kw_requires_import"):
        plan_managers(changed("architecture", "_kw_requires_import", value=value), CONFIGURATION)


@pytest.mark.parametrize(("key", "value"), [("n_stages", "x"), ("features_per_stage", ["a"]), ("kernel_sizes", "x"),
                                            ("strides", None), ("nothing", 1)])  # fmt: skip
def test_networks_that_cannot_be_built_are_refused(key, value):
    with pytest.raises(WeightError, match="can be built"):
        build_network(changed("architecture", "arch_kwargs", key, value=value), CONFIGURATION, in_channels=1,
                      out_channels=2)  # fmt: skip


@pytest.mark.parametrize(("forward", "backward"), [([2, 0, 1], [2, 0, 1]), ([1, 0, 2], [0, 1, 2]),
                                                   ([2, 0, 1], None), (None, [1, 2, 0])])  # fmt: skip
def test_axes_are_turned_back(forward, backward):
    plans = {**tiny_plans(), "transpose_forward": forward, "transpose_backward": backward}
    plans = {key: value for key, value in plans.items() if value is not None}
    with pytest.raises(WeightError, match="do not turn them back"):
        check_plans(plans, CONFIGURATION)
    check_plans({**plans, "transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]}, CONFIGURATION)


@pytest.mark.parametrize("change", [{"mean": float("nan")}, {"std": -5.0}, {"std": 0.0}, {"std": "1"},
                                    {"percentile_00_5": 900.0, "percentile_99_5": -900.0},
                                    {"percentile_99_5": float("inf")}, {"mean": None}])  # fmt: skip
def test_statistics_that_an_image_is_scaled_by_are_numbers(change):
    plans = copy.deepcopy(tiny_plans(norm="CTNormalization"))
    key = "foreground_intensity_properties_per_channel"
    plans[key]["0"].update(change)
    with pytest.raises(WeightError, match="statistics of channel 0"):
        check_plans(plans, CONFIGURATION)
    with pytest.raises(WeightError, match="statistics of channel 0"):
        check_plans({k: v for k, v in plans.items() if k != key}, CONFIGURATION)
    check_plans({**tiny_plans(), key: {"0": {}}}, CONFIGURATION)  # no scheme here uses them
    old = copy.deepcopy(tiny_plans(norm="CTNormalization"))
    old["foreground_intensity_properties_by_modality"] = old.pop(key)
    check_plans(old, CONFIGURATION)  # as the first plans of nnU-Net v2 name them
