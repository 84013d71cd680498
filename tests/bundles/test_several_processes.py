"""`multi_gpu_train.json` under torchrun: two processes on the CPU take the GPUs' place."""

import csv
import os
import subprocess
from pathlib import Path

import pytest
import torch

from common.experts.spec import read_manifest, write_manifest
from tests.warm_python import python

ROOT = Path(__file__).resolve().parents[2]


def execute(*words: object) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [str(w) for w in words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def train(bundle: str, out: Path, processes: int, **overrides: object) -> dict[str, torch.Tensor]:
    configs = ["train", "smoke", *(["multi_gpu_train"] if processes > 1 else [])]
    files = "[" + ",".join(f"'bundles/{bundle}/configs/{c}.json'" for c in configs) + "]"
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    words = [w for k, v in {**overrides, "output_dir": out, "ckpt_dir": out}.items() for w in (f"--{k}", v)]
    execute(python(), *launcher, "-m", "monai.bundle", "run", "--config_file", files, *words)
    with (out / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(r["epoch"]) for r in rows] == [1, 2]
    return torch.load(out / "model.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_both_stages_train_in_two_processes(phantom_dir, tmp_path):
    expert = {"spacing": [8, 8, 8], "max_epochs": 2}
    manifest = []
    for task in ("phantom_ct", "phantom_mr"):
        out = tmp_path / task
        one = train("ka2er_expert", out, 2, dataset_dir=phantom_dir / task, name=task, role="task", **expert)
        assert all(t.isfinite().all() for t in one.values())
        manifest.append(out / "expert.json")
    collection = tmp_path / "collection"
    collection.mkdir()
    for task in ("phantom_ct", "phantom_mr"):
        (collection / task).symlink_to(phantom_dir / task)
    write_manifest(tmp_path / "experts.json", [spec for path in manifest for spec in read_manifest(path)])
    options = {"dataset_dir": collection, "experts": tmp_path / "experts.json", "use": ["task"], "max_epochs": 2}
    first = train("ka2er", tmp_path / "two", 2, **options)
    again = train("ka2er", tmp_path / "two again", 2, **options)
    single = train("ka2er", tmp_path / "one", 1, **options)
    assert first.keys() == again.keys() == single.keys()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], single[k]) for k in first)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_both_phases_of_m4oe_train_in_two_processes(phantom_dir, tmp_path):
    options = {"dataset_dir": phantom_dir}
    experts = train("m4oe_expert", tmp_path / "experts", 2, **options)
    assert all(t.isfinite().all() for t in experts.values())
    options["pretrained"] = tmp_path / "experts" / "model.pt"
    first = train("m4oe", tmp_path / "two", 2, **options)
    again = train("m4oe", tmp_path / "two again", 2, **options)
    single = train("m4oe", tmp_path / "one", 1, **options)
    assert first.keys() == again.keys() == single.keys()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], single[k]) for k in first)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_both_stages_of_sam_med3d_moe_train_in_two_processes(phantom_dir, tmp_path):
    options = {"dataset_dir": phantom_dir, "variant": "tiny"}
    general = train("sam_med3d_moe_expert", tmp_path / "general", 2, **options, train_what="all", name="general")
    assert all(t.isfinite().all() for t in general.values())
    options = {"dataset_dir": phantom_dir, "general": tmp_path / "general" / "model.pt"}
    train("sam_med3d_moe_expert", tmp_path / "tumour", 2, **options, structures=["liver tumour"], name="tumour")
    options["experts"] = tmp_path / "tumour"
    first = train("sam_med3d_moe", tmp_path / "two", 2, **options)
    again = train("sam_med3d_moe", tmp_path / "two again", 2, **options)
    single = train("sam_med3d_moe", tmp_path / "one", 1, **options)
    assert first.keys() == again.keys() == single.keys()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], single[k]) for k in first)
