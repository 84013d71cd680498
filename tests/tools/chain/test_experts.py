"""Experts that are given take the place of trainings, and are refused before anything is trained if they do not fit."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import torch

from common.card import ModelCard, save_weights
from common.data.datasets.datalist import read_collection
from common.errors import AmalgamationError, ConfigError, DataError, ExpertError, WeightError
from common.experts.spec import read_manifest
from common.labels import LabelSpace
from tests.monai_words import told_by
from tools.chain.command import Chain, _given
from tools.chain.plan import plan
from tools.chain.record import write_manifest
from tools.chain.step import ChainSettings, fingerprint
from tools.experts.command import Experts

ROOT = Path(__file__).parents[3]
STRUCTURES = {"background": 0, "liver": 1, "spleen": 2}


@pytest.fixture
def settings(collection: Path, tmp_path: Path) -> ChainSettings:
    return ChainSettings("ka2er", collection, tmp_path / "out", preset="smoke", bundles=ROOT / "bundles")


@pytest.fixture
def described(nnunet_folder, tmp_path):
    """``described(labels, channels, **options)`` writes and describes an nnU-Net, task b's unless told otherwise."""
    number = itertools.count()

    def describe(labels=None, channels=("CT",), **options):
        out = tmp_path / f"expert{next(number)}.json"
        folder = nnunet_folder(out.stem, labels=labels or STRUCTURES, channel_names=channels)
        Experts().describe(str(folder), str(out), **({"task": "b"} | options))
        return out

    return describe


def _with(settings, out):
    return dataclasses.replace(settings, given=(("b", out),))


def _words(step):
    return told_by(step.argv)


def test_a_chain_trains_the_other_experts_only(settings, described, tmp_path):
    out = described()
    given = _with(settings, out)
    steps = {s.id: s for s in plan(given)}
    assert "expert:a" in steps and "expert:b" not in steps
    manifest = steps["manifest"]
    assert out in manifest.inputs and manifest.needs == ("check:b", "expert:a")
    given.output_dir.mkdir()
    write_manifest(dataclasses.replace(manifest, inputs=(out,)))
    (spec,) = read_manifest(given.output_dir / "experts.json")
    assert spec == dataclasses.replace(read_manifest(out)[0], path=spec.path)
    assert spec.path == read_manifest(out)[0].path


def test_an_expert_of_another_task_is_refused(settings, described, tmp_path):
    out = described()
    for task, message in (
        ("c", r"(?s)that the collection does not have.*c.*a, b.*tools data list.*--task <name>.*--name <name>"),
        ("a", r"(?s)not the description.*b.*a.*expert0\.json --task a --overwrite True"),
    ):
        with pytest.raises(ConfigError, match=message):
            plan(dataclasses.replace(settings, given=((task, out),)))
    with pytest.raises(ConfigError, match=r"(?s)a given result is no file.*experts describe .* a\.json --task a"):
        _given(f"a={tmp_path}")
    out.write_text(json.dumps({"format": 7}))
    with pytest.raises(AmalgamationError, match="unknown format"):
        plan(_with(settings, out))


def test_an_expert_that_does_not_fit_the_data_is_refused_before_anything_is_trained(settings, described):
    with pytest.raises(ExpertError, match=r"(?s)does not read the channels.*T1.*CT.*'b'"):
        plan(_with(settings, described(channels=("T1",))))
    renamed = {"background": 0, "Liver": 1, "spleen": 2}
    with pytest.raises(ExpertError, match=r"(?s)does not know.*got: +Liver.*did you mean the data's 'liver'"):
        plan(_with(settings, described(renamed)))


def test_an_expert_that_changed_since_it_was_described_is_refused_as_early(settings, described):
    task, general = described(), described(task="", external=True)
    chains = {task: _with(settings, task), general: dataclasses.replace(settings, external=general)}
    for out, chain in chains.items():
        plan(chain)
        (spec,) = read_manifest(out)
        (checkpoint,) = Path(spec.path).rglob("checkpoint_final.pth")
        content = checkpoint.read_bytes()
        checkpoint.write_bytes(content + b"x")
        again = rf"experts describe {spec.path} {out} --{'task b' if out == task else 'external True'} --overwrite True"
        with pytest.raises(ExpertError, match=rf"(?s)files changed since they were recorded.*sha256.*{again}"):
            plan(chain)
        checkpoint.unlink()
        with pytest.raises(ExpertError, match="checkpoint"):
            plan(chain)
        checkpoint.write_bytes(content)
        plan(chain)


