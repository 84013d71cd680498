"""Plans of our datasets: knobs, read-back, readers and refusals."""

import json
import os
import re
import shutil

import pytest

from common.backbones.nnunet.fingerprint import to_nnunet
from common.backbones.nnunet.plan import for_planner, plan, plan_of_model, read_plan
from common.backbones.nnunet.planner import nnunet_name
from common.card import ModelCard, save_weights
from common.errors import AmalgamationError, ConfigError, DataError, WeightError

np = pytest.importorskip("numpy")
KNOBS = {"base_features": 4, "max_features": 8}


@pytest.fixture(scope="module")
def planned(phantom_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("planned")
    return plan(phantom_dir / "phantom_ct", out, patch_size=(16, 16, 8), batch_size=3, spacing=(6, 6, 8), **KNOBS)


def config(found):
    return found.plans["configurations"][found.configuration]


def test_knobs_reach_the_plan(planned, phantom_dir):
    content = config(planned)
    assert content["batch_size"] == planned.batch_size == 3
    features = content["architecture"]["arch_kwargs"]["features_per_stage"]
    assert features[0] == 4 and max(features) <= 8
    order = [(2, 1, 0)[i] for i in planned.plans["transpose_forward"]]
    assert content["spacing"] == [(6, 6, 8)[a] for a in order]
    assert all(n <= 16 for n in planned.patch_size)
    listed = json.loads((phantom_dir / "phantom_ct" / "dataset.json").read_text())
    names = tuple(n for n in listed["labels"] if n != "background")
    assert (planned.labels.names, planned.channels, planned.out_channels) == (names, ("CT",), len(names) + 1)
    assert planned.orientation == "RAS"
    assert content["normalization_schemes"] == ["CTNormalization"]


def test_the_environment_is_left_alone(planned, phantom_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", "mine")
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    plan(phantom_dir / "phantom_mr", tmp_path, **KNOBS)
    assert os.environ["nnUNet_raw"] == "mine" and "nnUNet_preprocessed" not in os.environ


def test_other_settings_or_data_plan_again(phantom_dir, tmp_path):
    folder = tmp_path / "ct"
    shutil.copytree(phantom_dir / "phantom_ct", folder)
    first = plan(folder, tmp_path / "p", **KNOBS)
    second = plan(folder, tmp_path / "p", base_features=6, max_features=8)
    assert first.plans["settings_sha256"] != second.plans["settings_sha256"]
    assert config(second)["architecture"]["arch_kwargs"]["features_per_stage"][0] == 6


def test_native_orientation_is_recorded(phantom_dir, tmp_path):
    found = plan(phantom_dir / "phantom_mr", tmp_path, orientation=None, **KNOBS)
    assert found.orientation is None and found.plans["image_reader_writer"] == "NibabelIO"


def test_residual_encoder_planner(phantom_dir, tmp_path):
    found = plan(phantom_dir / "phantom_ct", tmp_path, planner="nnUNetPlannerResEncM", memory_gb=1, **KNOBS)
    assert config(found)["architecture"]["network_class_name"].endswith("ResidualEncoderUNet")


def test_pictures_get_a_2d_plan(phantom_2d_dir, tmp_path):
    found = plan(phantom_2d_dir / "phantom_2d_skin", tmp_path, configuration="2d", memory_gb=0.5, **KNOBS)
    assert len(found.patch_size) == 2 and len(found.channels) == 3
    assert found.dataset_json["overwrite_image_reader_writer"] == "NaturalImage2DIO"


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"planner": "NoPlanner"}, "no planner of this name"),
        ({"orientation": "LPS"}, "orientations"),
        ({"configuration": "3d_lowres"}, "plans no 3d_lowres"),
        ({"patch_size": (8, 8)}, "one entry per axis"),
    ],
)
def test_impossible_settings(phantom_dir, tmp_path, knobs, message):
    with pytest.raises(ConfigError, match=message):
        plan(phantom_dir / "phantom_ct", tmp_path, **{**KNOBS, **knobs})


