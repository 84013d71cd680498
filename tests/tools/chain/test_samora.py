"""A chain of named experts: teachers first, what they leave goes to whom it is for."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import ConfigError
from tests.warm_python import python
from tools.chain.plan import plan
from tools.chain.step import ChainSettings, fingerprint

ROOT = Path(__file__).parents[3]


@pytest.fixture
def settings(phantom_dir, tmp_path):
    return ChainSettings("samora", phantom_dir, tmp_path / "out", preset="smoke", bundles=ROOT / "bundles")


def by_id(settings):
    return {s.id: s for s in plan(settings)}


def test_teachers_come_before_their_students(settings):
    steps, experts = by_id(settings), settings.output_dir / "experts"
    assert list(steps) == [
        "expert:teacher_image", "expert:teacher_patch", "expert:image", "expert:patch", "expert:pixel",
        "amalgamated:seed0", "alone:seed0", "evaluate:amalgamated:seed0", "evaluate:alone:seed0",
    ]  # fmt: skip
    assert steps["expert:image"].needs == ("expert:teacher_image",)
    assert f"--teacher_weights={experts / 'teacher_image' / 'model.pt'}" in steps["expert:image"].command
    assert "--teacher_weights" not in steps["expert:pixel"].command and not steps["expert:pixel"].needs
    main = steps["amalgamated:seed0"]
    assert main.needs == ("expert:image", "expert:patch", "expert:pixel")
    for level in ("image", "patch", "pixel"):
        assert f"--{level}_expert={experts / level}" in main.command
        assert experts / level / "model.pt" in main.inputs
    assert not steps["alone:seed0"].needs and "_expert=" not in steps["alone:seed0"].command


def test_without_teachers(settings):
    steps = by_id(replace(settings, phase1="scratch"))
    assert [s for s in steps if s.startswith("expert")] == ["expert:image", "expert:patch", "expert:pixel"]
    assert all("--ssl=scratch" in steps[f"expert:{level}"].command for level in ("image", "patch"))


def test_a_variant_waits_for_its_own_experts_only(settings):
    steps = by_id(replace(settings, variants=("single_patch", "decoder_only", "mole", "hsam")))
    assert steps["single_patch:seed0"].needs == ("expert:patch",)
    assert not steps["decoder_only:seed0"].needs
    assert len(steps["mole:seed0"].needs) == 3 and "base_hsam.json" in steps["hsam:seed0"].command


def test_a_teacher_that_changes_makes_its_student_anew(settings):
    model = settings.output_dir / "experts" / "teacher_image" / "model.pt"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"one")
    before = {i: fingerprint(s) for i, s in by_id(settings).items()}
    model.write_bytes(b"two")
    after = {i: fingerprint(s) for i, s in by_id(settings).items()}
    assert {i for i in before if before[i] != after[i]} == {"expert:image"}


def test_refusals(settings, tmp_path):
    with pytest.raises(ConfigError, match="ts_cpt, scratch"):
        plan(replace(settings, phase1="joint"))
    with pytest.raises(ConfigError, match="no task-agnostic expert"):
        plan(replace(settings, external=tmp_path))


def test_a_run_that_takes_from_nobody_is_refused(settings, tmp_path):
    bundles = tmp_path / "bundles"
    for bundle in ("samora", "samora_expert"):
        (bundles / bundle / "configs").mkdir(parents=True)
        for file in (ROOT / "bundles" / bundle / "configs").glob("*.json"):
            (bundles / bundle / "configs" / file.name).write_text(file.read_text())
    recipe = bundles / "samora" / "configs" / "chain.json"
    recipe.write_text(recipe.read_text().replace('"patch_expert": "patch"', '"patch_expert": "patches"'))
    with pytest.raises(ConfigError, match=r"(?s)amalgamated.*does not train.*expert:patches.*phase1"):
        plan(replace(settings, bundles=bundles))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_chain_runs_on_the_phantom(phantom_dir, tmp_path):
    command = [python(), "-m", "tools", "chain", "run", "samora", "--dataset_dir", str(phantom_dir),
               "--output_dir", str(tmp_path / "out"), "--preset", "smoke", "--tracking", "none",
               "--variants", "decoder_only,single_pixel,lac,mole,lorahub,hsam"]  # fmt: skip
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    first = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-3000:]
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "SAMora" in page and "Gate per image (MoLE)" in page
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "Epoch[" not in again.stdout + again.stderr
