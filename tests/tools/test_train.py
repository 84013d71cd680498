"""`tools train` prints exactly the command that it runs, and the command is the plain one."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from common.errors import ConfigError
from tests.monai_words import arguments_of
from tools.train import command, train, typed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_plain_command() -> None:
    assert command("ka2er")[1:] == ["-m", "monai.bundle", "run", "--config_file=bundles/ka2er/configs/train.json"]


def test_overlay_and_overrides() -> None:
    words = command("ka2er", "smoke", max_epochs=1, roi_size=[32, 32, 32])
    assert words[-3:] == [
        "--config_file=['bundles/ka2er/configs/train.json','bundles/ka2er/configs/smoke.json']",
        "--max_epochs=1",
        "--roi_size=[32, 32, 32]",
    ]


def test_a_value_that_was_read_once_is_read_so_again() -> None:
    """Fire has split the words of ``tools train`` already; MONAI's Fire splits those that come out."""
    given = {
        "name": "-x",
        "other": "--max_epochs=1",
        "number": "12",
        "expression": "$1 + 1",
        "none": None,
        "text": "None",
    }
    words = command("ka2er", "smoke", **given)
    found = arguments_of(words[words.index("run") :])
    assert {k: found[k] for k in given if k in found} == given and set(found) - set(given) == {"config_file"}


def test_several_gpus() -> None:
    words = command("ka2er", gpus=2)
    assert words[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    assert "multi_gpu_train.json" in words[-1]


def test_a_bundle_elsewhere_is_told_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine" / "configs").mkdir(parents=True)
    (tmp_path / "mine" / "configs" / "train.json").write_text("{}")
    assert command(str(tmp_path / "mine"))[-1] == f"--bundle_root={tmp_path / 'mine'}"


@pytest.mark.parametrize("word", ["plain", "['a','b']", "a b", '"', "it's $HOME", "`x`"])
def test_typed_is_read_back_by_a_shell(word: str) -> None:
    line = typed(["python3", word])
    assert shlex.split(line) == ["python", word]
    told = subprocess.check_output(["sh", "-c", line.replace("python", "printf %s", 1)], text=True)
    assert told == word  # shlex.split alone expands nothing


def test_dry_run_prints_and_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    train("ka2er", "smoke", dry_run=True)
    assert capsys.readouterr().out.startswith('python -m monai.bundle run --config_file="[')


def test_unknown_overlay() -> None:
    with pytest.raises(ConfigError, match="smokey"):
        command("ka2er", "smokey")


def test_unknown_bundle() -> None:
    with pytest.raises(ConfigError, match="did you mean 'ka2er'"):
        command("ka2e")


def test_the_exit_status_is_the_run_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.train.sys.executable", shutil.which("false"))
    with pytest.raises(SystemExit) as caught:
        train("ka2er")
    assert caught.value.code == 1
    monkeypatch.setattr("tools.train.sys.executable", shutil.which("true"))
    train("ka2er")
