"""Each given nnU-Net is asked twice about one scan, before the manifest takes it; who cannot be checked is named."""

import dataclasses
import json
from pathlib import Path

import pytest

from common.data.datasets.datalist import read_collection
from common.experts.spec import read_manifest
from tests.tools.chain.test_experts import ROOT
from tools.chain.checks import checks, expert_checks, unchecked
from tools.chain.plan import plan
from tools.chain.step import ChainSettings, recipe
from tools.experts.command import Experts


@pytest.fixture
def settings(collection: Path, tmp_path: Path, nnunet_folder) -> ChainSettings:
    Experts().describe(str(nnunet_folder(channel_names=("CT",))), str(tmp_path / "b.json"), task="b")
    given = (("b", tmp_path / "b.json"),)
    return ChainSettings("ka2er", collection, tmp_path / "out", "smoke", given=given, bundles=ROOT / "bundles")


def test_one_step_per_given_expert(settings, tmp_path):
    steps = {s.id: s for s in plan(settings)}
    step = steps["check:b"]
    assert next(iter(steps)) == "check:b" and step.id in steps["manifest"].needs
    assert step.argv[2:6] == ("tools", "experts", "check", str(tmp_path / "b.json"))
    scan = Path(step.argv[6])
    assert scan.parts[-3:-1] == ("b", "imagesTr") and scan in step.inputs and step.inputs[0] == tmp_path / "b.json"
    assert step.argv[-1] == f"--out={step.output_dir / step.produces}"
    without = {s.id for s in plan(dataclasses.replace(settings, check_experts=False))}
    assert without == set(steps) - {"check:b"}
    assert not unchecked(settings) and not unchecked(dataclasses.replace(settings, check_experts=False))


def test_who_cannot_be_checked_is_named(settings, tmp_path):
    file = tmp_path / "b.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "orientation": None}))
    assert "check:b" not in {s.id for s in plan(settings)}
    (said,) = unchecked(settings)
    assert "b is not checked" in said and "--training_files" in said


def test_who_belongs_to_no_task_is_asked_about_a_scan_that_it_reads(settings, tmp_path):
    collection = read_collection(settings.dataset_dir)
    channels = {d.name: d.channels for d in collection.datasets}
    spec, file = read_manifest(tmp_path / "b.json")[0], tmp_path / "b.json"
    for name in channels:
        own = dataclasses.replace(spec, role="external", task="", channels=channels[name])
        (step,) = checks([(file, own)], collection, tmp_path / "checks")
        first = next(d for d in collection.datasets if d.channels == channels[name])
        assert Path(step.argv[6]).resolve().is_relative_to(first.root.resolve())
    (step,) = checks([(file, dataclasses.replace(own, channels=("PET",)))], collection, tmp_path / "checks")
    assert step.output_dir == tmp_path / "checks" / "b"
    assert not checks([(file, dataclasses.replace(own, channels=("T1", "T2")))], collection, tmp_path)
    assert not checks([(file, dataclasses.replace(own, kind="bundle"))], collection, tmp_path)


def test_the_step_is_what_a_user_types(settings, monkeypatch):
    """Its words reach the command's function as they are meant, names of files as text."""
    import tools.experts.command as command
    from tools.__main__ import call

    (step,) = [s for s in plan(settings) if s.id == "check:b"]
    calls = []
    monkeypatch.setattr(command, "check", lambda *given, **named: calls.append((given, named)))
    call(step.argv[3:])
    ((given, named),) = calls
    assert given == (Path(step.argv[5]), [Path(step.argv[6])])
    assert named["out"] == step.output_dir / step.produces and named["mirroring"] is False and not named["together"]


def test_channels_are_told_to_be_one_scan(settings, tmp_path, nnunet_folder):
    image = settings.dataset_dir / "b" / "imagesTr"
    data = settings.dataset_dir / "b" / "dataset.json"
    content = json.loads(data.read_text())
    content["channel_names"] = {"0": "T1", "1": "T2"}
    content.pop("modality", None)
    for split in ("training", "validation", "test"):
        for case in content[split]:
            case["image"] = [case["image"], case["image"].replace("images", "second")]
            target = settings.dataset_dir / "b" / case["image"][1]
            target.parent.mkdir(exist_ok=True)
            target.write_bytes((settings.dataset_dir / "b" / case["image"][0]).read_bytes())
    assert image.is_dir()
    data.write_text(json.dumps(content))
    folder = nnunet_folder("Dataset903_two", channel_names=("T1", "T2"))
    Experts().describe(str(folder), str(tmp_path / "b.json"), task="b", overwrite=True)
    collection = read_collection(settings.dataset_dir / "b")
    (step,) = expert_checks(settings, recipe(settings), collection)
    assert "--together=True" in step.argv and [Path(w).name for w in step.argv[6:8]] == [
        p.name for p in step.inputs[1:]
    ]
