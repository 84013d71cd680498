"""A value stands in one word with its option, and a shell reads what is shown as what was meant."""

from __future__ import annotations

import argparse
import shlex
import subprocess
from pathlib import Path

import pytest

from common.command_words import option, place, shown, shown_option, shown_place
from common.errors import ConfigError
from tests.hostile import VALUES


@pytest.mark.parametrize("value", [v for v in VALUES if v != "--"])  # Python 3.11's argparse drops it even there
def test_a_value_is_none_of_the_options(value: str) -> None:
    """As argparse reads it, which the label server and torch's launcher do."""
    parser = argparse.ArgumentParser()
    for key in ("studies", "max_epochs", "x"):
        parser.add_argument(f"--{key}")
    assert vars(parser.parse_args([option("studies", value)])) == {"studies": value, "max_epochs": None, "x": None}
    assert shlex.split(shown_option("studies", value)) in (["--studies", value], [option("studies", value)])
    assert vars(parser.parse_args(shlex.split(shown_option("studies", value))))["studies"] == value
    assert shlex.split(shown_place(value)) == [place(value)]


@pytest.mark.parametrize("key", ["", "-x", "a=b", "a b", "--a", "=", "a\n"])
def test_a_key_is_a_key(key: str) -> None:
    with pytest.raises(ConfigError, match="the name of an option"):
        option(key, 1)


@pytest.mark.parametrize("key", ["max_epochs", "train::trainer::max_epochs", "a#0#b", "+extra", "a::-1"])
def test_keys_of_configurations_are_keys(key: str) -> None:
    assert option(key, 1) == f"--{key}=1"


@pytest.mark.parametrize("path", ["-x", "-x/ct", "--", "-", "--help"])
def test_a_path_is_no_option(path: str) -> None:
    assert place(path) == f"./{path}" and shown_place(Path(path)).startswith("./-")
    assert Path(place(path)) == Path(path)


@pytest.mark.parametrize("path", ["x", "./x", "/-x", "a/-x", "../-x"])
def test_other_paths_stay(path: str) -> None:
    assert place(path) == path


def test_what_is_shown() -> None:
    assert shown_option("task", "ct") == "--task ct" and shown_option("task", "-x y") == "--task='-x y'"
    assert shown("mv", "a b", "--c=d e", "--f=['a']", "it's") == "mv 'a b' --c='d e' --f=\"['a']\" \"it's\""


def test_a_shell_reads_every_value_as_it_is() -> None:
    words = [v for v in VALUES if "\0" not in v]
    line = shown("printf", "%s\\n", *(option("key", v) for v in words), *map(place, words))
    told = subprocess.check_output(["sh", "-c", line], text=True)
    assert told == "".join(f"{w}\n" for w in [*(f"--key={v}" for v in words), *map(place, words)])
