"""Channels in another order are found by name; what nothing tells apart is not guessed."""

import pytest

from common.channel_order import _settled, closest, contradict, order_of


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
        (("CT", "PET"), ("PET", "CTres"), (1, 0)),
        (("CBF", "Tmax"), ("MTT", "CBV"), None),
        (("T1 in", "T1 out"), ("OutPhase", "InPhase"), (1, 0)),
        (("red", "green", "blue"), ("B", "G", "R"), (2, 1, 0)),
        (("T1", "FLAIR"), ("T2SPIR", "T1DUAL"), None),
        (("T1", "T1c", "T2", "FLAIR"), ("T1", "CT1", "T2", "FLAIR"), (0, 1, 2, 3)),
        (("T1", "T1c", "T2", "FLAIR"), ("FLAIR", "T2", "CT1", "T1"), (3, 2, 1, 0)),
        (("T1", "CT1", "T2", "FLAIR"), ("T1", "T1ce", "T2", "FLAIR"), (0, 1, 2, 3)),
        (("CT", "FLAIR"), ("CT1", "FLAIR"), None),
        (("CT", "PET"), ("PET", "CT1"), (1, 0)),
        (("b0", "b50", "b800"), ("DWI 800", "b=0", "b-50"), (1, 2, 0)),
        (("T2", "b800"), ("T2", "b0"), None),
        (("T2", "DWI", "ADC"), ("T2", "b0", "ADC"), None),
        (("CT arterial", "CT portal"), ("CT late arterial", "CT portal venous"), (0, 1)),
        (
            ("CT arterial", "CT portal", "CT delayed"),
            ("CT delayed venous", "CT late arterial", "CT portal venous"),
            (1, 2, 0),
        ),
        (("T1", "T1c"), ("T1 w/o", "T1 w/"), (0, 1)),
        (("T1", "T1c"), ("T1 w/", "T1 w/o"), (1, 0)),
        (("T1", "T2"), ("T2 pre-op", "T1 post-op"), (1, 0)),
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


def test_the_closest_of_names_that_mean_the_same():
    phases = ("CT arterial", "CT portal")
    assert closest("art CT", phases) == ["CT arterial"] and closest("CT", phases) == list(phases)
    assert closest("late arterial CT", phases) == ["CT arterial"] and closest("NCCT", phases) == list(phases)
    assert closest("CT", ("CT", "CTA")) == ["CT"]


def test_two_lists_of_names_of_the_same_channels() -> None:
    assert contradict(["T1", "T2"], ["T2", "T1"]) and contradict(["T1", "T2"], ["T1", "T2", "PD"])
    assert contradict(["CT"], ["MR"]) and contradict(["CT"], ["T1", "T2"]) and contradict(["PET SUV"], ["PET BQML"])
    assert (
        not contradict(["CT"], ["CTA"]) and not contradict(["MR"], ["T1", "T2"]) and not contradict(["image"], ["CT"])
    )


@pytest.mark.parametrize(
    ("places", "silent", "chosen"),
    [
        ({0: [1], 1: [0, 1]}, None, {0: 1, 1: 0}),
        ({0: [1], 1: [0, 1]}, [], {0: 1, 1: 0}),  # the only place of one, and then of the other
        ({0: [1, 2], 1: [1, 2]}, None, {0: 2, 1: 1}),  # where it stands
        ({0: [1, 2], 1: [1, 2]}, [1, 2], {0: 2, 1: 1}),
        ({0: [1, 2], 1: [1, 2]}, [1], {}),  # a name that tells more is no place for any of them
        ({0: [1, 2], 3: [1, 2]}, None, {0: 1, 3: 2}),  # the first free place
        ({0: [1, 2], 3: [1, 2]}, [1, 2], {}),
        ({0: [], 1: [0, 2]}, None, {1: 0}),
        ({}, None, {}),
    ],
)
def test_each_takes_its_only_place_then_where_it_stands_then_the_first(places, silent, chosen):
    assert _settled(places, {}, silent) == chosen
    taken = {9: 1}
    assert _settled({0: [1, 2]}, taken) == {9: 1, 0: 2} and taken == {9: 1}
