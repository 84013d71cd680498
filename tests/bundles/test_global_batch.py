"""`multi_gpu_train.json` computes what one process computes, and a process that is lost ends the run with a message."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import torch

from common.engine.monitor.history import read_history
from common.experts.spec import read_manifest, write_manifest
from tests.bundles.commands import ENVIRONMENT, ROOT, launched, same_weights, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CASES = {
    "m4oe": ("m4oe", ("train", "scratch", "smoke"), {}),
    "samora": ("samora", ("train", "decoder_only", "smoke"), {"learning_rate": 1e-4}),
    "ic_moe": ("ic_moe", ("train", "adaptive", "smoke"), {}),  # a vote is balanced over each process's own batch
    "with workers": ("m4oe", ("train", "scratch", "smoke"), {"num_workers": 1}),
}
SELECTED = {"with workers": pytest.mark.selected}


def data(bundle, phantom_dir, phantom_2d_dir):
    """Data sets that whole batches make up: the last one is filled up with a repeated sample otherwise."""
    return {"dataset_dir": phantom_2d_dir / "phantom_2d_skin" if bundle == "ic_moe" else phantom_dir / "phantom_mr"}


def finished(processes, bundle, configs, options):
    command = launched(processes, bundle, configs, options)
    result = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-1500:] + result.stderr[-3000:]


def equally_trained(bundle, configs, options, folder):
    """One epoch in one process and in two have one loss and one set of weights."""
    found = []
    for processes, batch_size in ((1, 4), (2, 2)):
        out = folder / str(processes)
        own = {"output_dir": out, "ckpt_dir": out, "batch_size": batch_size, "max_epochs": 1, "val_interval": 1}
        finished(processes, bundle, configs, {**options, **own})
        (row,) = read_history(out / "history.csv")
        found.append((row, torch.load(out / "model.pt", weights_only=True)))
    (one, weights), (two, others) = found
    assert one["iteration"] == two["iteration"] and one["loss"] == pytest.approx(two["loss"], rel=1e-4)
    assert one.keys() == two.keys() and weights.keys() == others.keys()
    first, second = (torch.cat([v.double().flatten() for v in found.values()]) for found in (weights, others))
    apart = float((first - second).norm() / first.norm())  # Adam's steps magnify rounding where a gradient is zero
    assert apart < 1e-3, f"parameters differ by {apart} of their norm"


@pytest.mark.parametrize("case", [pytest.param(c, marks=SELECTED.get(c, ())) for c in CASES])
def test_two_processes_compute_what_one_does_at_the_same_global_batch(case, phantom_dir, phantom_2d_dir, tmp_path):
    bundle, configs, more = CASES[case]
    equally_trained(bundle, configs, {**data(bundle, phantom_dir, phantom_2d_dir), **more}, tmp_path)


def test_two_students_learn_what_one_does_at_the_same_global_batch(phantom_dir, tmp_path):
    """KA2ER with everything that experts teach: each sample is its own lesson."""
    collection, specs = tmp_path / "collection", []
    collection.mkdir()
    for task in ("phantom_ct", "phantom_mr"):
        (collection / task).symlink_to(phantom_dir / task)
        own = {"dataset_dir": phantom_dir / task, "name": task, "role": "task", "spacing": [8, 8, 8], "max_epochs": 1,
               "output_dir": tmp_path / task, "ckpt_dir": tmp_path / task}  # fmt: skip
        finished(1, "ka2er_expert", ("train", "smoke"), own)
        specs += read_manifest(tmp_path / task / "expert.json")
    write_manifest(tmp_path / "experts.json", specs)
    still = {"prompt_dropout": 0.0, "box_jitter": 0.0,
             "dataset_dir": collection, "experts": tmp_path / "experts.json", "use": ["task"]}  # fmt: skip
    equally_trained("ka2er", ("train", "smoke"), still, tmp_path)


@pytest.mark.parametrize("bundle", ["sam_med3d_moe_expert", "sam_med3d_moe"])
def test_two_processes_answer_boxes_as_one_does(bundle, phantom_dir, sam3d_files, tmp_path):
    """SAM-Med3D-MoE: a click is drawn, and differently in another process; a box that nobody moves is not."""
    general = sam3d_files.general()
    sampler = {"_target_": "common.data.samples.sampler.DrawSampler", "dataset": "@train::dataset", "shuffle": False}
    own = {
        "sam_med3d_moe_expert": {"structures": ["liver"], "name": "own", "train_what": "decoder"},
        "sam_med3d_moe": {"structures": ["liver"], "experts": sam3d_files.expert("own", "liver", of=general).parent},
    }
    still = {"train::sampler": json.dumps(sampler), "prompts": "box", "box_jitter": 0.0, "flip": 0.0,
             "micro_batch": 2, "general": general, "dataset_dir": phantom_dir / "phantom_mr"}  # fmt: skip
    equally_trained(bundle, ("train", "smoke"), {**still, **own[bundle]}, tmp_path)


def worker(launcher: int, rank: int) -> psutil.Process:
    """The process of a rank below a launcher."""
    for child in psutil.Process(launcher).children(recursive=True):
        if Path(f"/proc/{child.pid}/environ").read_bytes().find(f"\0RANK={rank}\0".encode()) >= 0:
            return child
    raise AssertionError(f"no process of rank {rank}")


def test_a_lost_process_ends_the_run_and_the_next_one_goes_on(phantom_2d_dir, tmp_path):
    bundle, configs, _ = CASES["ic_moe"]
    options = {**data(bundle, None, phantom_2d_dir), "max_epochs": 4, "val_interval": 4}
    whole, cut = ({**options, "output_dir": tmp_path / n, "ckpt_dir": tmp_path / n} for n in ("whole", "cut"))
    finished(2, bundle, configs, whole)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(launched(2, bundle, configs, cut), cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log)
        until(tmp_path / "cut" / "checkpoints" / "last.pth", process)
        os.kill(worker(process.pid, 1).pid, signal.SIGKILL)
        began = time.monotonic()
        assert process.wait(timeout=120) != 0
    assert time.monotonic() - began < 60, "the others waited for the lost one"
    text = (tmp_path / "log").read_text()
    assert "Signal 9 (SIGKILL)" in text and "rank      : 1" in text
    assert not (tmp_path / "cut" / "model.pt").exists()
    finished(2, bundle, configs, cut)
    same_weights(tmp_path / "whole", tmp_path / "cut")
