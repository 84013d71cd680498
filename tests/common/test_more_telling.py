"""Of two descriptions of one thing the more telling one is kept, and what cannot both be true is refused."""

from pathlib import Path

import pytest

from common.errors import DataError
from common.more_telling import agreed, more_telling

FILE = Path("dataset.json")


@pytest.mark.parametrize(
    ("told", "written", "kept"),
    [
        ("ct", "CT", "ct"),
        ("t2", "MRI", "t2"),
        ("MRI", "T2 MR", "T2 MR"),
        ("cbct", "CT", "cbct"),
        ("PET", "psma pet", "psma pet"),
        ("t2", "T2 fat sat", "T2 fat sat"),
        ("ct", "CT or MR", "ct"),
        ("CT or MR", "ct", "ct"),
        ("t2", "image", "t2"),
        ("site A", "CT", "CT"),
        ("site A", "image", "site A"),
        ("t2", "MRI fat sat", "t2 MRI fat sat"),
        ("CT venous", "CT portal", "CT venous portal"),
        ("ct arterial", "CT portal", None),
        ("DWI b50", "DWI b1000", None),
        ("CT", "MRI", None),
        ("T1", "T1 post", None),
    ],
)
def test_of_two_names_the_more_telling_one(told, written, kept):
    assert more_telling(told, written) == kept


def test_of_two_descriptions_and_what_is_told_of_it():
    same = agreed(("ct",), ("CT",), FILE, where="x", typed="")
    assert same == (("ct",), ())
    assert agreed((), ("CT",), FILE, where="x", typed="").names == ("CT",)
    more = agreed(("T1", "MR"), ("MR", "T2 FLAIR"), FILE, where="x", typed="")
    assert more.names == ("T1", "T2 FLAIR")
    assert more.notes[0].endswith("nobody but you says T1") and "tells more than MR" in more.notes[1]
    assert agreed(("mr",), ("T1", "FLAIR"), FILE, where="x", typed="").names == ("T1", "FLAIR")
    assert agreed(("brats",), ("T1", "FLAIR"), FILE, where="x", typed="").names == ("T1", "FLAIR")
    assert agreed(("T1", "FLAIR"), ("MR",), FILE, where="x", typed="").names == ("T1", "FLAIR")
    assert "neither that nor site A" in agreed(("site A",), ("image",), FILE, where="x", typed="").notes[0]


@pytest.mark.parametrize(
    ("told", "written", "problem"),
    [
        (("T1", "FLAIR"), ("FLAIR", "T1"), "in another order"),
        (("ct",), ("T1", "FLAIR"), "something else"),
        (("t2",), ("T1", "FLAIR"), "something else"),
        (("T1", "T2"), ("T1", "T2", "FLAIR"), "something else"),
        (("ct arterial",), ("CT portal",), "something else"),
    ],
)
def test_what_cannot_both_be_true_is_refused(told, written, problem):
    with pytest.raises(DataError, match=problem) as error:
        agreed(told, written, FILE, where="x", typed="--channels A,B")
    assert "--channels A,B" in error.value.hint and "dataset.json" in error.value.got


@pytest.mark.parametrize("name", ["$x", "../../outside", "--device", "a | |b"])
@pytest.mark.parametrize("by_user", [True, False])
def test_what_cannot_be_a_name_is_refused_and_not_given_up_for_another(name: str, by_user: bool) -> None:
    told, written = ((name,), ("CT",)) if by_user else (("CT",), (name,))
    with pytest.raises(DataError, match="cannot be the name of a channel"):
        agreed(told, written, Path("dataset.json"), where="scans", typed="--channels CT")
