"""What data are called is compared with a model's modalities, and where these say nothing with their channels."""

from collections.abc import Sequence

import pytest

from common.contract import Contract
from common.contract_names import is_surely_other, label_of, named, names_of, order_among, told_in_words
from common.errors import DataError


@pytest.mark.parametrize(("name", "own", "given", "modality", "tag"), [
    ("AMOS", ["CT"], None, "", "MR"), ("AMOS", ["CT"], None, "MR", ""), ("AMOS", ["CT"], None, "AMOS MR", ""),
    ("MR", ["T1"], None, "T2", ""), ("MR", ["T1 | FLAIR"], None, "T2", ""), ("AMOS", ["CT"], ["image"], "MR", ""),
    ("CT", ["image"], ["MR"], "", ""), ("CT", ["image"], ["T1"], "CT", ""), ("CT", ["a", "b"], ["a", "MR"], "", ""),
    ("brain", ["T1", "T2"], None, "CT", ""), ("brain", ["T1", "T2"], ["a", "b"], "CT", ""),
    ("PET", ["SUV"], None, "", "PT CNTS"),
])  # fmt: skip
def test_what_is_surely_other_is_refused(
    name: str, own: list[str], given: Sequence[str] | None, modality: str, tag: str
) -> None:
    made = Contract(tuple(own), {name: {"channels": own}})
    with pytest.raises(DataError, match="not what the model was trained on"):
        made.fit(given, modality, tag=tag)
    assert "in the place of" in made.fit(given, modality, tag=tag, ignore=True).notes[0]


@pytest.mark.parametrize(("name", "own", "tag"), [
    ("MR", ["T1"], "MR"), ("CT", ["CBCT"], "CT"), ("PT", ["FDG PET"], "PT"), ("US", ["transrectal US"], "US"),
    ("CT", ["CT arterial"], "CT"), ("XR", ["chest X-ray"], "DX"), ("NM", ["bone SPECT"], "NM"),
    ("MR", ["T1", "T2"], "MR"), ("photo", ["dermoscopy"], "XC"),
])  # fmt: skip
def test_a_general_name_is_not_the_models_own_where_its_channels_say_more(name: str, own: list[str], tag: str) -> None:
    made = Contract(tuple(own), {name: {"channels": own}})
    for found in (made.fit(None, tag=tag), made.fit(None, name)):
        (note,) = found.notes
        assert ", ".join(own) in note and "nobody says" in note
    plain = Contract(("CT",), {"CT abdomen": {"channels": ["CT"]}})
    assert plain.fit(None, "abdominal CT").notes == () == Contract(("CT",), {"CT": {"channels": ["CT"]}}).fit(
        None, tag="CT").notes  # fmt: skip


def test_what_may_be_it_is_not_refused() -> None:
    assert not is_surely_other("fundus", ("red", "green", "blue"), None, "fundus")
    assert not is_surely_other("MR", ("T1",), None, "MR") and not is_surely_other("AMOS", ("CT",), None, "")
    assert not is_surely_other("PET-CT", ("CT", "PET"), None, "PET-CT") and not is_surely_other("A", ("x",), None, "MR")


def test_names_and_what_they_mean() -> None:
    assert names_of([("A", ("R", "G", "B"))]) == ["A", "red", "green", "blue"]
    assert order_among(("T1", "T2"), None) == (0, 1) and order_among(("T1", "T2"), ("T2", "T1")) == (1, 0)
    assert label_of(("CT",), "AMOS") == "CT" and label_of(("image",), "MR") == "MR" and label_of(None, "x") == "x"
    assert named(["T1 (+C)", "T1 (-C)"], "t1 (+c)", {}) == ["T1 (+C)"] and named(["CT"], "MR", {}, certain=True) == []
    assert told_in_words(("CT",), "AMOS") == "channel CT of AMOS" and told_in_words(None, "") == "nothing known"