def test_a_given_result_that_is_damaged_is_refused_as_early(collection, tmp_path):
    file = save_weights(tmp_path / "general.pt", {})
    arguments = {"dataset_dir": str(collection), "preset": "smoke", "given": f"general={file}", "dry_run": True}
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(WeightError, match=r"(?s)general\.pt.*not those that were saved"):
        Chain().run("sam_med3d_moe", **arguments)


def test_a_task_agnostic_expert_that_does_not_fit_is_refused_as_early(settings, described):
    general = dataclasses.replace(settings, external=described(channels=("MR or CTA",), task="", external=True))
    assert general.external in next(s for s in plan(general) if s.kind == "manifest").inputs
    other = dataclasses.replace(settings, external=described(channels=("T1",), task="", external=True))
    with pytest.raises(ExpertError, match="none of the tasks' modalities"):
        plan(other)
    assert (
        other.external
        in next(s for s in plan(dataclasses.replace(other, ignore_card=True)) if s.kind == "manifest").inputs
    )
    two = described(channels=("T1", "T2"), task="", external=True)
    with pytest.raises(ExpertError, match="does not read the channels"):
        plan(dataclasses.replace(settings, external=two))
    with pytest.raises(ConfigError, match=r"(?s)a task-agnostic expert.*b.*external.*--external True --overwrite True"):
        plan(dataclasses.replace(settings, external=described()))


def test_the_names_of_the_collection_reach_the_experts(settings, described):
    """The rename that the refusal proposes works for given experts and for those that the chain trains."""
    renamed = described({"background": 0, "Liver": 1, "spleen": 2})
    listing = settings.dataset_dir / "collection.json"
    entry = {name: {"labels": {"liver": "Liver"}} for name in "ab"}
    listing.write_text(json.dumps({"datasets": ["a", "b"], "tasks": entry}))
    steps = {s.id: s for s in plan(_with(settings, renamed))}
    trained = steps["expert:a"]
    assert read_collection(_words(trained)["--dataset_dir"]).labels.names == ("Liver",)
    before = fingerprint(trained)
    entry["a"]["labels"]["liver"] = "hepar"
    listing.write_text(json.dumps({"datasets": ["a", "b"], "tasks": entry}))
    assert fingerprint(trained) != before
    listing.unlink()
    assert _words(plan(settings)[0])["--dataset_dir"] == str(settings.dataset_dir / "a")


def _weights(path, modality, taught, **settings):
    entry = {"modalities": {modality: {"channels": [modality], "dim": 3}}, "taught": {modality: [taught]}}
    card = ModelCard(LabelSpace((taught,)), (modality,), extra={"settings": settings, "contract": entry})
    return save_weights(path, {"w": torch.zeros(1)}, card)


@pytest.mark.parametrize(("bundle", "run", "options"), [
    ("sam_med3d_moe", "general", {"structures": ("liver",)}), ("sam_med3d_moe", "liver", {"structures": ("liver",)}),
    ("samora", "image", {}), ("samora", "teacher_patch", {}),
])  # fmt: skip
def test_a_given_result_of_something_else_is_refused(settings, tmp_path, bundle, run, options):
    chain = dataclasses.replace(settings, bundle=bundle, **options)
    kinds = {"ct": ("CT", "liver"), "mr": ("T2 MR", "liver"), "other": ("CT", "cyst")}
    files = {name: _weights(tmp_path / f"{name}.pt", *told) for name, told in kinds.items()}
    public = tmp_path / "public.pt"
    torch.save({"w": torch.zeros(1)}, public)

    def planned(file, **more):
        return [s.id for s in plan(dataclasses.replace(chain, given=((run, file),), **more))]

    assert f"expert:{run}" not in planned(files["ct"]) and planned(public)
    with pytest.raises(DataError, match=r"(?s)not what the model was trained on.*T2 MR"):
        planned(files["mr"])
    assert planned(files["mr"], ignore_card=True)
    if run == "liver":
        with pytest.raises(DataError, match=r"(?s)not taught the structure.*liver.*cyst"):
            planned(files["other"])


def test_nothing_that_is_given_is_left_aside(settings, tmp_path):
    given = (("joint", _weights(tmp_path / "joint.pt", "CT", "liver")),)
    with pytest.raises(ConfigError, match=r"(?s)no result of stage 1 can be given to m4oe.*--pretrained"):
        plan(dataclasses.replace(settings, bundle="m4oe", given=given))
