"""A chain without a first stage: experts that are trained together."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import ConfigError
from tests.warm_python import python
from tools.chain.plan import plan, takes_external
from tools.chain.step import ChainSettings

ROOT = Path(__file__).parents[3]
ABLATION = ("basic", "semantic", "mean", "no_sgcl")


@pytest.fixture
def settings(phantom_2d_dir, tmp_path):
    return ChainSettings("ic_moe", phantom_2d_dir, tmp_path / "out", preset="smoke", bundles=ROOT / "bundles")


def test_only_the_second_stage(settings):
    steps = {s.id: s for s in plan(replace(settings, variants=ABLATION))}
    trained = ["amalgamated:seed0", "alone:seed0", *(f"{v}:seed0" for v in ABLATION)]
    assert list(steps) == [*trained, *(f"evaluate:{t}" for t in trained)]
    assert not any(steps[t].needs for t in trained)
    assert "adaptive.json" in steps["alone:seed0"].command and "no_sgcl.json" in steps["no_sgcl:seed0"].command
    assert steps["amalgamated:seed0"].inputs[0].name == "dataset.json"
    assert not takes_external("ic_moe", ROOT / "bundles")


@pytest.mark.parametrize(
    "asked",
    [{"phase1": "joint"}, {"structures": ("lesion",)}, {"external": Path("x")}, {"stage1": (("max_epochs", "1"),)}],
)
def test_there_is_nothing_to_say_about_a_first_stage(settings, asked):
    with pytest.raises(ConfigError, match=rf"(?s)no stage 1.*{next(iter(asked))}"):
        plan(replace(settings, **asked))


def test_volumes_are_refused_with_the_place_of_pictures(settings, phantom_dir):
    with pytest.raises(ConfigError, match=r"(?s)2-D images.*phantom_2d"):
        plan(replace(settings, dataset_dir=phantom_dir))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_chain_runs_on_the_phantom(phantom_2d_dir, tmp_path):
    command = [python(), "-m", "tools", "chain", "run", "ic_moe", "--output_dir", str(tmp_path / "out"),
               "--dataset_dir", str(phantom_2d_dir / "phantom_2d_skin"), "--preset", "smoke", "--tracking", "none",
               "--install", "False", "--jobs", "1", "--variants", ",".join(ABLATION)]  # fmt: skip
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    first = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-3000:]
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "IC-MoE" in page and "Mean of the three experts" in page
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "Epoch[" not in again.stdout + again.stderr
