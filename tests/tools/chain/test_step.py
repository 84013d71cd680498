"""What a chain records of the command that started it."""

import dataclasses
import hashlib
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from common.data.datasets.datalist import read_collection
from common.data.datasets.dataset import read_dataset
from common.errors import ConfigError
from tests.monai_words import arguments_of
from tests.tools.empty_dataset import empty_dataset
from tools.chain.record import Record
from tools.chain.step import ChainSettings, Step, fingerprint, own_data, run_words, step_files


def test_a_chain_records_the_line_that_was_typed(monkeypatch, collection, tmp_path):
    words = ["chain", "run", "ka2er", "--dataset_dir", "my data/x", "--stage2", "--modality 'LGE MR'"]
    monkeypatch.setattr(sys, "argv", ["tools", *words])
    settings = ChainSettings("ka2er", collection, tmp_path / "out", preset="smoke")
    line = Record.open(tmp_path / "out", settings, []).data["command"]
    assert shlex.split(line) == ["python", "-m", "tools", *words]


@pytest.mark.parametrize("place, task", [("cc", "ct,other"), ("x,y", "ct"), ("-x,y", "ct")])
def test_a_renamed_task_with_commas_is_one_task_to_its_run(place, task, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for folder in ("other", "y", f"{place}/{task}", f"{place}/second"):
        empty_dataset(Path(folder), {"liver": 1})
    listing = {"datasets": [task, "second"], "tasks": {task: {"labels": {"liver": "Leber"}}}}
    Path(place, "collection.json").write_text(json.dumps(listing))
    settings = ChainSettings("ka2er", Path(place), tmp_path / "out", tracking="none")
    for name in (task, "second"):
        dataset = read_collection(place).dataset(name)
        words = run_words(settings, "--config_file=x.json", {"dataset_dir": own_data(settings, dataset)[0]}, "")
        found = read_collection(arguments_of(words[words.index("run") :])["dataset_dir"])
        assert found.datasets == (dataset,)
    assert own_data(settings, read_dataset(f"{place}/second"))[0] == f"{place}/second"


def test_a_finished_step_is_known_by_what_its_command_says(tmp_path):
    """Records of chains hold this: options and values one by one, however the command joins them."""
    file = tmp_path / "x.json"
    file.write_text("{}")
    settings = ChainSettings("ka2er", tmp_path, tmp_path, tracking="none")
    argv = run_words(settings, f"--config_file={file}", {"name": "a=b", "seed": 0}, "")
    assert step_files(argv) == [file] and step_files(["python", "--name=--config_file=y.json"]) == []
    digest = hashlib.sha256()
    for word in ("-m", "monai.bundle", "run", "--config_file", str(file), "--name", "a=b", "--seed", "0"):
        digest.update(word.encode() + b"\0")
    digest.update(b"x.json\0" + hashlib.sha256(b"{}").digest())
    step = Step("a", "expert", "A", tmp_path, argv)
    assert fingerprint(step) == digest.hexdigest()
    assert fingerprint(dataclasses.replace(step, argv=(*argv, "--more=1"))) != fingerprint(step)


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
