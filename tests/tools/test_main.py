"""The one door to the commands: fast, helpful, and no traceback for what a user can mend."""

from __future__ import annotations

import inspect
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from common.errors import ConfigError, DataError
from tools.__main__ import COMMANDS, find, guarded, main, refuse_unknown_flags, usage

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists(name: str) -> None:
    component = find(name)
    assert callable(component) or any(not m.startswith("_") for m in dir(component))
    assert (component if callable(component) else type(component)).__doc__


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    code = "import sys; from tools.__main__ import main; main(['--help']); print('torch' in sys.modules)"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")
    assert usage().splitlines()[0] in done.stdout
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docotr"]) == 2
    captured = capsys.readouterr()
    assert "did you mean 'python -m tools doctor'?" in captured.err
    assert "Traceback" not in captured.err


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ConfigError):
        main(["docotr", "--debug"])


def test_unknown_flag_is_refused_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phantom", "--out", str(tmp_path / "p"), "--sed", "3"]) == 2
    assert "did you mean --seed?" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


class Group:
    def one(self, *, alpha: int = 0) -> None:
        """Named options only."""

    def any(self, **more: int) -> None:
        """Takes every option."""


@pytest.mark.parametrize(
    "words",
    [["one", "--alpha", "1"], ["one", "--alpha=1"], ["one", "--noalpha"], ["any", "--x", "1"], ["one", "--help"]],
)
def test_known_flags_pass(words: list[str]) -> None:
    refuse_unknown_flags(Group(), words, where="group")


@pytest.mark.parametrize("words", [["one", "--beta", "1"], ["one", "--alhpa=1"]])
def test_unknown_flags_of_subcommands(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="unknown option"):
        refuse_unknown_flags(Group(), words, where="group")


@pytest.mark.parametrize(("error", "status"), [(DataError("x"), 2), (KeyboardInterrupt(), 130), (None, 0)])
def test_exit_status(error: BaseException | None, status: int) -> None:
    def run() -> None:
        if error is not None:
            raise error

    assert guarded(run, debug=False) == status


def test_a_place_that_cannot_be_read_is_named_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, reason in ((tmp_path / ("x" * 300), "File name too long"), (tmp_path, "Is a directory")):
        assert guarded(path.read_bytes, debug=False) == 2  # type: ignore[arg-type]
        shown = capsys.readouterr().err
        assert reason in shown and str(tmp_path) in shown and "Traceback" not in shown
        with pytest.raises(OSError, match=reason):
            guarded(path.read_bytes, debug=True)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="no place"):
        guarded(_no_place, debug=False)


def _no_place() -> None:
    raise OSError("no place")


def test_a_refusal_within_a_configuration_is_said_in_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        try:
            raise DataError("the reason", where="file.json")
        except DataError as error:
            raise RuntimeError("Failed to instantiate component") from error

    assert guarded(run, debug=False) == 2
    assert capsys.readouterr().err.startswith("DataError: file.json: the reason")
    with pytest.raises(RuntimeError):
        guarded(run, debug=True)


def test_other_errors_keep_their_traceback() -> None:
    def run() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        guarded(run, debug=False)


class _RanError(Exception):
    """A command's code was entered."""


def _all_commands() -> list[tuple[list[str], Any]]:
    found: list[tuple[list[str], Any]] = []
    for name in COMMANDS:
        component = find(name)
        if callable(component):
            found.append(([name], component))
        else:
            found += [([name, m], getattr(component, m)) for m in dir(component) if not m.startswith("_")]
    return found


def _tripwire(codes: set[Any]) -> Callable[[FrameType, str, object], None]:
    def tripwire(frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and frame.f_code in codes:
            raise _RanError(frame.f_code.co_qualname)

    return tripwire


def test_words_too_many_run_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of every command and sub-command that does not take any number of words."""
    monkeypatch.chdir(tmp_path)
    commands = _all_commands()
    trip = _tripwire({inspect.unwrap(function).__code__ for _, function in commands})
    refused = 0
    for words, function in commands:
        parameters = inspect.signature(function).parameters.values()
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            lines = [[*words, "a", "-", "upper"]]
        else:
            free = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
            lines = [[*words, *free, "extra"], [*words, *free, "-"]]
            lines += [[*words, f"--{free[0].replace('_', '-')}=x", *free[1:], "extra"]] if free else []
        for line in lines:
            before = sys.getprofile()
            sys.setprofile(trip)
            try:
                status = main(line)
            finally:
                sys.setprofile(before)
            told = capsys.readouterr().err
            assert status == 2 and ("a word too many" in told or "begins with '-'" in told), (line, told)
            refused += 1
    assert refused > 50 and not list(tmp_path.iterdir())


def positional(a: str = "", *, quiet: bool = False, out: str = "") -> None:
    """One word, a switch and an option."""


@pytest.mark.parametrize("words", [["x"], ["--a", "x"], ["x", "--quiet"], ["--out", "o", "x"], ["-o", "o", "x"], ["-5"],
                                   ["--noquiet", "--out=o", "x"], ["x", "--", "--verbose"], []])  # fmt: skip
def test_words_that_an_argument_takes_pass(words: list[str]) -> None:
    refuse_unknown_flags(positional, words, where="positional")


@pytest.mark.parametrize("words", [["x", "y"], ["--a", "x", "y"], ["--a=x", "y"], ["--out=o", "x", "y"],
                                   ["-a", "x", "y"],
                                   ["x", "-"], ["x", "-", "y"], ["--noquiet", "x"], ["x", "--noquiet=1"]])  # fmt: skip
def test_words_too_many_are_named(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"too many|takes no value") as caught:
        refuse_unknown_flags(positional, words, where="positional")
    assert caught.value.where == "positional"


def test_help_runs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of every command and sub-command: Fire would run what needs no argument, and show the help of its result."""
    monkeypatch.chdir(tmp_path)
    commands = _all_commands()
    assert len(commands) > 25 and {"add_modality", "store", "phantom"} <= {words[-1] for words, _ in commands}
    tripwire = _tripwire({inspect.unwrap(function).__code__ for _, function in commands})

    for words, function in commands:
        asked = [[*words, "--help"], [*words, "-h"], [*words, "list", "step", "--help"], [*words, "--", "--help"]]
        for line in (*asked, [words[0], "--help", *words[1:]]):
            before = sys.getprofile()
            sys.setprofile(tripwire)
            try:
                status = main(line)
            finally:
                sys.setprofile(before)
            shown = capsys.readouterr().out
            first = (inspect.getdoc(function) or "").splitlines()[0]
            assert status == 0 and first in shown and shown.startswith(f"NAME\n    {' '.join(words)} "), line
    for name in {words[0] for words, _ in commands if len(words) > 1}:
        assert main([name, "--help"]) == 0 and "COMMAND is one of" in capsys.readouterr().out
        assert main([name, "no_such", "--help"]) == 2 and "no sub-command 'no_such'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["-sed", "3"], ["-x"], ["-q=1", "--", "--trace"], ["--sed", "3", "--", "--trace"]])
def test_an_unknown_flag_of_one_dash_is_refused_before_anything_runs(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["phantom", f"--out={tmp_path / 'p'}", *words]) == 2
    assert f"unknown option {words[0].split('=')[0]}\n" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()
    refuse_unknown_flags(Group(), ["one", "-a", "1"], where="group")
