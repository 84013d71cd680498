"""One short chain of each method, typed as a user does, from the phantom to the report: what `.ci/run` has of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.warm_python import python
from tools.report.results import read_study

ROOT = Path(__file__).resolve().parents[3]
WORDS = {
    "ka2er": (),
    "m4oe": ("--phase1", "separate"),
    "samora": ("--variants", "decoder_only"),
    "sam_med3d_moe": (),
    "ic_moe": (),
}
pytestmark = [pytest.mark.slow, pytest.mark.selected, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("method", WORDS)
def test_a_chain_ends_with_scores_and_a_page(method: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    pictures = method == "ic_moe"
    data = request.getfixturevalue("phantom_2d_dir") / "phantom_2d_skin" if pictures else None
    data = data or request.getfixturevalue("phantom_dir")
    command = [python(), "-m", "tools", "chain", "run", method, "--dataset_dir", str(data), "--preset", "smoke",
               "--output_dir", str(tmp_path), "--tracking", "none", "--install", "False", *WORDS[method]]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    runs = read_study([tmp_path]).runs
    assert {r.status for r in runs} == {"done"}
    assert [bool(r.rows) for r in runs if r.kind == "amalgamated"] == [True]
    assert (tmp_path / "report" / "index.html").is_file()
