"""What a chain records of the command that started it."""

import shlex
import sys

from tools.chain.record import Record
from tools.chain.step import ChainSettings


def test_a_chain_records_the_line_that_was_typed(monkeypatch, collection, tmp_path):
    words = ["chain", "run", "ka2er", "--dataset_dir", "my data/x", "--stage2", "--modality 'LGE MR'"]
    monkeypatch.setattr(sys, "argv", ["tools", *words])
    settings = ChainSettings("ka2er", collection, tmp_path / "out", preset="smoke")
    line = Record.open(tmp_path / "out", settings, []).data["command"]
    assert shlex.split(line) == ["python", "-m", "tools", *words]
