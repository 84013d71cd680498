"""A chain with an expert for each of some structures, all of one general model that a user may bring."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.errors import ConfigError
from tests.warm_python import python
from tools.chain.command import Chain, _given
from tools.chain.plan import plan
from tools.chain.step import ChainSettings, fingerprint

ROOT = Path(__file__).parents[3]


@pytest.fixture
def settings(phantom_dir, tmp_path):
    return ChainSettings("sam_med3d_moe", phantom_dir, tmp_path / "out", preset="smoke", bundles=ROOT / "bundles")


def by_id(settings):
    return {s.id: s for s in plan(settings)}


def test_the_general_model_comes_first_and_does_not_know_the_experts_structures(settings):
    steps, experts = by_id(settings), settings.output_dir / "experts"
    assert list(steps) == [
        "expert:general", "expert:liver_tumour", "expert:gallbladder", "amalgamated:seed0",
        "evaluate:amalgamated:seed0",
    ]  # fmt: skip
    general = steps["expert:general"].command
    assert "--exclude=\"['liver tumour', 'gallbladder']\"" in general
    assert "general.json" in general and "tiny_general.json" in general and "--general=" not in general
    for name, structure in (("liver_tumour", "liver tumour"), ("gallbladder", "gallbladder")):
        step = steps[f"expert:{name}"]
        assert step.needs == ("expert:general",) and f"--general={experts / 'general' / 'model.pt'}" in step.command
        assert f"--structures=\"['{structure}']\"" in step.command and structure in step.title
        assert experts / "general" / "model.pt" in step.inputs and "general.json" not in step.command
    main = steps["amalgamated:seed0"]
    assert set(main.needs) == {"expert:general", "expert:liver_tumour", "expert:gallbladder"}
    given = ",".join(str(experts / n) for n in ("liver_tumour", "gallbladder"))
    assert f"--experts={given}" in main.command and f"--general={experts / 'general' / 'model.pt'}" in main.command
    assert experts / "gallbladder" / "model.pt" in main.inputs


def test_structures_are_chosen(settings):
    steps = by_id(replace(settings, structures=("spleen", "left kidney", "aorta")))
    experts = [s for s in steps if s.startswith("expert:")]
    assert experts == ["expert:general", "expert:spleen", "expert:left_kidney", "expert:aorta"]
    assert "--exclude=\"['spleen', 'left kidney', 'aorta']\"" in steps["expert:general"].command
    assert "left_kidney" in steps["amalgamated:seed0"].command
    only = by_id(replace(settings, structures=("spleen",)))
    assert f"--experts={settings.output_dir / 'experts' / 'spleen'} " in only["amalgamated:seed0"].command + " "


def test_the_paper_s_preset_needs_to_be_told_structures(settings):
    with pytest.raises(ConfigError, match=r"(?s)which structures get an expert.*liver"):
        plan(replace(settings, preset="paper"))
    steps = by_id(replace(settings, preset="paper", structures=("spleen",)))
    assert "boxes.json" not in steps["amalgamated:seed0"].command  # published weights know no boxes
    assert (
        "boxes.json" in by_id(replace(settings, preset="paper_boxes", structures=("spleen",)))["expert:spleen"].command
    )


def test_a_user_s_general_model_takes_the_place_of_its_run(settings, tmp_path):
    file = tmp_path / "sam_med3d_turbo.pth"
    torch.save({"w": torch.zeros(1)}, file)
    given = replace(settings, given=_given(f"general={file}"))
    steps = by_id(given)
    assert "expert:general" not in steps and steps["expert:gallbladder"].needs == ()
    for step in ("expert:gallbladder", "amalgamated:seed0"):
        assert f"--general={file}" in steps[step].command and file in steps[step].inputs
    before = {i: fingerprint(s) for i, s in steps.items()}
    torch.save({"w": torch.ones(1)}, file)
    changed = {i for i, s in by_id(given).items() if fingerprint(s) != before[i]}
    assert changed >= {"expert:gallbladder", "expert:liver_tumour", "amalgamated:seed0"}


def test_a_trained_expert_takes_the_place_of_its_run(settings, tmp_path):
    file = tmp_path / "gall" / "model.pt"
    file.parent.mkdir()
    torch.save({"w": torch.zeros(1)}, file)
    steps = by_id(replace(settings, given=(("gallbladder", file),)))
    assert "expert:gallbladder" not in steps
    assert steps["amalgamated:seed0"].needs == ("expert:general", "expert:liver_tumour")
    assert str(file) in steps["amalgamated:seed0"].command and file in steps["amalgamated:seed0"].inputs


def test_variants_take_what_the_main_run_takes(settings):
    names = ("joint", "tau_07", "avg", "aft_weight", "literal_gate", "gate_first", "pooled_prompts")
    steps = by_id(replace(settings, variants=names))
    for name in names:
        step = steps[f"{name}:seed0"]
        assert step.needs == steps["amalgamated:seed0"].needs and f"{name}.json" in step.command
        assert f"evaluate:{name}:seed0" in steps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"structures": ("lung",)}, r"which structures get an expert(.|\n)*lung(.|\n)*liver"),
        (
            {"given": (("pancreas", Path("x.pt")),)},
            r"a run that there is not(.|\n)*pancreas(.|\n)*general, liver_tumour",
        ),
        ({"variants": ("max",)}, r"unknown variants(.|\n)*joint, tau_07"),
        ({"external": Path("data")}, "no task-agnostic expert"),
        ({"phase1": "joint"}, "structures"),
        ({"bundle": "samora", "structures": ("liver",)}, r"no expert here is of a single structure"),
    ],
)
def test_refusals(settings, change, message):
    with pytest.raises(ConfigError, match=message):
        plan(replace(settings, **change))


def test_given_results_are_files(tmp_path):
    for word in ("general", "general=nowhere.pt", "=x"):
        with pytest.raises(ConfigError, match=r"(?s)given result is no file.*<run>=<file>"):
            _given(word)


def test_the_command_takes_structures_and_files(phantom_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    file = tmp_path / "general.pth"
    torch.save({"w": torch.zeros(1)}, file)
    text = Chain().run("sam_med3d_moe", str(phantom_dir), str(tmp_path / "o"), preset="smoke", dry_run=True,
                       structures="spleen, left kidney", given=f"general={file}", variants="avg")  # fmt: skip
    for part in ("Decoder of spleen", "Decoder of left kidney", "Average of both masks", f"--general={file}"):
        assert part in text
    assert "General model" not in text


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_chain_runs_on_the_phantom(phantom_dir, tmp_path):
    command = [python(), "-m", "tools", "chain", "run", "sam_med3d_moe", "--dataset_dir", str(phantom_dir),
               "--output_dir", str(tmp_path / "out"), "--preset", "smoke", "--tracking", "none", "--install", "False",
               "--variants", "joint,literal_gate"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    first = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-3000:]
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "SAM-Med3D-MoE" in page and "forgetting" in page.lower()
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "Epoch[" not in again.stdout + again.stderr
