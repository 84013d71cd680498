"""An nnU-Net student in nnU-Net's hands: its predictor and our bundle give one label map."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.backbones.nnunet import streamed, window
from common.backbones.nnunet.network import load_network, plan_managers, read_results_folder
from common.card import save_weights
from common.engine.run.settings import model_card
from common.errors import WeightError
from common.labels import LabelSpace
from common.literals import same_on_disk
from common.methods.ka2er.results import NEVER, Results, export_run, export_student
from common.weights import read_state_dict
from tests.common.experts.answers.nnunets import scan
from tests.nnunet_students import STRUCTURES, two_modalities, write_student
from tools.export.command import export
from tools.predict.command import segment


def written(image: MetaTensor, path: Path) -> Path:
    nib.save(nib.Nifti1Image(image.numpy()[0], image.affine.numpy()), path)
    return path


def typed(words: Sequence[str]) -> None:
    """Run nnU-Net's own command with these words, by the function that its console script calls."""
    from nnunetv2.inference import predict_from_raw_data as nnunet

    entries = {"nnUNetv2_predict": nnunet.predict_entry_point,
               "nnUNetv2_predict_from_modelfolder": nnunet.predict_entry_point_modelfolder}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()):
        patch.setattr("sys.argv", list(words))
        patch.setattr("multiprocessing.cpu_count", torch.get_num_threads)  # it would take all cores
        entries[words[0]]()


def scans_of(file: Path, folder: Path) -> Path:
    """A folder of one scan as nnU-Net wants it."""
    folder.mkdir(parents=True)
    shutil.copyfile(file, folder / "scan_0000.nii.gz")
    return folder


def nnunets(folder: Path, file: Path, out: Path, *more: str, mirror: bool) -> np.ndarray:
    """The label map that ``nnUNetv2_predict`` writes."""
    trainer, plans, configuration = folder.name.split("__")
    words = ["nnUNetv2_predict", "-i", str(scans_of(file, out / "in")), "-o", str(out / "out"), "-d",
             folder.parent.name, "-tr", trainer, "-p", plans, "-c", configuration, "-f", "0", "-device", "cpu",
             "-npp", "0", "-nps", "0", *([] if mirror else ["--disable_tta"]), *more]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_results", str(folder.parent.parent))
        typed(words)
    return np.asarray(nib.load(out / "out" / "scan.nii.gz").dataobj)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Sequence[Results]]:
    """A student of CT and MR with turned axes, a scan that lies otherwise, and its results folders."""
    root = tmp_path_factory.mktemp("student")
    image = scan("PIR", spacing=(1.5, 1.0, 2.0))
    plan = two_modalities(transpose=(1, 0, 2), spacing=(1.2, 1.4, 1.1))
    model = write_student(root / "model.pt", plan, image)
    return model, written(image, root / "scan.nii.gz"), export_student(model, root / "nnunet")


@pytest.mark.parametrize(("number", "mirror"), [(0, False), (1, True)])
def test_one_label_map(both: tuple[Path, Path, Sequence[Results]], tmp_path: Path, number: int, mirror: bool) -> None:
    model, file, found = both
    theirs = nnunets(found[number].folder, file, tmp_path / "theirs", mirror=mirror)
    options = {"modality": found[number].modalities[0], "mirror": mirror}
    ours = segment("ka2er", file, tmp_path / "ours", weights=model, overrides=options)["scan"]
    assert np.array_equal(np.asarray(nib.load(ours).dataobj), theirs)
    left = STRUCTURES.index(found[number].untaught[0]) + 1
    assert {0, 1} < {*np.unique(theirs)} and left not in theirs


def test_a_scan_that_is_not_resampled_is_decided_in_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = scan("RAS", spacing=(1.5, 1.0, 2.0))
    model = write_student(tmp_path / "model.pt", two_modalities(spacing=(2.0, 1.0, 1.5)), image)
    file, (one, _) = written(image, tmp_path / "scan.nii.gz"), export_student(model, tmp_path / "nnunet")
    called: list[list[bool]] = []

    def decided(predictor: Any, image: torch.Tensor, competing: torch.Tensor) -> torch.Tensor:
        called.append(competing.tolist())
        return streamed.decided(predictor, image, competing)

    monkeypatch.setattr(window, "decided", decided)
    theirs = nnunets(one.folder, file, tmp_path / "theirs", mirror=False)
    options = {"modality": one.modalities[0]}
    ours = segment("ka2er", file, tmp_path / "ours", weights=model, overrides=options)["scan"]
    assert np.array_equal(np.asarray(nib.load(ours).dataobj), theirs) and {0, 1} < {*np.unique(theirs)}
    assert called == [[True, *(s not in one.untaught for s in STRUCTURES)]]


def test_the_step_of_the_experts_is_told_and_taken(tmp_path: Path) -> None:
    image = scan("RAS", spacing=(1.5, 1.0, 2.0))
    image = MetaTensor(torch.cat([image.as_tensor()] * 2, 1), affine=image.affine)  # more tiles at half a step
    plan = two_modalities(spacing=(2.0, 1.0, 1.5))
    model = write_student(tmp_path / "model.pt", plan, image, overlap=0.2, overlap_from=["organs"])
    file, (one, _) = written(image, tmp_path / "scan.nii.gz"), export_student(model, tmp_path / "nnunet")
    assert one.command == f"nnUNetv2_predict_from_modelfolder -i SCANS -o OUT -m {one.folder} -f 0 -step_size 0.8"
    readme = (tmp_path / "nnunet" / "README.md").read_text()
    place = one.folder.relative_to(tmp_path / "nnunet")
    assert f"    nnUNetv2_predict_from_modelfolder -i SCANS -o OUT -m {place} -f 0 -step_size 0.8\n" in readme
    assert "for CT; without aorta, never taught there:" in readme
    step = one.command.split()[-2:]
    theirs = nnunets(one.folder, file, tmp_path / "theirs", *step, mirror=False)
    options = {"modality": one.modalities[0]}
    ours, half = (segment("ka2er", file, tmp_path / n, weights=model, overrides={**options, **more})["scan"]
                  for n, more in (("ours", {}), ("half", {"overlap": 0.5})))  # fmt: skip
    assert np.array_equal(np.asarray(nib.load(ours).dataobj), theirs)
    assert not np.array_equal(np.asarray(nib.load(half).dataobj), theirs), "it is told apart"


