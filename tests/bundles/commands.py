"""How tests type a bundle's commands, and read its configurations without running them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from tests.warm_python import python, start

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def words(bundle, configs, overrides):
    files = "[" + ",".join(f"'bundles/{bundle}/configs/{c}.json'" for c in configs) + "]"
    options = [str(w) for k, v in overrides.items() for w in (f"--{k}", v)]
    return [python(), "-m", "monai.bundle", "run", "--config_file", files, *options]


def run(bundle, *configs, **overrides):
    command = words(bundle, configs, overrides)
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def done(bundle, *configs, **overrides):
    result = run(bundle, *configs, **overrides)
    assert result.returncode == 0, result.stdout[-1500:] + result.stderr[-3000:]
    return result


def launched(processes, bundle, configs, overrides):
    """The words of a command in several processes, with `multi_gpu_train.json`."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [*launcher, *words(bundle, [*configs, "multi_gpu_train"], overrides)[1:]]


def until(file, process, seconds=200):
    """Waits for a file that a running process writes."""
    deadline = time.monotonic() + seconds
    while not file.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert file.is_file(), f"there is no {file} after {seconds} s"


def same_weights(*folders):
    first, second = (torch.load(folder / "model.pt", weights_only=True) for folder in folders)
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def killed_and_resumed(bundle, configs, options, folder, *, outputs=("output_dir", "ckpt_dir"), workers=(2, 1)):
    """Trains once in ``folder/whole``; once in ``folder/cut``, killed after the first saved epoch and started again.

    Before the kill and afterwards it has other numbers of ``workers``, and the whole training none, as presets say.

    Returns both folders, when the weights are the same to the last bit.
    """
    whole, cut = ({**options, **dict.fromkeys(outputs, folder / name)} for name in ("whole", "cut"))
    before, afterwards = ({"num_workers": n} for n in workers)
    done(bundle, *configs, **whole)
    process = start(words(bundle, configs, {**cut, **before}), cwd=ROOT, env=ENVIRONMENT)
    until(folder / "cut" / "checkpoints" / "last.pth", process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the training ended before it was killed"
    done(bundle, *configs, **cut, **afterwards)
    same_weights(folder / "whole", folder / "cut")
    return folder / "whole", folder / "cut"


def parsed(bundle: str, configs: Sequence[str], **given: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(ROOT / f"bundles/{bundle}/configs/{c}.json") for c in configs])
    for key, value in given.items():
        parser[key] = str(value) if isinstance(value, Path) else value
    return parser
