"""Packed bundles pass the zoo's checks and run far from the repository, with nothing but the packages they name."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.data.datasets.datalist import items
from common.errors import ConfigError
from common.experts.answers.beside import Kept, read_kept, write_kept
from tests.bundles import bare, tiny
from tests.common.experts.answers.easy import expert as easy_expert
from tests.dicom_folders import write_dicom
from tests.nnunet_students import two_modalities, write_student
from tools.bundle.checks import SCHEMA, check_bundle
from tools.bundle.closure import closure
from tools.bundle.libraries import check_libraries
from tools.bundle.pack import pack_bundle
from tools.bundle.vendor import texts_of
from tools.bundle.zip import unpack
from tools.bundle_files import read_json

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(p.parent.name for p in (ROOT / "bundles").glob("*/configs"))
ZOO = Path(__file__).with_name("zoo.py").read_text(encoding="utf-8")
CHECKS: dict[str, dict[str, Any]] = {
    "verify_bundle_directory": {},
    "verify_version_changes": {"released": ["some_v0.1.0"]},
    "verify_data_shape": {},
}


@pytest.fixture(scope="module")
def ka2er(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed student with weights, unpacked in another place than where it was packed."""
    return strange("ka2er", tmp_path_factory.mktemp("a stranger's"), seed=0)


def strange(bundle: str, folder: Path, **options: Any) -> Path:
    weights = tiny.write(bundle, folder / "weights" / f"{bundle}.pt", **options)
    return unpack(pack_bundle(bundle, folder / "packed", weights=weights).zip, folder / "elsewhere")


def zoo(folder: Path, checks: dict[str, dict[str, Any]]) -> str:
    schema = folder / "eval" / "schema.json"
    schema.parent.mkdir(exist_ok=True)
    shutil.copy(SCHEMA, schema)
    return bare.done(folder, "-c", ZOO, folder, json.dumps(checks)).stdout


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_name_every_package_that_the_code_imports(bundle: str) -> None:
    configs = ROOT / "bundles" / bundle / "configs"
    needed, meta = closure(texts_of(configs)), read_json(configs / "metadata.json")
    check_libraries(needed, meta)
    meta["required_packages_version"].pop("fire")
    with pytest.raises(ConfigError, match="fire"):
        check_libraries(needed, meta)


ABSENT = """
import importlib
for name in ("common", "tools", "mlflow", "onnx"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        print(name)
"""


@pytest.mark.slow
def test_the_environment_is_bare(ka2er: Path) -> None:
    assert bare.done(ka2er, "-c", ABSENT).stdout.split() == ["common", "tools", "mlflow", "onnx"]


@pytest.mark.slow
def test_the_student_passes_the_zoo(ka2er: Path, phantom_dir: Path) -> None:
    found = zoo(ka2er, CHECKS | {"loads": {}, "verify_torchscript": {},
                                 "check_workflow": {"kind": "inference", "dataset_dir": str(phantom_dir)}})  # fmt: skip
    assert found.count("passed") == len(CHECKS) + 3
    assert check_bundle(ka2er) == []