def test_a_collection_is_no_dataset(phantom_dir, tmp_path):
    first = min(p.parent for p in phantom_dir.glob("*/dataset.json"))
    with pytest.raises(ConfigError, match=rf"(?s)one dataset.*--dataset_dir {re.escape(str(first))}$"):
        plan(phantom_dir, tmp_path)
    with pytest.raises(AmalgamationError):
        plan(tmp_path / "nothing", tmp_path)


def test_empty_labels_are_refused(phantom_dir, tmp_path):
    import nibabel as nib

    folder = tmp_path / "ct"
    shutil.copytree(phantom_dir / "phantom_ct", folder)
    for file in (folder / "labelsTr").iterdir():
        image = nib.load(file)
        nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), file)
    with pytest.raises(DataError, match="no training case has a labelled voxel"):
        plan(folder, tmp_path / "p", **KNOBS)


def test_plan_travels_with_the_model(planned, tmp_path):
    import torch

    assert plan_of_model(tmp_path / "model.pt", planned.folder) == read_plan(planned.folder)
    inside = plan_of_model(tmp_path / "model.pt", planned.settings)
    assert inside.settings == planned.settings and inside.patch_size == planned.patch_size
    card = ModelCard(planned.labels, planned.channels, extra={"settings": planned.settings})
    save_weights(tmp_path / "model.pt", {"w": torch.zeros(1)}, card)
    found = plan_of_model(tmp_path / "model.pt", tmp_path / "nothing")
    assert (found.plans, found.configuration) == (planned.plans, planned.configuration)
    empty = [ModelCard(planned.labels, extra={"settings": said}) for said in (None, {}, {"plans": None})]
    for silent in (None, *empty):
        save_weights(tmp_path / "model.pt", {"w": torch.zeros(1)}, silent)
        with pytest.raises(WeightError, match=r"plans\.json"):
            plan_of_model(tmp_path / "model.pt", planned.folder)


def test_names_are_nnunets():
    assert nnunet_name("phantom ct/1") == nnunet_name("phantom ct/1")
    number, rest = nnunet_name("phantom ct/1").removeprefix("Dataset").split("_", 1)
    assert 500 <= int(number) <= 999 and rest == "phantom_ct_1"


def test_axes_and_spacing_are_turned_round():
    volume = np.arange(24).reshape(1, 2, 3, 4)
    array, spacing = to_nnunet(volume, [1.0, 2.0, 3.0])
    assert array.shape == (1, 4, 3, 2) and spacing == [3.0, 2.0, 1.0]
    assert array[0, 3, 2, 1] == volume[0, 1, 2, 3]
    picture, spacing = to_nnunet(volume[:, :, :, 0], [1.0, 2.0])
    assert picture.shape == (1, 1, 3, 2) and spacing == [999.0, 2.0, 1.0]


def test_synonyms_of_ct_are_normalised_as_ct(phantom_dir, tmp_path):
    folder = tmp_path / "cta"
    shutil.copytree(phantom_dir / "phantom_ct", folder)
    content = json.loads((folder / "dataset.json").read_text())
    content |= {"modality": {"0": "CTA"}, "channel_names": {"0": "CTA"}}
    (folder / "dataset.json").write_text(json.dumps(content))
    found = plan(folder, tmp_path / "out", **KNOBS)
    assert found.plans["configurations"]["3d_fullres"]["normalization_schemes"] == ["CTNormalization"]
    assert found.dataset_json["channel_names"] == {"0": "CTA"}


def test_ct1_beside_other_weightings_is_normalised_as_mr():
    given = ["T1", "CT1", "T2", "FLAIR"]
    assert for_planner(given, 3) == {"channel_names": {str(i): c for i, c in enumerate(given)}}
    assert for_planner(["CT1", "PET"], 3) == {"channel_names": {"0": "CT", "1": "PET"}}
