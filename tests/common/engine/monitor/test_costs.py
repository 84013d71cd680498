import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.engines import SupervisedEvaluator
from torch import nn
from torch.utils.data import DataLoader

from common.engine.monitor.costs import CaseCosts, count_parameters, counted_operations

ROOT = Path(__file__).resolve().parents[4]
CASES = [{"image": torch.zeros(2, 8, 8), "case": f"c{i}", "task": "ab"[i // 2]} for i in range(4)]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def _run(tmp_path, network, cases=CASES):
    handler = CaseCosts(output_dir=tmp_path, clock=Clock())
    loader = DataLoader(cases, batch_size=1)
    evaluator = SupervisedEvaluator("cpu", loader, network, val_handlers=[handler])
    evaluator.run()
    return json.loads((tmp_path / "evaluation" / "costs.json").read_text())


def test_every_case_is_timed_and_the_first_of_each_task_counted(tmp_path):
    network = nn.Conv2d(2, 3, 3, padding=1, bias=False)
    found = _run(tmp_path, network)
    assert found["parameters"] == 2 * 3 * 9 and found["device"] == "cpu"
    assert [(c["task"], c["case"], c["seconds"]) for c in found["cases"]] == [
        (c["task"], c["case"], 1.0) for c in CASES
    ]
    assert [c.get("counted", False) for c in found["cases"]] == [True, False, True, False]
    # every output value of a convolution needs in-channels x 3 x 3 products
    assert found["cases"][0]["multiply_adds_g"] == pytest.approx(64 * 3 * 2 * 9 / 1e9)
    assert all(c["peak_mb"] > 1 for c in found["cases"])


def test_an_earlier_file_never_passes_for_a_new_one(tmp_path):
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("no answer")

    _run(tmp_path, nn.Conv2d(2, 3, 3))
    with pytest.raises(RuntimeError, match="no answer"):
        _run(tmp_path, Broken())
    assert not (tmp_path / "evaluation" / "costs.json").exists()
    with counted_operations() as count:  # the counter of the broken run is closed
        torch.ones(2, 2) @ torch.ones(2, 2)
        assert count() == pytest.approx(8e-9)


def test_shared_parameters_count_once():
    layer = nn.Linear(3, 4)
    assert count_parameters([*layer.parameters(), layer.weight]) == 16


PEAK = """
import torch
from common.engine.monitor.costs import peak_megabytes, reset_peak
first = torch.ones(60_000_000)
del first
high = peak_megabytes()
reset_peak()
before = peak_megabytes()
held = torch.ones(30_000_000)
print(high - before, peak_megabytes() - before, float(held[0]))
"""


def test_the_peak_begins_anew():
    """In a process of its own: one that freed much before may take from that."""
    words = [sys.executable, "-c", PEAK]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    fell, rose, _ = map(float, done.stdout.split())
    assert fell > 160 and 80 < rose < 160


def test_expanded_parameters_inside_modules_are_no_obstacle(tmp_path):
    class Inner(nn.Module):
        def forward(self, tokens, x):
            return (tokens @ tokens.mT).sum() + x

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.inner = nn.Embedding(4, 8), Inner()

        def forward(self, x):
            return self.inner(self.tokens.weight.expand(len(x), -1, -1), x)

    found = _run(tmp_path, Outer())
    assert found["cases"][0]["multiply_adds_g"] == pytest.approx(4 * 4 * 8 / 1e9)
