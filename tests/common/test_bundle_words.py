"""What we write for ``monai.bundle run`` is read as what was meant: by the real Fire, and by MONAI's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from common.bundle_words import (
    FILES,
    TypedText,
    as_typed,
    guessed,
    knob,
    knobs,
    said_again,
    shown_knob,
    with_files,
    word,
)
from common.errors import ConfigError
from tests.hostile import VALUES
from tests.monai_words import arguments_of


def read(**given: Any) -> dict[str, Any]:
    """Values as a run has them, when its command is made of them."""
    found = arguments_of(["run", *knobs(given)])
    parser = ConfigParser(dict.fromkeys(given, "") | {"behind": "@key"})
    parser.update(found)
    return {key: parser.get_parsed_content(key) for key in found}


@pytest.mark.parametrize("value", [*VALUES, list(VALUES), {v: v for v in VALUES if v}, 3, -1, 1.5, True, None, [1, 2]])
def test_a_value_is_read_as_what_was_meant_and_no_other_is_set(value: Any) -> None:
    assert read(key=value, other=1, last=value) == {"key": value, "other": 1, "last": value}


def test_paths_are_text() -> None:
    assert read(key=Path("-x"), last=[Path("a"), {"b": Path("$c")}]) == {"key": "-x", "last": ["a", {"b": "$c"}]}


def test_a_text_too_deep_for_the_parser_is_text() -> None:
    for text in ("-" * 20_000 + "1", "[" * 5_000):
        assert read(key=text) == {"key": text}


def test_what_a_user_typed_for_a_configuration_stays_an_expression() -> None:
    assert word(TypedText("$1 + 1")) == "$1 + 1" and knob("key", TypedText("$1 + 1")) == "--key=$1 + 1"
    assert as_typed([("a", "1")]) == {"a": "1"} and isinstance(as_typed([("a", "1")])["a"], TypedText)


@pytest.mark.parametrize("value", [*(v for v in VALUES if v), 3, -1.5, None, True, [1, "-x"], {"a": "-b"}])
def test_what_fire_has_read_already_is_read_so_again(value: Any) -> None:
    assert arguments_of(["run", knob("key", said_again(value))]) == {"key": value}


def test_a_key_ends_at_its_sign() -> None:
    with pytest.raises(ConfigError):
        knob("a=b", 1)


@pytest.mark.parametrize(
    "names", [["a.json"], ["a.json", "b c.json"], ["it's/a.json"], ["1,2"], ["a", 'b"c'], ["-x.json"], ["--", "-x"]]
)
def test_configuration_files(names: list[str]) -> None:
    found = arguments_of(["run", with_files([Path(n) for n in names]), knob("key", "-x")])
    assert found[FILES] in (names, names[0] if len(names) == 1 else None) and found["key"] == "-x"
    assert guessed(with_files([Path(n) for n in names]).partition("=")[2]) == found[FILES]


def test_what_is_shown_is_data_as_well() -> None:
    assert shown_knob("start_from", "runs/x.pt") == "--start_from runs/x.pt" and shown_knob("a", "-b") == "--a=-b"
    assert "common.literals.value" in shown_knob("start_from", "$x.pt")
