"""A chain whose experts are trained together, or one run per modality, and optional runs beside the main one."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import ConfigError
from tests.warm_python import python
from tools.chain.command import Chain
from tools.chain.plan import plan, takes_external
from tools.chain.step import ChainSettings
from tools.report.numbers import Model, difference_title, models_of
from tools.report.results import read_study

ROOT = Path(__file__).parents[3]


@pytest.fixture
def settings(phantom_dir, tmp_path):
    return ChainSettings("m4oe", phantom_dir, tmp_path / "out", preset="smoke", bundles=ROOT / "bundles")


def ids(steps):
    return [s.id for s in steps]


def test_one_run_for_all_modalities_comes_first(settings):
    steps = {s.id: s for s in plan(settings)}
    assert list(steps) == [
        "expert:joint", "amalgamated:seed0", "alone:seed0", "evaluate:amalgamated:seed0", "evaluate:alone:seed0",
    ]  # fmt: skip
    model = settings.output_dir / "experts" / "joint" / "model.pt"
    assert steps["amalgamated:seed0"].needs == ("expert:joint",) and model in steps["amalgamated:seed0"].inputs
    assert f"--pretrained={model}" in steps["amalgamated:seed0"].command
    assert not steps["alone:seed0"].needs and "--pretrained" not in steps["alone:seed0"].command
    assert "no_experts.json" in steps["alone:seed0"].command


def test_one_run_per_modality_is_merged_by_the_next_phase(settings):
    steps = {s.id: s for s in plan(replace(settings, phase1="separate", alone=False))}
    assert list(steps)[:3] == ["expert:CT", "expert:LGE_MR", "expert:T2_MR"]
    assert "--modality='LGE MR'" in steps["expert:LGE_MR"].command
    given = ",".join(str(settings.output_dir / "experts" / n / "model.pt") for n in ("CT", "LGE_MR", "T2_MR"))
    assert f"--pretrained={given}" in steps["amalgamated:seed0"].command


def test_variants_are_trained_on_request(settings):
    steps = {s.id: s for s in plan(replace(settings, variants=("scratch", "hard"), seeds=(0, 1)))}
    assert steps["hard:seed1"].kind == "variant" and steps["hard:seed1"].needs == ("expert:joint",)
    assert not steps["scratch:seed0"].needs and "--pretrained" not in steps["scratch:seed0"].command
    assert {"evaluate:hard:seed0", "evaluate:scratch:seed1"} <= set(steps)
    assert not any(s.startswith("top1") for s in steps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": ("soft",)}, "unknown variants(.|\n)*scratch, hard"),
        ({"phase1": "both"}, "joint, separate"),
        ({"external": Path("data")}, "no task-agnostic expert"),
        ({"bundle": "ka2er", "phase1": "joint"}, "trained in one way"),
        ({"bundle": "ka2er", "variants": ("hard",)}, "unknown variants"),
    ],
)
def test_refusals(settings, change, message):
    with pytest.raises(ConfigError, match=message):
        plan(replace(settings, **change))


def test_the_external_expert_is_looked_for_where_it_has_a_place(phantom_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert takes_external("ka2er") and not takes_external("m4oe")
    phantom_dir.with_name("phantom_general").mkdir(exist_ok=True)
    text = Chain().run("m4oe", str(phantom_dir), str(tmp_path / "o"), preset="smoke", dry_run=True, variants="hard")
    assert "Experts of all modalities" in text and "Hard routing by modality" in text


def test_report_names_variants(tmp_path):
    steps = []
    for number, (step, kind, title) in enumerate(
        [("amalgamated:seed0", "amalgamated", "M4oE (seed 0)"), ("hard:seed0", "variant", "Hard routing (seed 0)")]
    ):
        folder = tmp_path / step.replace(":", "/")
        (folder / "evaluation").mkdir(parents=True)
        columns = "case,task,structure,dice,iou,hd95,hd,surface_dice,volume_pred_ml,volume_label_ml"
        rows = f"{columns}\nc,t,liver,0.{number + 5},0.5,1,2,0.5,10,10\n"
        (folder / "evaluation" / "cases.csv").write_text(rows)
        (folder / "evaluation" / "summary.json").write_text("{}")
        steps.append({"id": step, "kind": kind, "title": title, "output_dir": str(folder.relative_to(tmp_path))})
    record = {"name": "x", "steps": steps, "words": {"amalgamated": "M4oE"}}
    (tmp_path / "chain.json").write_text(json.dumps(record))
    study = read_study([tmp_path])
    assert [(m.key, m.title) for m in models_of(study)] == [("amalgamated", "M4oE"), ("run3", "Hard routing")]
    models = models_of(study)
    assert difference_title(models[0], models[1]) == "M4oE − routing"
    assert difference_title(models[0], Model("alone", "Swin-Unet without experts", ())) == "M4oE − alone"
    assert study.words["hub"] and study.words["alone"] == "Student alone"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_chain_runs_on_the_phantom(phantom_dir, tmp_path):
    options = {"dataset_dir": phantom_dir, "output_dir": tmp_path / "out", "preset": "smoke", "variants": "hard",
               "tracking": "none", "install": False, "phase1": "separate"}  # fmt: skip
    words = ["chain", "run", "m4oe", *(w for k, v in options.items() for w in (f"--{k}", v))]
    command = [python(), "-m", "tools", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "Modality experts under one gate" in page and "Hard routing by modality" in page
