"""How tests type a bundle's commands, and read its configurations without running them."""

import os
import subprocess
import sys
from pathlib import Path

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


def parsed(bundle, configs, **given):
    parser = ConfigParser()
    parser.read_config([str(ROOT / f"bundles/{bundle}/configs/{c}.json") for c in configs])
    for key, value in given.items():
        parser[key] = str(value) if isinstance(value, Path) else value
    return parser
