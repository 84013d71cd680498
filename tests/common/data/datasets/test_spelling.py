"""Names of structures are grouped by one function, in a training and in an evaluation; slips are told."""

from pathlib import Path

import pytest

from common.data.datasets.dataset import Dataset
from common.data.datasets.dataset_json import SPLITS
from common.data.datasets.naming import known_part, name_doubts
from common.data.datasets.spelling import alike, groups, nearly
from common.errors import LabelError
from common.labels import LabelSpace

ALIKE = [
    ("gall bladder", "gallbladder"), ("Gall_Bladders", "gallbladder"), ("kidney_left", "left kidneys"),
    ("leftKidney", "Lt kidney"), ("tumour", "Tumors"), ("Oesophagus", "esophagus"), ("Adrenal-Gland", "adrenalgland"),
]  # fmt: skip
SLIPS = [("arota", "aorta"), ("pancrease", "pancreas"), ("splen", "spleen"), ("left kidny", "kidney left"),
         ("gallblader", "gall bladder")]  # fmt: skip
OTHERS = [
    ("ilium", "ileum"), ("vertebra L1", "vertebra L2"), ("rib 1", "rib 11"), ("left lung", "right lung"),
    ("liver", "spleen"), ("anterior wall", "interior wall"), ("vein", "veil"), ("upper lobe", "lower lobe"),
]  # fmt: skip


def dataset(name: str, *structures: str) -> Dataset:
    """A task without cases."""
    return Dataset(name, Path(), ("CT",), LabelSpace(structures), dict.fromkeys(SPLITS, ()))


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_one_name_in_two_spellings_is_one_wherever_it_is_met(one: str, other: str) -> None:
    assert alike(one, other) and groups([one, "liver", other]) == [[one, other], ["liver"]] and not nearly(one, other)
    (doubt,) = [d for d in name_doubts([dataset("a", one), dataset("b", other)]) if "two structures" in d.got]
    assert doubt.tasks == ("a", "b") and doubt.severity == "warning" and "differ" not in doubt.got
    with pytest.raises(LabelError, match="in another way"):
        known_part(LabelSpace((other, "liver")), LabelSpace((one, "liver")), where="b")


@pytest.mark.parametrize(("one", "other"), SLIPS)
def test_a_slip_is_told(one: str, other: str, caplog: pytest.LogCaptureFixture) -> None:
    assert nearly(one, other) and nearly(other, one) and not alike(one, other)
    (doubt,) = [d for d in name_doubts([dataset("a", one), dataset("b", other)]) if "two structures" in d.got]
    assert "differ in a letter" in doubt.got and other in doubt.hint
    assert name_doubts([dataset("a", one, other)]) == []  # who gave both names meant two
    known_part(LabelSpace((one, "liver")), LabelSpace((other, "liver")), where="b")
    assert f"no {one!r}, and its {other!r} differs in a letter" in caplog.text


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_other_words_are_no_slips(one: str, other: str) -> None:
    assert not nearly(one, other) and not alike(one, other) and len(groups([one, other])) == 2


def test_names_that_a_third_one_joins_are_one_group() -> None:
    assert groups(["left kidney", "leftkidney", "spleen"]) == [["left kidney", "leftkidney"], ["spleen"]]
    assert groups(["kidney left", "leftkidney", "left kidney"]) == [["kidney left", "leftkidney", "left kidney"]]
