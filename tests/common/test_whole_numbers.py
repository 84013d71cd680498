"""A text is a whole number, or it is not: nothing is raised, and no other script's digits are taken for it."""

import pytest

from common.whole_numbers import whole_number

NONE = [
    "",
    " 1",
    "1 ",
    "1\n",
    "+1",
    "-1",
    "00",
    "01",
    "1_0",
    "1.0",
    "1e3",
    "٣",
    "３",
    "²",
    "Ⅲ",
    "三",
    "a",
    "1" * 10,
    "9" * 5000,
]


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("7", 7), ("12", 12), ("999999999", 999_999_999)])
def test_numbers(text: str, number: int) -> None:
    assert whole_number(text) == number
    assert whole_number(f"-{text}", negative=True) == -number and whole_number(f"-{text}") is None


@pytest.mark.parametrize("text", [*NONE, 1, None, 1.0, True, b"1", ["1"]])
def test_what_is_none(text: object) -> None:
    assert whole_number(text) is None
    assert text == "-1" or whole_number(text, negative=True) is None


def test_more_digits_where_they_are_meant() -> None:
    assert whole_number("1" * 12, digits=12) == int("1" * 12)
    assert whole_number("1" * 13, digits=12) is None and whole_number("9" * 5000, digits=18, negative=True) is None
    assert whole_number("-" + "1" * 9, negative=True) == -111_111_111
    assert whole_number("1" * 10, negative=True) is None