@pytest.mark.slow
def test_its_documents_command_segments_one_scan(ka2er: Path, tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(size=(20, 18, 10)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([-3.0, 3, 5, 1])), tmp_path / "scan.nii.gz")
    text = (ka2er / "docs" / "README.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if "--dataset::data" in line)
    words = [w.replace("scan.nii.gz", str(tmp_path / "scan.nii.gz")) for w in shlex.split(line)]
    assert words[:2] == ["python", "-m"]
    bare.done(ka2er, *words[2:], cwd=ka2er)
    found = nib.load(ka2er / "eval" / "predictions" / "scan.nii.gz")
    assert found.shape == voxels.shape and np.allclose(found.affine, np.diag([-3.0, 3, 5, 1]))


@pytest.mark.slow
def test_its_documents_command_compares_the_scan(ka2er: Path, tmp_path: Path) -> None:
    """The list replaces the data set and what is compared of it: reading has to."""
    voxels = np.random.default_rng(0).normal(300, 100, (20, 18, 10)).round().astype(int)
    write_dicom(tmp_path / "mr", voxels, change=lambda _, d: setattr(d, "Modality", "MR"))
    words = ("-m", "monai.bundle", "run", "--config_file", "configs/inference.json", "--dataset::data")
    item = f"[{{'image': '{tmp_path / 'mr'}', 'modality': 'CT'}}]"  # whatever the card says: both cannot be
    result = bare.run(ka2er, *words[1:], item, cwd=ka2er)
    assert result.returncode != 0 and "DICOM says that the scan is something else" in result.stderr


@pytest.mark.slow
def test_metadata_are_those_of_the_weights(ka2er: Path) -> None:
    meta = read_json(ka2er / "configs" / "metadata.json")
    data = meta["network_data_format"]
    assert data["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "liver", "2": "spleen", "3": "aorta"}
    assert data["outputs"]["pred"]["num_channels"] == 4
    assert data["inputs"]["image"]["spatial_shape"] == data["outputs"]["pred"]["spatial_shape"] == [64, 32, 32]
    defaults = read_json(ka2er / "configs" / "inference.json")["model"]["defaults"]
    assert defaults["structures"] == list(tiny.STRUCTURES) and defaults["network"]["feature_size"] == 12
    assert "no weights" not in meta["licenses"]["weights"]
    assert "no trained weights" not in (ka2er / "docs" / "data_license.txt").read_text()


@pytest.mark.slow
def test_no_findings(ka2er: Path) -> None:
    assert check_bundle(ka2er) == []


@pytest.mark.slow
def test_without_its_code_it_fails(ka2er: Path, tmp_path: Path) -> None:
    """What an installed repository would hide."""
    broken = shutil.copytree(ka2er, tmp_path / "ka2er")
    shutil.rmtree(broken / "ka2er_bundle")
    result = bare.run(broken, "-c", ZOO, broken, json.dumps({"verify_data_shape": {}}))
    assert result.returncode != 0 and "ka2er_bundle" in result.stderr


@pytest.mark.slow
def test_a_student_that_is_an_nnunet_is_packed(tmp_path: Path) -> None:
    weights = write_student(tmp_path / "model.pt", two_modalities())
    write_kept(weights, [Kept(easy_expert(tmp_path, "a", "liver", "spleen"), ("spleen",))])
    folder = pack_bundle("ka2er", tmp_path / "packed", weights=weights).folder
    (kept,) = read_kept(folder / "models" / "model.pt")
    assert kept.decides == ("spleen",) and kept.spec.path == str(tmp_path / "a.ts"), "who stays is said, too"
    meta = read_json(folder / "configs" / "metadata.json")["network_data_format"]
    assert meta["inputs"]["image"]["spatial_shape"] == [16, 16, 16] and meta["outputs"]["pred"]["num_channels"] == 4
    assert check_bundle(folder) == []
    bare.done(folder, "-c", ZOO, folder, json.dumps({"loads": {}, "verify_data_shape": {}}))


TWO = """
import json, sys
from pathlib import Path
import torch
from monai.bundle import load

folders = [Path(p) for p in sys.argv[1:]]
sys.path[:0] = map(str, folders)
networks = [load(f.name, bundle_dir=str(f.parent), workflow_type="inference", source="local", device="cpu")
            for f in folders * 2]
names = [type(n).__module__.split(".")[0] for n in networks]
assert names == [f"{f.name}_bundle" for f in folders] * 2, names
assert type(networks[0]) is type(networks[2])
for network, folder in zip(networks, folders * 2):
    state = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(network.state_dict()[k], v) for k, v in state.items())
assert "common" not in sys.modules
print("both")
"""


@pytest.mark.slow
def test_two_bundles_in_one_process(ka2er: Path, tmp_path: Path) -> None:
    other = strange("m4oe", tmp_path)
    assert "both" in bare.done([ka2er, other], "-c", TWO, ka2er, other).stdout.splitlines()


RECIPES: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "ka2er": ("phantom_dir", ("smoke", "alone"), {}),
    "ka2er_expert": ("phantom_dir", ("smoke",), {}),
    "m4oe_expert": ("phantom_dir", ("smoke",), {}),
    "m4oe": ("phantom_dir", ("smoke",), {}),
    "samora_expert": ("phantom_dir", ("smoke",), {}),
    "samora": ("phantom_dir", ("decoder_only", "smoke"), {}),
    "sam_med3d_moe_expert": ("phantom_dir", ("general", "tiny_general", "smoke"), {}),
    "sam_med3d_moe": ("phantom_dir", ("smoke",), {}),
    "ic_moe": ("phantom_2d_dir", ("smoke",), {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES)
def test_trains_and_predicts_anywhere_and_passes_the_zoo(
    bundle: str, tmp_path: Path, request: pytest.FixtureRequest, sam3d_files: Any
) -> None:
    """Packed without weights, trained in a bare environment, packed again with them, unpacked, checked and run."""
    fixture, overlays, options = RECIPES[bundle]
    data: Path = request.getfixturevalue(fixture)
    data = data / "phantom_ct" if bundle == "ka2er_expert" else data
    if bundle == "sam_med3d_moe":
        general = sam3d_files.general(boxes=False)
        options = {"general": general, "experts": sam3d_files.expert("tumour", "liver tumour", of=general).parent}
    folder = pack_bundle(bundle, tmp_path / "first").folder
    run(folder, ("train", *overlays), dataset_dir=data, max_epochs=1, **options)
    weights = folder / "models" / "model.pt"
    assert weights.is_file() and (folder / "eval").is_dir()

    again = unpack(pack_bundle(bundle, tmp_path / "second", weights=weights).zip, tmp_path / "third place")
    assert check_bundle(again) == []
    checks = CHECKS | {"check_workflow": {"kind": "inference", "dataset_dir": str(data)}}
    checks |= {} if bundle == "samora_expert" else {"loads": {}}  # its file holds the expert alone
    assert zoo(again, checks).count("passed") == len(checks)
    prompted = bundle.startswith("sam_med3d")  # somebody has to click: the evaluation does
    run(again, ("inference", "evaluate") if prompted else ("inference",), dataset_dir=data)
    written = [p for p in (again / "eval").rglob("*") if p.suffix in (".gz", ".png")]
    assert len(written) >= len(items(data, "test")) > 0


def run(folder: Path, configs: tuple[str, ...], **overrides: Any) -> None:
    files = "[" + ",".join(f"'{folder}/configs/{c}.json'" for c in configs) + "]"
    options = [str(w) for k, v in ({"bundle_root": folder} | overrides).items() for w in (f"--{k}", v)]
    bare.done(folder, "monai.bundle", "run", "--config_file", files, *options)
