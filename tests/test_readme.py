"""README's commands work: extracted from the file and run, at smoke size, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.warm_python import python

ROOT = Path(__file__).resolve().parents[1]
TRAIN = "bundles/ka2er/configs/train.json"
SMOKE = "bundles/ka2er/configs/smoke.json"
BUNDLES = {"ka2er", "ka2er_expert", "m4oe", "m4oe_expert"}


def commands(path: Path, heading: str | None = None) -> list[str]:
    """Lines of the ``bash`` blocks, comments removed, of one section or of the whole file."""
    text = path.read_text(encoding="utf-8")
    if heading is not None:
        text = text.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = (re.sub(r"\s+#.*$", "", line).strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


README = commands(ROOT / "README.md")


# tests/label, tests/tools
TRIED_ELSEWHERE = ("tools amalgamate", "tools label start", "bundle push", "bundle check dist", "bundle pack")


def smaller(command: str) -> str:
    """The same command at a size that a test can afford."""
    command = re.sub(r"(tools phantom)\b", r"\1 --size tiny", command)
    if "tools compare run" in command:
        command = re.sub(r"--methods \S+", "--methods swin_unet,sam_decoder", command)
        return re.sub(r"--preset \w+ --budget_steps \d+ --seeds \S+", "--preset smoke --budget_steps 2", command)
    # a server does not end; tests/label starts it
    command = re.sub(r"label start (\S+) --studies \S+", r"label layout \1 laid_out", command)
    command = re.sub(r"--preset \w+", "--preset smoke --alone False --stage2='--max_epochs 1'", command)
    command = command.replace(f"--config_file {TRAIN}", f"--config_file \"['{TRAIN}','{SMOKE}']\" --max_epochs 1")
    return command


def run(command: str, folder: Path) -> float:
    words = shlex.split(command)
    assert words[0] == "python"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    done = subprocess.run(
        [python(), *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    logs = (
        "".join(f"\n== {p}\n{p.read_text()[-3000:]}" for p in sorted(folder.rglob("*.log"))) if done.returncode else ""
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}{logs[-8000:]}"
    return time.monotonic() - started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a clone has, without anything that was trained in this one, in a path with a space."""
    clone = tmp_path / "a clone"
    ignored = shutil.ignore_patterns("*.pt", "*.pth", "*.ts", "eval")
    shutil.copytree(ROOT / "bundles", clone / "bundles", ignore=ignored)
    return clone


def user_scans(phantom: Path, folder: Path) -> None:
    """Scans and label maps as a user might have them, and one scan without a label."""
    source = phantom / "phantom_ct"
    described = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    cases = [case for split in ("training", "validation", "test") for case in described[split]]
    for kind in ("images", "labels"):
        (folder / "my_ct" / kind).mkdir(parents=True)
    for case in cases:
        shutil.copy(source / case["image"], folder / "my_ct" / "images" / f"{case['id']}.nii.gz")
        label = nibabel.load(source / case["label"])
        values = np.asarray(label.dataobj)
        liver_and_spleen = nibabel.Nifti1Image(np.where(values <= 2, values, 0).astype(np.uint8), label.affine)
        nibabel.save(liver_and_spleen, folder / "my_ct" / "labels" / f"{case['id']}.nii.gz")
    shutil.copy(source / cases[0]["image"], folder / "scan.nii.gz")


def test_every_command_is_of_a_kind_that_is_tested() -> None:
    """Nobody can add a command to the README that this file does not look at."""
    kinds = ("make ", "python -m tools ", "python -m monai.bundle run ", "python -m venv ", "pip install ")
    assert README
    assert [c for c in README if not c.startswith(kinds)] == []


@pytest.mark.parametrize("command", [c for c in README if c.startswith("make ")])
def test_make_targets_exist(command: str) -> None:
    done = subprocess.run(["make", "-n", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_runs_on_every_change_is_documented() -> None:
    """`.ci/run` calls make and nothing else, and each of its commands has a row in CONTRIBUTING."""
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    told = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "make test" in commands and all(c.startswith("make ") for c in commands)
    assert [c for c in commands if f"| `{c}` |" not in told] == []


def test_make_demo_is_what_the_readme_says() -> None:
    """`make demo` runs what is also documented one by one."""
    recipe = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    experts = "-m tools chain run ka2er --dataset_dir data/phantom --preset demo --external none --students False"
    for part in ("-m tools phantom", experts, "-m tools amalgamate runs/experts/experts.json --scans data/phantom"):
        assert part in recipe
        assert any(part in c for c in README), part


def test_requirements_are_pinned_and_within_the_ranges() -> None:
    from tools.doctor import packages

    found = list(packages(ROOT))
    assert [p.name for p in found if p.tested is None] == []
    assert [p for p in found if p.verdict in ("missing", "outside the range")] == []


def test_links_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("bundles/*.md"), *ROOT.glob("bundles/*/docs/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.relative_to(ROOT)} links to {target}"


@pytest.mark.timeout(1800)  # an idle core needs a third of it
@pytest.mark.skipif(not {p.name for p in (ROOT / "bundles").iterdir()} >= BUNDLES, reason="a bundle is missing")
def test_commands_run(folder: Path, dicom_series: Callable[..., Path]) -> None:
    """All of them, in the order of the README, each on what the earlier ones made."""
    for command in README:
        elsewhere = command.startswith("python -m venv") or any(part in command for part in TRIED_ELSEWHERE)
        if elsewhere or not command.startswith("python -m "):
            continue
        if "my_ct" in command and not (folder / "my_ct").exists():
            user_scans(folder / "data" / "phantom", folder)
        if "my_series" in command and not (folder / "my_series").exists():
            scan = nibabel.load(folder / "scan.nii.gz")
            spacing = tuple(float(s) for s in scan.header.get_zooms()[:3])
            dicom_series(folder / "my_series", np.asarray(scan.dataobj), spacing=spacing)
        if "nnUNet_results" in command and not (folder / "nnUNet_results").exists():
            (trained,) = (folder / "runs" / "mine" / "experts" / "ct" / "nnunet").glob("*/*")
            shutil.copytree(trained, folder / next(w for w in command.split() if w.startswith("nnUNet_results")))
        seconds = run(smaller(command), folder)
        print(f"{seconds:6.1f} s  {command}")
    assert (folder / "runs" / "ka2er" / "report" / "index.html").is_file()
    assert any((folder / "predictions").iterdir())
    assert sorted(p.name for p in (folder / "segmentations").iterdir()) == ["my_series.dcm", "my_series.nii.gz"]


def test_a_fresh_clone_says_what_to_do_first(folder: Path) -> None:
    """The user's own line, typed before anything else: one clear error that names the command."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", TRAIN]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "python -m tools" in done.stderr.strip().splitlines()[-1] + done.stdout[-500:]
