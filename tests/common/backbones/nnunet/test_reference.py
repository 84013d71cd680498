"""Our planning, preprocessing, loss and networks against nnU-Net's own run on the same files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged, Orientationd

from common.backbones.nnunet.data import NNUNetPreprocessd, NNUNetRestored
from common.backbones.nnunet.network import load_network, read_json, read_results_folder
from common.backbones.nnunet.plan import Plan, plan
from common.backbones.nnunet.window import NNUNetInferer
from common.experts.expert_set import describe_nnunet, load_experts

NAME = "Dataset901_tiny"


@pytest.fixture(scope="module")
def planned(trained_by_nnunet: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    out = tmp_path_factory.mktemp("plan")
    return plan(trained_by_nnunet / "raw" / NAME, out, base_features=4, max_features=8, name="tiny")


@pytest.fixture(scope="module")
def results(trained_by_nnunet: Path) -> Path:
    return trained_by_nnunet / "results" / NAME


def oriented(root: Path, case: str, with_label: bool = True) -> dict:
    files = {"image": str(root / "raw" / NAME / "imagesTr" / f"{case}_0000.nii.gz")}
    if with_label:
        files["label"] = str(root / "raw" / NAME / "labelsTr" / f"{case}.nii.gz")
    keys = list(files)
    chain = Compose([LoadImaged(keys, ensure_channel_first=True), Orientationd(keys, axcodes="RAS", labels=None)])
    return chain(files)


def test_fingerprint_and_plans_are_nnunets(trained_by_nnunet, planned):
    folder = trained_by_nnunet / "preprocessed" / NAME
    assert read_json(planned.folder / "dataset_fingerprint.json") == read_json(folder / "dataset_fingerprint.json")
    ours, theirs = dict(planned.plans), read_json(folder / "nnUNetPlans.json")
    for key in ("settings_sha256", "configuration", "dataset_name"):
        ours.pop(key, None), theirs.pop(key, None)
    assert ours == theirs
    assert theirs["transpose_forward"] != [0, 1, 2]


def test_preprocessed_arrays_are_nnunets(trained_by_nnunet, planned):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    folder = trained_by_nnunet / "preprocessed" / NAME / "nnUNetPlans_3d_fullres"
    ours = NNUNetPreprocessd(plan=planned, locations=True)(oriented(trained_by_nnunet, "a"))
    data, seg, _, properties = nnUNetDatasetBlosc2(str(folder), ["a"]).load_case("a")
    np.testing.assert_array_equal(ours["image"].numpy(), data[:])
    np.testing.assert_array_equal(ours["label"].numpy(), seg[:])
    for value, voxels in properties["class_locations"].items():
        np.testing.assert_array_equal(ours["class_locations"][value].numpy(), voxels)


def test_logits_of_a_network_that_nnunet_trained(trained_by_nnunet, results, nnunet_predictor):
    found = read_results_folder(results, fold="all")
    reference = nnunet_predictor(found.folder)
    x = torch.randn(1, 1, *reference.configuration_manager.patch_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference.network.eval()(x)
        assert torch.equal(load_network(found)(x), expected)


def test_expert_answers_as_the_predictor_does(trained_by_nnunet, results, nnunet_predictor, planned):
    """A case at the plans' spacing, whole volume as the crop: same arrays in, same logits out."""
    spec = describe_nnunet(results, name="tiny", task="tiny", fold="all")
    expert = load_experts([spec]).for_task("tiny")
    reference = nnunet_predictor(read_results_folder(results, fold="all").folder)
    raw = oriented(trained_by_nnunet, "a", with_label=False)["image"]
    body = raw[:, :23, :, :22].as_tensor()  # what nnU-Net's crop to non-zero keeps of the RAS volume
    assert bool((body != 0).all())
    stats = torch.tensor([[[body.mean(), body.std(correction=0), body.min(), body.max(), 0.0, 0.0,
                           body.mean(), body.std(correction=0), body.min(), body.max()]]])  # fmt: skip
    ours = expert.logits(body[None], stats, (1.5, 3.0, 1.0), "RAS")[0]
    done = NNUNetPreprocessd(plan=planned, label=None)({"image": raw})["image"].as_tensor()
    with torch.no_grad():
        divisor = expert.frame.divisor
        pad = [e for n, d in zip(reversed(done.shape[1:]), reversed(divisor), strict=True) for e in (0, -n % d)]
        theirs = reference.network.eval()(torch.nn.functional.pad(done, pad)[None])[0]
    theirs = theirs[:, : done.shape[1], : done.shape[2], : done.shape[3]].permute(0, 3, 1, 2)  # y, z, x to x, y, z
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


def test_prediction_of_a_case_is_the_predictors(trained_by_nnunet, results, planned, nnunet_predictor, tmp_path):
    found = read_results_folder(results, fold="all")
    reference = nnunet_predictor(found.folder)
    data = oriented(trained_by_nnunet, "b", with_label=False)
    done = NNUNetPreprocessd(plan=planned, label=None)(data)
    with torch.no_grad():
        logits = NNUNetInferer(plan=planned)(done["image"][None], load_network(found))[0]
    ours = NNUNetRestored(plan=planned)({**done, "pred": logits})["pred"]
    array = data["image"].numpy().transpose(0, 3, 2, 1)
    theirs = reference.predict_single_npy_array(array, {"spacing": [1.0, 3.0, 1.5]}, None, None, False)
    agreement = (ours[0].numpy() == theirs.transpose(2, 1, 0)).mean()
    assert ours.shape[1:] == data["image"].shape[1:]
    assert agreement > 0.999  # nnU-Net sums windows in half precision


def test_mirrored_average_is_nnunets(planned, nnunet_predictor, results):
    found = read_results_folder(results, fold="all")
    reference = nnunet_predictor(found.folder)
    reference.use_mirroring = True
    reference.allowed_mirroring_axes = (0, 1, 2)
    network = load_network(found)
    x = torch.randn(1, 1, *planned.patch_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = NNUNetInferer(plan=planned, mirror=True)(x, network)
        theirs = reference._internal_maybe_mirror_and_predict(x)
    torch.testing.assert_close(ours, theirs.clone(), atol=1e-4, rtol=1e-4)


def test_plan_is_read_back_and_made_again_for_other_settings(trained_by_nnunet, planned):
    stamp = (planned.folder / "plans.json").stat().st_mtime_ns
    again = plan(trained_by_nnunet / "raw" / NAME, planned.folder, base_features=4, max_features=8, name="tiny")
    assert again == planned
    assert (planned.folder / "plans.json").stat().st_mtime_ns == stamp
    content = json.loads((planned.folder / "plans.json").read_text())
    assert content["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"][0] == 4
