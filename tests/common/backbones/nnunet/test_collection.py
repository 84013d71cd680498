"""One plan for CT and MR: each is normalised in its own way, by nnU-Net's rules and from its own scans."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.backbones.nnunet.collection import Start, plan_collection
from common.backbones.nnunet.network import plan_managers, read_results_folder
from common.backbones.nnunet.plan import Plan, plan, plan_of_settings, read_plan
from common.data.datasets.datalist import label_space
from common.data.io import read_volume
from common.errors import ConfigError, DataError
from tests.nnunet_folders import write_folder

KNOBS: dict[str, Any] = {"base_features": 4, "max_features": 8}
STATISTICS = "foreground_intensity_properties_per_channel"


@pytest.fixture(scope="module")
def planned(phantom_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    out = tmp_path_factory.mktemp("planned")
    return plan_collection(phantom_dir, out, patch_size=(16, 16, 8), spacing=(6, 6, 8), **KNOBS)


def schemes(found: Plan, modality: str) -> list[str]:
    names: list[str] = plan_managers(found.plans, found.configuration_for(modality))[1].normalization_schemes
    return names


def test_a_network_for_all_and_a_configuration_for_each_way_of_normalising(planned: Plan, phantom_dir: Path) -> None:
    assert planned.labels.names == label_space(phantom_dir).names
    assert list(planned.by_modality) == ["CT", "LGE MR", "T2 MR"]
    assert schemes(planned, "CT") == ["CTNormalization"] and schemes(planned, "T2 MR") == ["ZScoreNormalization"]
    own = {n: plan_managers(planned.plans, n)[1] for n in planned.by_modality.values()}
    assert len(own) == 2 and planned.configuration == planned.by_modality["CT"] == "3d_fullres"
    one, other = (config.configuration for config in own.values())
    differ = {k for k in one if one[k] != other[k]}
    assert differ == {"normalization_schemes", "data_identifier"}
    assert list(planned.plans["configurations"]) == list(own)
    assert planned.spacing == (6, 6, 8) and planned.orientation == "RAS" and planned.turned is None


def test_ct_statistics_are_those_of_ct_scans(planned: Plan, phantom_dir: Path, tmp_path: Path) -> None:
    alone = plan(phantom_dir / "phantom_ct", tmp_path, **KNOBS)
    found, expected = (p.plans[STATISTICS]["0"] for p in (planned, alone))
    assert found == pytest.approx(expected)
    assert expected["mean"] > 10


def test_it_is_read_back_and_travels(planned: Plan, phantom_dir: Path, tmp_path: Path, monkeypatch: Any) -> None:
    again = read_plan(planned.folder)
    assert again == planned and plan_of_settings(json.loads(json.dumps(planned.settings)), planned.folder) == planned
    monkeypatch.setattr("common.backbones.nnunet.collection._plans", None)  # nothing is planned twice
    assert plan_collection(phantom_dir, planned.folder, patch_size=(16, 16, 8), spacing=(6, 6, 8), **KNOBS) == planned
    with pytest.raises(TypeError):
        plan_collection(phantom_dir, planned.folder, patch_size=(16, 16, 16), spacing=(6, 6, 8), **KNOBS)


def test_a_ct_experts_plans_are_taken_over(phantom_dir: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, norm="CTNormalization", channel_names=("CT",), spacing=(7.0, 6.0, 5.0))
    results = read_results_folder(folder)
    found = plan_collection(phantom_dir, tmp_path / "p", start=Start(results), **KNOBS)
    assert schemes(found, "CT") == ["CTNormalization"] and schemes(found, "LGE MR") == ["ZScoreNormalization"]
    assert found.by_modality["CT"] == "3d_fullres"
    assert found.plans[STATISTICS] == results.plans[STATISTICS]
    assert found.plans["configurations"]["3d_fullres"] == results.plans["configurations"]["3d_fullres"]
    assert found.labels.names == label_space(phantom_dir).names and found.spacing == (5, 6, 7)


def test_an_mr_expert_learns_ct_statistics(phantom_dir: Path, tmp_path: Path, planned: Plan) -> None:
    start = Start(read_results_folder(write_folder(tmp_path, reader="NibabelIO")), "LPS")
    found = plan_collection(phantom_dir, tmp_path / "p", start=start)
    assert schemes(found, "CT") == ["CTNormalization"] and found.by_modality["T2 MR"] == "3d_fullres"
    assert found.plans[STATISTICS]["0"] == pytest.approx(planned.plans[STATISTICS]["0"], rel=0.01)  # drawn in its order
    assert (found.orientation, found.axcodes) == ("LPS", "SPL") and read_plan(tmp_path / "p") == found


@pytest.fixture
def unlabelled(phantom_dir: Path, tmp_path: Path) -> Path:
    """The CT scans without label maps of their own."""
    folder = Path(shutil.copytree(phantom_dir / "phantom_ct", tmp_path / "ct"))
    listed = json.loads((folder / "dataset.json").read_text())
    listed["unlabelled"] = [e["image"] for e in listed["training"]]
    listed["training"] = []
    (folder / "dataset.json").write_text(json.dumps(listed))
    return folder


def test_scans_without_labels_need_somebody_who_knows_structures(unlabelled: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"splits": ("unlabelled",), **KNOBS}
    with pytest.raises(ConfigError, match=r"(?s)which voxels of the CT scans.*start from a CT expert"):
        plan_collection(unlabelled, tmp_path / "p", **options)
    with pytest.raises(DataError, match="no scan to plan for"):
        plan_collection(unlabelled, tmp_path / "p", **KNOBS)

    def bright(case: Any) -> Any:
        image = read_volume(case.images, dim=3)
        return image > 100

    found = plan_collection(unlabelled, tmp_path / "p", foreground=bright, **options)
    told = found.plans[STATISTICS]["0"]
    assert told["min"] > 100
    files = [unlabelled / e for e in json.loads((unlabelled / "dataset.json").read_text())["unlabelled"]]
    voxels = [np.asarray(nib.load(f).dataobj) for f in files]
    assert told["max"] == pytest.approx(max(v.max() for v in voxels), rel=0.05)
    assert found.dataset_json["numTraining"] == len(files)


def test_what_cannot_be_planned(phantom_dir: Path, phantom_2d_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pictures"):
        plan_collection(phantom_2d_dir / "phantom_2d_skin", tmp_path)
    two = write_folder(tmp_path, "two", channel_names=("T1", "T2"))
    flat = write_folder(tmp_path, "flat", spacing=(1.0, 1.0), strides=((1, 1), (2, 2)))
    for folder, message in ((two, "reads other channels"), (flat, "in one stage")):
        with pytest.raises(ConfigError, match=message):
            plan_collection(phantom_dir, tmp_path / "p", start=Start(read_results_folder(folder)))
