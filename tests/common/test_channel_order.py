"""Channels in another order are found by name; what nothing tells apart is not guessed."""

import pytest

from common.channel_order import order_of


@pytest.mark.parametrize(
    ("own", "given", "order"),
    [
        (("CT",), ("CTA",), (0,)),
        (("T1", "FLAIR"), ("FLAIR", "T1"), (1, 0)),
        (("CT", "PET"), ("SUV", "CT"), (1, 0)),
        (("t1n", "t1c", "t2w", "t2f"), ("FLAIR", "T1w", "t1gd", "T2w"), (1, 2, 3, 0)),
        (("CT arterial", "CT portal"), ("CT portal", "CT arterial"), (1, 0)),
        (("CT arterial", "CT portal"), ("portal CT", "arterial CT"), (1, 0)),
        (("DWI b50", "DWI b800"), ("DWI b800", "DWI b50"), (1, 0)),
        (("T1-", "T1+"), ("T1+", "T1-"), (1, 0)),
        (("image",), ("CT",), (0,)),
        (("CT",), ("MR",), None),
        (("T1",), ("T1+",), None),
    ],
)
def test_order(own, given, order):
    assert order_of(own, given) == order


@pytest.mark.parametrize("own", [("CT arterial", "CT portal"), ("T1", "T2", "FLAIR"), ("DWI b50", "DWI b800", "ADC")])
def test_an_order_and_its_reverse_lead_back(own):
    for shift in range(len(own)):
        given = own[shift:] + own[:shift]
        order = order_of(own, given)
        assert order is not None and tuple(given[i] for i in order) == own
