"""What a chain records of the command that started it."""

import shlex
import sys
from dataclasses import replace

import pytest

from common.errors import ConfigError
from tools.chain.record import Record
from tools.chain.step import ChainSettings, run_words


def test_a_chain_records_the_line_that_was_typed(monkeypatch, collection, tmp_path):
    words = ["chain", "run", "ka2er", "--dataset_dir", "my data/x", "--stage2", "--modality 'LGE MR'"]
    monkeypatch.setattr(sys, "argv", ["tools", *words])
    settings = ChainSettings("ka2er", collection, tmp_path / "out", preset="smoke")
    line = Record.open(tmp_path / "out", settings, []).data["command"]
    assert shlex.split(line) == ["python", "-m", "tools", *words]


@pytest.mark.parametrize("name", ["run?x=1", "a%41b", "a%2Fb", "%00"])
def test_a_folder_that_an_address_misreads_is_refused_where_it_is_tracked(name, tmp_path):
    settings = ChainSettings("ka2er", tmp_path, tmp_path / name / "out")
    with pytest.raises(ConfigError, match="keep its records elsewhere"):
        run_words(settings, "x.json", {}, "run")
    assert run_words(replace(settings, tracking="none"), "x.json", {}, "run") and not list(tmp_path.iterdir())


def test_other_folders_are_tracked_where_they_are(tmp_path):
    for name in ("50% of me@home", "a b#1", "ü", "a+b", "~"):
        path = tmp_path / name / "mlruns.db"
        assert ChainSettings("ka2er", tmp_path, path.parent).tracking_uri == f"sqlite:///{path}"