@pytest.mark.slow
@pytest.mark.selected
def test_the_line_that_an_export_tells(both: tuple[Path, Path, Sequence[Results]], tmp_path: Path) -> None:
    """nnU-Net's processes of their own, all that it prepares and writes in parallel included."""
    model, file, _ = both
    told = export("ka2er", format="nnunet", weights=str(model), out=str(tmp_path / "a folder")).splitlines()
    places = {"SCANS": str(scans_of(file, tmp_path / "in")), "OUT": str(tmp_path / "out")}
    words = [places.get(w, w) for w in shlex.split(told[1])]
    typed([*words, "-device", "cpu", "--disable_tta", "-npp", "1", "-nps", "1"])
    ours = segment("ka2er", file, tmp_path / "ours", weights=model, overrides={"modality": "CT"})["scan"]
    assert np.array_equal(*(np.asarray(nib.load(f).dataobj) for f in (ours, tmp_path / "out" / "scan.nii.gz")))


def test_a_folder_for_each_modality(both: tuple[Path, Path, Sequence[Results]]) -> None:
    model, _, found = both
    assert [(f.modalities, f.untaught, f.orientation) for f in found] == [
        (("CT",), ("aorta",), None), (("MR",), ("spleen",), None)]  # fmt: skip
    names = [f.folder.name for f in found]
    assert names == ["nnUNetTrainer__nnUNetPlans__3d_fullres", "nnUNetTrainer__nnUNetPlans__3d_fullres_mr"]
    plans = {(f.folder / "plans.json").read_text() for f in found}
    assert len(plans) == 1 and not {"by_modality", "turned", "settings_sha256"} & json.loads(plans.pop()).keys()
    state, _ = read_state_dict(model)
    for results, row in zip(found, (3, 2), strict=True):
        own = read_results_folder(results.folder)
        assert json.loads((results.folder / "dataset.json").read_text())["channel_names"] == {
            "0": results.modalities[0]
        }
        for key, value in own.weights.items():
            expected = state[key].clone()
            if "seg_layers" in key and key.endswith("bias"):
                expected[row] = NEVER
            assert torch.equal(value, expected)
        load_network(own)
        checkpoint = torch.load(own.checkpoint, weights_only=True)
        assert (checkpoint["trainer_name"], checkpoint["inference_allowed_mirroring_axes"]) == ("nnUNetTrainer", (0, 2))


def test_a_card_of_one_configuration_that_was_taught_differently(tmp_path: Path) -> None:
    plan = two_modalities()
    model = write_student(tmp_path / "model.pt", plan, by_modality={"CT": "3d_fullres", "MR": "3d_fullres"})
    found = export_run(ckpt_dir=tmp_path, output_dir=tmp_path / "run")
    assert [f.folder.name.rpartition("__")[2] for f in found] == ["3d_fullres", "3d_fullres_mr1"]
    assert {f.folder.parent.parent for f in found} == {tmp_path / "run" / "nnunet"} and model.is_file()


def test_an_orientation_that_nnunet_does_not_turn_to_is_said(tmp_path: Path) -> None:
    plan = two_modalities(reader="NibabelIO")
    write_student(tmp_path / "model.pt", plan, turned="LPS")
    assert {f.orientation for f in export_student(tmp_path / "model.pt", tmp_path / "out", name="x")} == {"LPS"}
    line = export("ka2er", format="nnunet", weights=str(tmp_path / "model.pt"), out=str(tmp_path / "cli"))
    assert "for CT; without aorta" in line and "must lie LPS" in line and "nnUNetv2_predict_from_modelfolder" in line
    assert "-step_size" not in line, "nnU-Net's own"


def test_a_swin_unetr_is_no_nnunet(tmp_path: Path) -> None:
    labels = LabelSpace(STRUCTURES)
    save_weights(tmp_path / "a.pt", {"w": torch.zeros(1)}, model_card("ka2er", labels, ["CT"], {"spacing": [1, 1, 1]}))
    save_weights(tmp_path / "b.pt", {"w": torch.zeros(1)})
    for name, told in (("a", "a Swin UNETR student"), ("b", "without a card")):
        with pytest.raises(WeightError, match=told):
            export_student(tmp_path / f"{name}.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_configurations_that_a_disk_takes_for_one_get_folders_of_their_own(tmp_path: Path) -> None:
    plan = two_modalities()
    plan.plans["configurations"]["3D_FULLRES"] = plan.plans["configurations"].pop("3d_fullres_mr")
    twins = replace(plan, by_modality={"CT": "3d_fullres", "MR": "3D_FULLRES"})
    found = export_student(write_student(tmp_path / "model.pt", twins), tmp_path / "out")
    names = [one.folder.name for one in found]
    assert len(names) == 2 and not same_on_disk(names)
    own = json.loads((found[1].folder / "plans.json").read_text())["configurations"]
    assert own[names[1].split("__")[2]] == {"inherits_from": "3D_FULLRES"}
    (results,) = [read_results_folder(one.folder) for one in found[1:]]
    manager = plan_managers(results.plans, results.configuration)[1]
    assert manager.normalization_schemes == ["ZScoreNormalization"]
