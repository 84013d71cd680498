"""Two processes on gloo: only the first writes, both continue."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from common.weights import read_state_dict


def distributed(toy, *extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    return subprocess.run(
        [*command, "-m", "monai.bundle", *toy.arguments(*extra)],
        capture_output=True,
        text=True,
        timeout=150,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.slow
@pytest.mark.selected
def test_only_the_first_process_writes_and_a_run_continues_equally(make_toy) -> None:
    whole, parts = make_toy("whole"), make_toy("parts")
    for toy in (whole, parts):
        config = json.loads(toy.config.read_text())
        config["network"] = "$torch.nn.parallel.DistributedDataParallel(@network_def)"
        config["train"]["dataloader"]["batch_size"] = 1
        config["distributed"] = {"_target_": "common.engine.run.distributed.start", "device": "cpu"}
        config["run"].insert(0, "$@distributed")
        toy.write(config)
    for toy, epochs in ((whole, 3), (parts, 1), (parts, 3)):
        result = distributed(toy, "--max_epochs", str(epochs))
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
        assert toy.epoch() == epochs
        assert not list(toy.root.rglob("*.tmp"))
    for name, tensor in whole.weights().items():
        assert not name.startswith("module.") and torch.equal(tensor, parts.weights()[name])
    assert set(read_state_dict(parts.model)[0]) == set(parts.weights())
