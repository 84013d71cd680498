"""How tests type a bundle's commands, and read its configurations without running them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from monai.bundle import ConfigParser

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def words(bundle, configs, overrides):
    files = "[" + ",".join(f"'bundles/{bundle}/configs/{c}.json'" for c in configs) + "]"
    options = [str(w) for k, v in overrides.items() for w in (f"--{k}", v)]
    return [sys.executable, "-m", "monai.bundle", "run", "--config_file", files, *options]


def run(bundle, *configs, **overrides):
    command = words(bundle, configs, overrides)
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def done(bundle, *configs, **overrides):
    result = run(bundle, *configs, **overrides)
    assert result.returncode == 0, result.stdout[-1500:] + result.stderr[-3000:]
    return result


def killed_and_resumed(bundle, configs, options, folder, *, outputs=("output_dir", "ckpt_dir")):
    """Trains once in ``folder/whole``; once in ``folder/cut``, killed after the first saved epoch and started again.

    Returns both folders, when the weights are the same to the last bit.
    """
    whole, cut = ({**options, **dict.fromkeys(outputs, folder / name)} for name in ("whole", "cut"))
    done(bundle, *configs, **whole)
    process = subprocess.Popen(words(bundle, configs, cut), cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    last = folder / "cut" / "checkpoints" / "last.pth"
    deadline = time.monotonic() + 200
    while not last.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and last.is_file(), "the training ended before it was killed"
    done(bundle, *configs, **cut)
    first, second = (torch.load(folder / name / "model.pt", weights_only=True) for name in ("whole", "cut"))
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    return folder / "whole", folder / "cut"


def parsed(bundle, configs, **given):
    parser = ConfigParser()
    parser.read_config([str(ROOT / f"bundles/{bundle}/configs/{c}.json") for c in configs])
    for key, value in given.items():
        parser[key] = str(value) if isinstance(value, Path) else value
    return parser
