"""Words mean what the annotation of their argument says."""

import pytest

from common.errors import ConfigError
from tools.__main__ import call
from tools.command_line import count_of, name_pairs, parsed, seeds_of, with_values


def given(hint, text):
    return parsed(text, hint=hint, option="x")


@pytest.mark.parametrize(
    "text", ["12345", "2024_01", "701", "a,b", "[x]", "None", "True", "1e5", "{a: 1}", "a#b", "(1)", ""]
)
def test_text_is_text(text):
    assert given(str, text) == text
    assert given(str | None, text) == (None if text == "None" else text)
    assert given(str | list[str], text) == text


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (bool, "True", True), (bool, "false", False), (bool | None, "None", None), (bool, "1", True),
        (bool, "no", False),
        (int, "12", 12), (int | None, "-3", -3), (float, "2", 2.0), (float | None, "1e-3", 1e-3),
        (int | str, "auto", "auto"), (int | str, "2", 2), (int | str | None, "all", "all"),
        (int | list[int], "0,1,2", (0, 1, 2)), (int | list[int], "4", 4), (list[float], "1.5,1.5,3", (1.5, 1.5, 3)),
        (list[float], "[1,2,3]", [1, 2, 3]), (list[int], "4", (4,)),
        (str | list[str], "['a', 'b,c']", ["a", "b,c"]), (str | list[str], "1,2", "1,2"),
        (dict[str, int] | None, "{'liver': [[1, 2, 3]]}", {"liver": [[1, 2, 3]]}),
        (dict[str, int], "{a: b}", {"a": "b"}),
        (str | dict[str, int], "{liver: 1}", {"liver": 1}), (str | dict[str, int], "liver=1", "liver=1"),
    ],
)  # fmt: skip
def test_other_kinds(hint, text, value):
    assert given(hint, text) == value


@pytest.mark.parametrize(
    ("hint", "text"),
    [(bool, "maybe"), (int, "1.5"), (int, "a"), (float, "x"), (dict[str, int], "a"), (int, "٣"), (int, "9" * 5000),
     (int, "1_0"), (int, " 1"), (int, "01"), (int, "²"), (float, "nan"), (float, "٣"), (float, "1_0"),
     (float, "9" * 5000), (float, "1e999"), (list[float], "abc"), (list[float], "1,a"), (list[float] | None, "True"),
     (list[float], "[1,[2]]"), (list[int], "1.5"), (int | list[int], "1,a"), (int | list[int], "٣"),
     (int | list[int], "9" * 5000), (list[float], "9" * 5000), (list[float], "[" * 5000), (list[float], "{'a': 1}")],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_the_options_name(hint, text):
    with pytest.raises(ConfigError, match="--x"):
        given(hint, text)


def command(name: str, out: str, steps: str = "", count: int | None = None, on: bool = False, *more: str) -> None:
    """A command."""
    SEEN.append((name, out, steps, count, on, more))


def listing(*names: str, scans: str | list[str] = "", out: str = "") -> None:
    """A command whose option takes pairs."""
    SEEN.append((names, scans, out))


class Group:
    """Commands of one kind."""

    def one(self, *parts: str, out: str, scale: float = 1.0) -> None:
        """A sub-command."""
        SEEN.append((parts, out, scale))


SEEN: list[tuple] = []


@pytest.mark.parametrize(
    ("component", "words", "seen"),
    [
        (command, ["12345", "2024_01"], ("12345", "2024_01", "", None, False, ())),
        (command, ["a,b", "[x]", "--on"], ("a,b", "[x]", "", None, True, ())),
        (command, ["a", "b", "--steps", "--max_epochs 2"], ("a", "b", "--max_epochs 2", None, False, ())),
        (command, ["a", "b", "--steps=--max_epochs 2"], ("a", "b", "--max_epochs 2", None, False, ())),
        (command, ["a", "b", "--steps", "--a 1 --b 2", "--count", "-3"], ("a", "b", "--a 1 --b 2", -3, False, ())),
        (command, ["--name", "1", "--out", "None", "--noon"], ("1", "None", "", None, False, ())),
        (listing, ["e", "--scans", "ct=a,b", "mr=it's", "f"], (("e", "f"), ["ct=a,b", "mr=it's"], "")),
        (listing, ["--scans", "ct=a", "mr=b", "--out", "x=1"], ((), ["ct=a", "mr=b"], "x=1")),
        (listing, ["--scans", "ct=a", "e", "x=1"], (("e", "x=1"), "ct=a", "")),
        (listing, ["--scans=ct=a", "mr=b"], (("mr=b",), "ct=a", "")),
        (Group, ["one", "1", "2,3", "--out", "7"], (("1", "2,3"), "7", 1.0)),
        (Group, ["one", "--out", "[x]", "--scale", "2"], ((), "[x]", 2.0)),
    ],
)
def test_commands_get_what_was_typed(component, words, seen, monkeypatch):
    monkeypatch.setattr("tools.__main__.find", lambda name: component() if component is Group else component)
    SEEN.clear()
    call(["toy", *words])
    assert [seen] == SEEN


def test_an_option_without_its_value_does_not_take_the_next_one():
    assert with_values(["a", "--steps", "--on"], command) == ["a", "--steps", "--on"]
    assert with_values(["--unknown", "--key value"], command) == ["--unknown", "--key value"]


def test_a_seed_below_nought_is_refused_by_its_name():
    for hint, option, text in (
        (int, "seed", "-1"),
        (int | list[int], "seeds", "0,-1"),
        (int | list[int], "seeds", "-1"),
    ):
        with pytest.raises(ConfigError, match=f"--{option}: a seed is a number >= 0"):
            parsed(text, hint=hint, option=option)
    assert parsed("-1", hint=int, option="number") == -1


@pytest.mark.parametrize("value", ["a", "0,a", "٣", "9" * 5000, (), (1, 1), "0,0", (True,), (-1,), (0.5,), "", None])
def test_seeds_that_are_none_are_refused(value):
    with pytest.raises(ConfigError, match="seeds are different numbers"):
        seeds_of(value)


def test_seeds_and_counts():
    assert seeds_of(3) == (3,) and seeds_of("0, 2") == (0, 2) and seeds_of([1, "2"]) == (1, 2)
    assert count_of("auto", "jobs", auto=7) == 7 and count_of("2", "jobs", auto=7) == count_of(2, "jobs", auto=7) == 2
    for wrong in ("a", "0", 0, -1, "٣", "9" * 5000, True, 1.5, None, ""):
        with pytest.raises(ConfigError, match="--jobs"):
            count_of(wrong, "jobs", auto=7)


@pytest.mark.parametrize("value", ["-x", "-", "--", "--=", "-[1]"])
def test_a_value_with_a_dash_in_front_is_asked_for_in_one_word(value):
    """Fire would set the option to True, or to the text of that, and go on."""
    with pytest.raises(ConfigError, match=r"(?s)one word with its option.*next: +--steps="):
        with_values(["a", "--steps", value], command)
    assert with_values(["a", f"--steps={value}", "--on", value], command) == ["a", f"--steps={value}", "--on", value]


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("ct=a,mr=b", ["ct=a", "mr=b"]), ("ct=a,b", ["ct=a,b"]), ("a,b=c", ["a,b=c"]), ("a", ["a"]), ("", []),
        (["ct=a,mr=b"], ["ct=a,mr=b"]),
    ],
)  # fmt: skip
def test_commas_part_pairs_where_a_name_follows(text, pairs):
    assert name_pairs(text) == pairs
