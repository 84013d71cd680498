"""A card may come from anywhere: what has another form is refused by file and key, and no text becomes letters."""

import pytest

from common.contract_form import checked_contract, checked_names
from common.errors import WeightError

CT = {"channels": ["CT"], "intensities": [{}]}
GOOD = {"modalities": {"CT": CT}, "taught": {"CT": ["liver"]}, "data": [{"name": "d"}]}


def test_what_is_written_is_read():
    modalities, taught, data = checked_contract(GOOD, "model.pt")
    known = {"CT": {"channels": ["CT"], "dim": 2, "intensities": [None, {"lows": [-1000, -5.5], "highs": (1, 2)}]}}
    assert checked_contract({**GOOD, "modalities": known}, "model.pt")[0] == known
    assert modalities == GOOD["modalities"] and taught == {"CT": ("liver",)} and data == ({"name": "d"},)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("modalities", 5), ("modalities", {"CT": None}), ("modalities", {"CT": "CT"}), ("taught", ["x"]), ("data", 5),
        ("modalities", {"CT": {"channels": "CT"}}), ("modalities", {"CT": {"intensities": 5}}), ("data", [5]),
        ("taught", {"CT": "liver"}), ("taught", {"CT": None}), ("taught", {"CT": [5]}),
        ("modalities", {"CT": {"intensities": [5]}}), ("modalities", {"CT": {"intensities": [{"lows": "a"}]}}),
        ("modalities", {"CT": {"intensities": [{"highs": [1]}]}}),
        ("modalities", {"CT": {"intensities": [{"lows": None}]}}),
        ("modalities", {"CT": {"dim": "3"}}), ("modalities", {"CT": {"intensities": [{"lows": [float("nan")] * 2}]}}),
        ("modalities", {"CT": {"intensities": [{"highs": [0, float("inf")]}]}}),
        ("modalities", {"CT": {"intensities": [{"highs": [0, 10**400]}]}}),
    ],
)  # fmt: skip
def test_another_form_is_refused(key, value):
    with pytest.raises(WeightError, match=rf"model\.pt, contract\.{key}"):
        checked_contract({**GOOD, key: value}, "model.pt")


def test_names_are_a_list_of_text():
    assert checked_names(["a", "b"], "k", "f") == ["a", "b"]
    with pytest.raises(WeightError, match="a list of names"):
        checked_names("CT", "k", "f")
