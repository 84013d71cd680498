"""Commands are shown so that a shell takes them as they were meant."""

import shlex
import sys

import pytest

from tools.chain_record import Record
from tools.chain_step import as_typed, this_command

FILES = "['bundles/ka2er/configs/train.json','bundles/ka2er/configs/demo.json']"


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--config_file", FILES, "--output_dir", "runs/a"],
        ["--modality", "LGE MR", "--name", "it's", "--empty", ""],
        ["[$HOME]", '["a"]', "[`x`]", "[a\\", "[not!]", "*", "a;b", "ka2er,m4oe", "ka2er=demo"],
    ],
)
def test_a_shell_reads_the_words_that_were_given(words):
    assert shlex.split(as_typed(words)) == words


def test_lists_of_files_are_quoted_as_in_documents():
    assert as_typed(["--config_file", FILES]) == f'--config_file "{FILES}"'


def test_a_chain_records_the_line_that_was_typed(monkeypatch, collection, tmp_path):
    from tools.chain_plan import ChainSettings

    words = ["chain", "run", "ka2er", "--dataset_dir", "my data/x"]
    monkeypatch.setattr(sys, "argv", ["tools", *words])
    settings = ChainSettings("ka2er", collection, tmp_path / "out", preset="smoke")
    assert Record.open(tmp_path / "out", settings, []).data["command"] == this_command()
    assert shlex.split(this_command()) == ["python", "-m", "tools", *words]
