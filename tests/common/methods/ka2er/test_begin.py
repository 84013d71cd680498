"""Where a student that is an nnU-Net begins."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.backbones.nnunet.network import build_network, describe_results, read_results_folder
from common.backbones.nnunet.widen import take_over
from common.errors import ExpertError, WeightError
from common.experts.describe import describe_expert
from common.experts.expert_set import hash_expert
from common.experts.spec import ExpertSpec, write_manifest
from common.labels import LabelSpace
from common.methods.ka2er.begin import begun_from, nnunet_student, student_plan
from tests.nnunet_folders import write_folder


def described(folder: Path, **more: object) -> ExpertSpec:
    told = {**describe_results(read_results_folder(folder)), **more}
    spec = ExpertSpec(name="e", kind="nnunet", path=str(folder), task="t", **told)
    return replace(spec, sha256=hash_expert(spec))


def test_from_a_folder_or_a_description(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, fold="all")
    start = begun_from(folder.parent)
    assert start.results.fold == "all" and start.orientation is None
    own = write_folder(tmp_path / "own", reader="SimpleITKIO")
    file = write_manifest(tmp_path / "experts.json", [described(own, orientation="LPS")])
    assert begun_from(file).orientation == "LPS" and begun_from(file).results.folder == own
    with pytest.raises(ExpertError, match=r"(?s)how this nnU-Net's training scans lay.*--orientation LPS"):
        begun_from(own)


def test_structures_are_found_by_what_the_description_calls_them(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, labels={"background": 0, "Leber": 1, "spleen": 2})
    spec = describe_expert(folder, name="e", role="external", orientation="RAS", renamed={"Leber": "liver"})
    found = begun_from(write_manifest(tmp_path / "experts.json", [spec])).results
    assert found.dataset_json["labels"] == {"background": 0, "liver": 1, "spleen": 2}
    labels = LabelSpace(("spleen", "liver"))
    network = build_network(found.plans, found.configuration, in_channels=1, out_channels=3)
    take_over(network, found, labels)
    last = next(k for k in found.weights if k.endswith("seg_layers.0.weight"))
    assert torch.equal(network.state_dict()[last], found.weights[last][[0, 2, 1]]), "no row begins fresh"


def test_what_is_no_beginning(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    spec = described(folder)
    file = write_manifest(tmp_path / "experts.json", [spec, replace(spec, name="f", task="u")])
    with pytest.raises(ExpertError, match="one nnU-Net"):
        begun_from(file)
    write_manifest(file, [spec])
    (folder / "dataset.json").write_text(json.dumps(json.loads((folder / "dataset.json").read_text()) | {"name": "x"}))
    with pytest.raises(ExpertError, match="changed since"):
        begun_from(file)
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(WeightError, match="not one nnU-Net results folder"):
        begun_from(empty)
    with pytest.raises(ExpertError, match="cannot read"):
        begun_from(tmp_path / "nothing.json")


def test_it_answers_in_training_at_every_stage(phantom_dir: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, norm="CTNormalization", channel_names=("CT",))
    plan = student_plan(dataset_dir=phantom_dir / "phantom_ct", output_dir=tmp_path / "p", start_from=folder)
    student, image = nnunet_student(plan=plan, start_from=folder), torch.zeros(1, 1, 16, 16, 16)
    stages = student.train()(image)
    assert [tuple(s.shape[1:]) for s in stages] == [(plan.out_channels, 16, 16, 16), (plan.out_channels, 8, 8, 8)]
    again = student(image, label=image, annotated=image)
    assert all(torch.equal(a, b) for a, b in zip(again, stages, strict=True))
    with pytest.raises(TypeError, match="boxes"):
        student(image, boxes=image)
    assert student.eval()(image).shape == stages[0].shape
    kept = read_results_folder(folder).weights
    state = student.state_dict()
    assert state.keys() == kept.keys()
    assert all(torch.equal(state[k], v) for k, v in kept.items() if "seg_layers" not in k)
    assert not all(torch.equal(v, state[k]) for k, v in nnunet_student(plan=plan).state_dict().items())
