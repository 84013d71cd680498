"""A pass goes only where it was measured that the student answers as well."""

from __future__ import annotations

import math

import pytest

from tools.amalgamate.verdict import AGREES, AS_GOOD, FOUND, Row, passes, verdicts

NAN = math.nan


def row(structure: str, *, agreement: float = NAN, student: float = NAN, own: float = NAN, expert: str = "a") -> Row:
    return Row("ct", "case", structure, expert, agreement, student, own)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ([row("liver", agreement=0.2, student=0.76, own=0.8)], "go"),  # labels count, agreement does not
        ([row("liver", agreement=0.99, student=0.75, own=0.8)], "keep"),
        ([row("liver", agreement=AGREES)], "go"),
        ([row("liver", agreement=AGREES - 0.01)], "keep"),
        ([row("liver")], "unseen"),
        ([row("liver", student=0.5)], "unseen"),  # a label that the expert was not compared with says nothing of it
        ([row("liver", student=0.9, own=0.5), row("liver", student=0.2, own=0.5)], "go"),
        ([row("liver", student=0.0, own=0.0)], "neither"),
        ([row("liver", student=0.0, own=0.017)], "neither"),
        ([row("liver", student=0.49, own=0.2)], "neither"),
        ([row("liver", student=0.0, own=FOUND)], "keep"),
        ([row("liver", student=FOUND, own=0.2)], "go"),  # the student finds what its expert does not
        ([row("liver", agreement=0.0, student=0.0, own=0.0)], "neither"),
    ],
)
def test_words(given: list[Row], word: str) -> None:
    (found,) = verdicts(given)
    assert found.word == word


def test_means_are_over_scans_that_say_it() -> None:
    (found,) = verdicts([row("liver", agreement=0.8), row("liver"), row("liver", agreement=0.6)])
    assert found.scans == 2 and found.agreement == pytest.approx(0.7) and math.isnan(found.student)
    (found,) = verdicts([row("liver", student=0.4, own=0.8), row("liver", student=0.8, agreement=0.5)])
    assert (found.student, found.own, found.scans) == (0.4, 0.8, 2)
    assert AS_GOOD < 1


def test_a_pass_goes_when_all_that_it_knows_goes() -> None:
    given = [row("liver", agreement=0.95), row("spleen", agreement=0.5), row("femur"),
             row("liver", agreement=0.95, expert="b"), row("label", student=0.5, expert="")]  # fmt: skip
    first, second = passes(verdicts(given))
    assert (first.expert, first.goes, first.kept_for, first.unseen) == ("a", False, ("spleen",), ("femur",))
    assert (second.expert, second.goes, second.poor) == ("b", True, ())
    (third,) = passes(verdicts([row("liver", student=0.3, own=0.3), row("rib", student=0.7, own=0.3)]))
    assert third.goes and not third.stays and third.poor == ("liver",)


def test_a_pass_that_finds_nothing_neither_goes_nor_stays() -> None:
    lost = row("scar", student=0.0, own=0.017)
    (found,) = passes(verdicts([lost]))
    assert (found.goes, found.stays, found.poor) == (False, False, ("scar",))
    (found,) = passes(verdicts([lost, row("liver", student=0.2, own=0.9)]))
    assert (found.goes, found.stays, found.kept_for) == (False, True, ("liver",))


@pytest.mark.parametrize(
    ("student", "own", "word"),
    [(0.76, 0.8, "go"), (0.759, 0.8, "keep"), (0.49, 0.49, "neither"), (0.5, 0.49, "go"), (0.49, 0.5, "go"),
     (0.47, 0.5, "keep"), (0.475, 0.5, "go"), (0.5, 0.5, "go")],
)  # fmt: skip
def test_the_bars_of_a_verdict(student: float, own: float, word: str) -> None:
    (found,) = verdicts([row("liver", student=student, own=own, agreement=0.1)])
    assert (found.word, found.scans, found.student, found.own, found.agreement) == (word, 1, student, own, 0.1)


def test_means_are_of_scans_with_both() -> None:
    rows = [row("liver", student=0.8, own=0.6, agreement=0.5), row("liver", student=0.2), row("liver", agreement=0.7),
            row("liver")]  # fmt: skip
    (found,) = verdicts([*rows, row("liver", student=0.1, expert="")])
    assert (found.scans, found.student, found.own) == (3, 0.8, 0.6) and found.agreement == pytest.approx(0.6)
