"""Voxels far smaller or larger than those of the training are told; what nobody knows is not."""

import pytest

from common.spacing_range import odd_spacing

CT = {"spacing": {"median": [0.8, 0.8, 2], "lowest": [0.5, 0.5, 1], "highest": [1, 1, 5]}}


@pytest.mark.parametrize(("spacing", "odd"), [
    ((0.02, 0.02, 0.02), True), ((1, 1, 30), True), ((30, 1, 1), True),  # in any order of axes
    ((0.7, 0.7, 5), False), ((5, 0.7, 0.7), False), ((0.4, 0.4, 10), False), ((), False),
    ((float("nan"), 1, 90), False),
])  # fmt: skip
def test_what_is_far_outside(spacing: tuple[float, ...], odd: bool) -> None:
    found = odd_spacing(spacing, {"CT": CT})
    assert (found is not None) is odd and (found is None or "lies between 0.5 and 5 mm" in found)


@pytest.mark.parametrize("stored", [None, {}, {"lowest": [1], "highest": ["x"]}, {"lowest": [0], "highest": [1]}, 3,
                                    {"lowest": [2], "highest": [1]}, {"lowest": [], "highest": []}])  # fmt: skip
def test_a_card_that_does_not_say(stored: object) -> None:
    assert odd_spacing((0.001, 1, 99), {"CT": {"spacing": stored}}) is None
    assert odd_spacing((0.001, 1, 99), {"CT": CT, "MR": {"spacing": stored}}) is None  # it may be an MR


def test_only_what_it_can_be_counts() -> None:
    modalities = {"CT": CT, "OCT": {"spacing": {"lowest": [0.01] * 3, "highest": [0.02] * 3}}}
    assert odd_spacing((0.02, 0.02, 0.02), modalities) is None
    assert odd_spacing((0.02, 0.02, 0.02), modalities, ["CT"]) is not None
