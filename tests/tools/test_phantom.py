import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import DataError
from tools.phantom import phantom

REPOSITORY = Path(__file__).parents[2]


def test_says_what_is_there_and_what_comes_next(tmp_path, capsys):
    phantom(out=str(tmp_path / "p"), size="tiny", cases=1)
    out = capsys.readouterr().out
    assert "phantom_lge: LGE MR; 1 training, 1 validation, 1 test, 1 unlabelled; left atrium, myocardium" in out
    assert out.rstrip().endswith(f"next: python -m tools chain run ka2er --dataset_dir {tmp_path / 'p'}")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p", "p_2d", "p_general"]
    phantom(out=str(tmp_path / "p"), size="tiny", cases=1)
    assert capsys.readouterr().out == out
    with pytest.raises(DataError, match="other parameters"):
        phantom(out=str(tmp_path / "p"), size="tiny", cases=2)


def test_command_line(tmp_path):
    command = [sys.executable, "-m", "tools", "phantom", "--out", "a b/phantom", "--size", "tiny", "--cases", "1"]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--dataset_dir 'a b/phantom'" in done.stdout
    assert (tmp_path / "a b" / "phantom" / "phantom_ct" / "dataset.json").exists()
