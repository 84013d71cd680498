"""What a chain's trainings are made of, after merging: the preset's sizes, and what the run's overlays say it is."""

import json
from pathlib import Path

import pytest

from common.errors import ConfigError
from tools.chain.overlays import SIZES, ordered_files
from tools.chain.plan import plan
from tools.chain.step import ChainSettings, step_files
from tools.workflow import read_config

ROOT = Path(__file__).parents[3]
CHAINS = {p.parents[1].name: json.loads(p.read_text()) for p in sorted(ROOT.glob("bundles/*/configs/chain.json"))}
RUNS = [(bundle, preset) for bundle, chain in CHAINS.items() for preset in chain["presets"]]


def trainings(bundle, preset, folder, **more):
    """Every training that a chain can have, with its merged configuration."""
    chain = CHAINS[bundle]
    variants = tuple(r["id"] for r in chain["stage2"] if r.get("optional") and r.get("trained", True))
    given = {"structures": ("gallbladder",)} if bundle == "sam_med3d_moe" else {}
    settings = ChainSettings(bundle, folder, Path("out"), preset=preset, variants=variants, bundles=ROOT / "bundles",
                             **given, **more)  # fmt: skip
    for step in plan(settings):
        if step.argv and step.produces == "model.pt":
            files = step_files(step.argv)
            yield step, files, read_config([str(f) for f in files]).get()


@pytest.mark.parametrize(("bundle", "preset"), RUNS)
def test_a_presets_sizes_win_in_every_training(bundle, preset, phantom_dir, phantom_2d_dir):
    folder = phantom_2d_dir if CHAINS[bundle]["dim"] == 2 else phantom_dir
    chain, seen = CHAINS[bundle], 0
    for step, files, merged in trainings(bundle, preset, folder):
        own = files[0].parent
        stage = "stage2" if own.parent.name == bundle else "stage1"
        wanted = {}
        for name in chain["presets"][preset].get(stage, []):
            wanted |= json.loads((own / name).read_text())
        run = next((r for r in every_run(chain) if r["id"] == step.id.removeprefix("expert:").split(":")[0]), {})
        for name in run.get("presets", {}).get(preset, []):
            wanted |= json.loads((own / name).read_text())
        identity = {}
        for name in run.get("overlays", []):
            identity |= json.loads((own / name).read_text())
        assert {k: merged[k] for k in wanted if k in SIZES} == {k: v for k, v in wanted.items() if k in SIZES}, step.id
        told = {k: v for k, v in identity.items() if k not in SIZES and "::" not in k}
        assert {k: merged[k] for k in told} == told, step.id
        seen += 1
    assert seen >= 2


def every_run(chain):
    ways = chain.get("stage1", {}).get("phase1", {})
    return [*(r for way in (ways.values() if isinstance(ways, dict) else ()) for r in way), *chain["stage2"]]


def updates(config, examples):
    return config["max_epochs"] * (config[examples] // config["batch_size"])


def test_the_numbers_of_updates_that_are_documented(phantom_dir):
    found = {s.id: updates(c, "slices_per_epoch") for s, _, c in trainings("samora", "scans_cpu", phantom_dir)}
    teachers = {i: n for i, n in found.items() if "teacher" in i}
    assert teachers == {"expert:teacher_image": 600, "expert:teacher_patch": 600}
    assert {found[f"expert:{level}"] for level in ("image", "patch", "pixel")} == {300}
    assert {found[i] for i in found if not i.startswith("expert")} == {600}, "H-SAM's and every variant's"
    base = {s.id: c["base"] for s, _, c in trainings("samora", "scans_cpu", phantom_dir)}
    assert base["hsam:seed0"] == base["hsam_alone:seed0"] == "hsam"


def test_what_a_run_is_counts_more_than_a_preset_that_says_it_too(phantom_dir):
    found = {s.id: c for s, _, c in trainings("samora", "demo_sam2", phantom_dir)}
    assert found["hsam_alone:seed0"]["base"] == "hsam" and found["alone:seed0"]["base"] == "sam2"
    assert found["hsam_alone:seed0"]["max_epochs"] == 16, "and its sizes are the demo's"


def write(folder, **files):
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_the_order_of_files(tmp_path):
    write(tmp_path, teacher={"max_epochs": 10, "level": "t"}, demo={"max_epochs": 2, "num_workers": 2},
          sam2={"level": "s"}, again={"level": "t"}, own={"max_epochs": 3})  # fmt: skip
    found = ordered_files(tmp_path, overlays=["teacher.json"], preset=["demo.json", "sam2.json", "again.json"],
                          own=["own.json"])  # fmt: skip
    assert found == ["train.json", "sam2.json", "teacher.json", "demo.json", "again.json", "own.json"]


def test_a_preset_that_must_come_before_and_after_is_refused(tmp_path):
    write(tmp_path, teacher={"max_epochs": 10, "level": "t"}, both={"max_epochs": 2, "level": "s"})
    with pytest.raises(ConfigError, match=r"both.json: .*in one file[\s\S]*level, max_epochs[\s\S]*split"):
        ordered_files(tmp_path, overlays=["teacher.json"], preset=["both.json"])
    with pytest.raises(ConfigError, match="does not exist"):
        ordered_files(tmp_path, overlays=["nothing.json"], preset=[])
