"""Plans have nnU-Net's form, in a results folder and in a card alike, or are refused by entry and file."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.backbones.nnunet.allowed import check_plans
from common.backbones.nnunet.kept import check_kept
from common.backbones.nnunet.network import build_network, mirroring_axes, plan_managers, read_results_folder
from common.errors import AmalgamationError, WeightError
from common.experts.sources import open_source
from common.experts.spec import ExpertSpec
from common.labels import LabelSpace
from tests.nnunet_folders import tiny_plans

NAME = "3d_fullres"
FIP = "foreground_intensity_properties_per_channel"
SPLINE, TORCH = "resample_data_or_seg_to_shape", "resample_torch_fornnunet"


def configured(**changes: Any) -> dict[str, Any]:
    """Plans with other entries of the configuration; ``...`` takes one away."""
    plans = tiny_plans(norm="CTNormalization")
    config = {**plans["configurations"][NAME], **changes}
    plans["configurations"][NAME] = {k: v for k, v in config.items() if v is not ...}
    return plans


def told(**changes: Any) -> dict[str, Any]:
    """Plans with other entries of their own."""
    return {k: v for k, v in {**tiny_plans(norm="CTNormalization"), **changes}.items() if v is not ...}


GONE = ("spacing", "patch_size", "batch_size", "normalization_schemes", "use_mask_for_norm", "preprocessor_name",
        *(f"resampling_fn_{w}{e}" for w in ("data", "seg", "probabilities") for e in ("", "_kwargs")))  # fmt: skip
LISTS = (
    ("normalization_schemes", []), ("use_mask_for_norm", []),
    ("use_mask_for_norm", [False, False]), ("use_mask_for_norm", [0]), ("spacing", [1e-9] * 3), ("spacing", [9e5] * 3),
    ("spacing", [1e-5, 1, 1]), ("patch_size", [17, 3, 1]), ("patch_size", [16, 16, 18]), ("patch_size", [99999] * 3),
    ("patch_size", [16, 16]), ("patch_size", [True, 16, 16]), ("batch_size", "2"), ("batch_size", 0),
    ("batch_dice", "yes"), ("data_identifier", "/../../x"), ("data_identifier", ["x"]), ("previous_stage", ["x"]),
    ("next_stage", 5), ("median_image_size_in_voxels", [0, 1, 1]),
)  # fmt: skip
KWARGS = ("text", None, [], 5, {"os": 1}, {"order": 99}, {"order": -1}, {"order": "3"}, {"order": True}, {"order": 1.0},
          {"is_seg": "no"}, {"order_z": 6}, {"force_separate_z": "x"}, {"separate_z_anisotropy_threshold": "3"},
          {"separate_z_anisotropy_threshold": 0}, {"mode": "linear"}, {1: 2})  # fmt: skip
ODD: dict[str, tuple[dict[str, Any], str]] = {
    **{f"no {key}": (configured(**{key: ...}), key) for key in GONE},
    **{f"{key} null": (configured(**{key: None}), key) for key in GONE if not key.startswith("resampling_fn")},
    **{f"{key} {value}": (configured(**{key: value}), "patch" if key == "patch_size" else key) for key, value in LISTS},
    **{f"kwargs {value}": (configured(resampling_fn_data_kwargs=value), "resampling_fn_data_kwargs")
       for value in KWARGS},
    "kwargs of a seg": (configured(resampling_fn_seg_kwargs={"order": 7}), "resampling_fn_seg_kwargs"),
    "kwargs of probabilities": (configured(resampling_fn_probabilities_kwargs=5), "resampling_fn_probabilities_kwargs"),
    "kwargs of another function": (configured(resampling_fn_data=TORCH), "resampling_fn_data_kwargs"),
    "a device": (configured(resampling_fn_data=TORCH, resampling_fn_data_kwargs={"device": "x"}), "device"),
    "threads": (configured(resampling_fn_data=TORCH, resampling_fn_data_kwargs={"num_threads": 10**9}), "num_threads"),
    **{f"no {key}": (told(**{key: ...}), "transpose") for key in ("transpose_forward", "transpose_backward")},
    "no turns": (told(transpose_forward=..., transpose_backward=...), "no transpose_forward"),
    **{f"statistics {value}": (told(**{FIP: value}), "statistics of channel 0")
       for value in (..., None, [1], "x", {}, {"1": {}}, {"0": "x"}, {"0": {"mean": 1}}, {"0": {"mean": 10**400}})},
    "a spacing of slices": (told(original_median_spacing_after_transp=[1, 1]), "original_median_spacing"),
}  # fmt: skip


@pytest.mark.parametrize(("plans", "word"), ODD.values(), ids=ODD)
def test_plans_of_another_form_are_refused_by_entry_and_file(plans: dict[str, Any], word: str, tmp_path: Path) -> None:
    described = {"labels": {"background": 0, "liver": 1}, "channel_names": {"0": "CT"}}
    (tmp_path / "plans.json").write_text(json.dumps(plans, default=str))
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    for read in (lambda: read_results_folder(tmp_path, NAME), lambda: plan_managers(plans, NAME, where="plans.json"),
                 lambda: check_kept({"plans": plans, "dataset_json": described, "configuration": NAME}, "plans.json"),
                 ):  # fmt: skip
        with pytest.raises(WeightError, match=word) as caught:
            read()
        assert "plans.json" in str(caught.value.where)


def test_a_channel_too_many_or_too_few_is_refused() -> None:
    two = tiny_plans(channels=2)
    check_plans(two, NAME, channels=2)
    for channels in (1, 3):
        with pytest.raises(WeightError, match=f"one for each of {channels} channels"):
            check_plans(two, NAME, channels=channels)


OLD = {"order_z": 0, "force_separate_z": None}
REAL: dict[str, Callable[[], dict[str, Any]]] = {
    "2.0": lambda: configured_old(),
    "2.0 by modality": lambda: _by_modality(configured_old()),
    "2.1 batch_dice": lambda: configured(batch_dice=True, next_stage="3d_cascade_fullres", previous_stage=None),
    "2.2 kwargs": lambda: configured(**{
        f"resampling_fn_{what}_kwargs": {"is_seg": what == "seg", "order": order, **OLD}
        for what, order in (("data", 3), ("seg", 1), ("probabilities", 1))}),
    "2.4 torch": lambda: configured(**{
        f"resampling_fn_{what}{end}": TORCH if not end else {
            "is_seg": what == "seg", "force_separate_z": False, "memefficient_seg_resampling": False}
        for what in ("data", "seg", "probabilities") for end in ("", "_kwargs")}),
    "2.6 torch apart": lambda: configured(resampling_fn_data=TORCH, resampling_fn_data_kwargs={
        "is_seg": False, "force_separate_z": None, "memefficient_seg_resampling": False,
        "separate_z_anisotropy_threshold": 3}),
    "residual encoder": lambda: tiny_plans(resenc=True),
    "no batch_dice": lambda: configured(batch_dice=...),
    "no label manager": lambda: told(label_manager=...),
    "inherits": lambda: _inheriting(),
    "slices": lambda: tiny_plans(spacing=(1.0, 1.0), strides=((1, 1), (2, 2))),
    "pictures": lambda: {**tiny_plans(spacing=(1.0, 1.0), strides=((1, 1), (2, 2)), reader="NaturalImage2DIO"),
                         "original_median_spacing_after_transp": [999.0, 1.0, 1.0]},
}  # fmt: skip


def configured_old() -> dict[str, Any]:
    return tiny_plans(old=True, norm="CTNormalization")


def _by_modality(plans: dict[str, Any]) -> dict[str, Any]:
    return {**plans, "foreground_intensity_properties_by_modality": plans.pop(FIP)}


def _inheriting() -> dict[str, Any]:
    plans = tiny_plans()
    plans["configurations"]["3d_lowres"] = {"inherits_from": NAME, "data_identifier": "nnUNetPlans_3d_lowres",
                                            "spacing": [2.5, 2.0, 2.0], "next_stage": "3d_cascade_fullres"}  # fmt: skip
    plans["configurations"] = {k: plans["configurations"][k] for k in ("3d_lowres", NAME)}
    return plans


@pytest.mark.parametrize("make", REAL.values(), ids=REAL)
def test_plans_of_every_version_are_read(make: Callable[[], dict[str, Any]]) -> None:
    plans = make()
    before = copy.deepcopy(plans)
    name = next(iter(plans["configurations"]))
    check_plans(plans, name, channels=1, where="plans.json")
    assert build_network(plans, name, in_channels=1, out_channels=2) and plans == before


@pytest.mark.parametrize("axes", [[0, 0], (1, 1, 1), [True], [3], [0, "0"]])
def test_a_checkpoint_mirrors_along_an_axis_once(nnunet_folder: Callable[..., Path], axes: Any) -> None:
    folder = nnunet_folder()
    file = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    torch.save({**content, "inference_allowed_mirroring_axes": axes}, file)
    with pytest.raises(WeightError, match="axes that there are not"):
        mirroring_axes(read_results_folder(folder))


def test_an_expert_that_ends_in_nnunets_code_is_refused_by_name(
    nnunet_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = nnunet_folder()
    spec = ExpertSpec(name="ct", kind="nnunet", path=str(folder), labels=LabelSpace(("liver", "spleen")),
                      channels=("T1",), role="external")  # fmt: skip
    monkeypatch.setattr("common.experts.sources.of_plans", lambda *_: {}["what nobody thought of"])
    with pytest.raises(AmalgamationError, match="nnU-Net cannot work") as caught:
        open_source(spec)
    assert str(folder) in str(caught.value.where) and "what nobody thought of" in str(caught.value.got)
