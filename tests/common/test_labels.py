import numpy as np
import pytest

from common.errors import LabelError
from common.labels import LabelSpace, union

CT = LabelSpace(("spleen", "liver"), (1, 6))
MR = LabelSpace(("liver", "kidney", "spleen"), (1, 2, 4))


def test_values_default_to_one_to_k():
    space = LabelSpace(("a", "b"))
    assert space.values == (1, 2)
    assert (len(space), space.num_classes) == (2, 3)


@pytest.mark.parametrize(
    ("names", "values"),
    [((), ()), (("a", "a"), ()), (("background",), ()), (("a",), (0,)), (("a", "b"), (1, 1)), (("a",), (1, 2))],
)
def test_refuses_impossible_spaces(names, values):
    with pytest.raises(LabelError):
        LabelSpace(names, values)


@pytest.mark.parametrize(
    "mapping",
    [
        {"background": 0, "liver": 6, "spleen": 1},
        {"0": "background", "6": "liver", "1": "spleen"},
        {"liver": "6", "spleen": "1"},
    ],
)
def test_from_json_reads_both_layouts(mapping):
    assert LabelSpace.from_json(mapping) == CT


@pytest.mark.parametrize("mapping", [{"liver": [1, 2]}, {"background": 0}, {"liver": None}])
def test_from_json_refuses_with_the_file(mapping):
    with pytest.raises(LabelError, match=r"dataset\.json"):
        LabelSpace.from_json(mapping, where="dataset.json")


def test_dict_and_json_round_trip():
    assert LabelSpace.from_dict(CT.to_dict()) == CT
    assert LabelSpace.from_json(CT.to_json()) == CT
    overlapping = LabelSpace(("a", "b"), exclusive=False)
    assert LabelSpace.from_dict(overlapping.to_dict()) == overlapping


def test_channel_def_counts_by_index():
    assert CT.channel_def() == {"0": "background", "1": "spleen", "2": "liver"}


def test_index_and_suggestion():
    assert CT.index("background") == 0
    assert CT.indices(["liver", "spleen"]) == (2, 1)
    with pytest.raises(LabelError, match="did you mean 'liver'"):
        CT.index("livr")


def test_subset_keeps_order():
    assert MR.subset(["spleen", "liver"]) == LabelSpace(("liver", "spleen"))


def test_union_matches_by_name_and_masks_are_naive_membership():
    whole = union(CT, MR)
    assert whole.names == ("spleen", "liver", "kidney")
    for part in (CT, MR):
        naive = [True] + [n in part.names for n in whole.names]
        assert np.array_equal(whole.annotated(part), naive)
    assert whole.lookup(CT) == {0: 0, 1: 1, 6: 2}
    assert whole.lookup(MR) == {0: 0, 1: 2, 2: 3, 4: 1}
    assert LabelSpace(("liver",)).lookup(CT) == {0: 0, 1: 0, 6: 1}


def test_union_refuses():
    with pytest.raises(LabelError, match="at least one"):
        union()
    with pytest.raises(LabelError, match="exclusive"):
        union(CT, LabelSpace(("a",), exclusive=False))


@pytest.mark.parametrize(
    "data",
    [
        {"names": "liver"},
        {"names": {"liver": 1}},
        {"names": [None, {"a": 1}]},
        {"names": ["liver", 5]},
        {"names": 5},
        {"names": None},
        {"names": ["a", "b"], "values": "12"},
        {"names": ["a", "b"], "values": [1.5, 2.5]},
        {"names": ["a"], "values": [True]},
        {"names": ["a"], "values": ["1"]},
        {"names": ["a"], "values": [float("inf")]},
        {"names": ["a"], "values": [10**400]},
        {"names": ["a"], "values": 3},
        {"names": ["a"], "values": None},
        {"names": ["a"], "exclusive": "false"},
        {"names": ["a"], "exclusive": None},
        {"names": ["a"], "exclusive": 0},
        {},
        [],
        None,
        "liver",
    ],
)
def test_from_dict_takes_nothing_for_a_list_or_number_that_is_none(data):
    with pytest.raises(LabelError):
        LabelSpace.from_dict(data)


@pytest.mark.parametrize(
    "mapping",
    [
        {"liver": 0, "spleen": 1},
        {"0": "liver", "1": "spleen"},
        {"background": 0, "bone": 0, "liver": 1},
        {"liver": 1.5},
        {"liver": True},
        {"liver": float("inf")},
        {"liver": float("nan")},
        {"liver": "²"},
        {"²": "liver"},
        {"liver": 10**30},
        {"1": ["liver"]},
        {"1": None},
        {1: 1.5},
        ["liver"],
        "liver",
        None,
    ],
)
def test_from_json_loses_and_cuts_nothing(mapping):
    with pytest.raises(LabelError, match="here"):
        LabelSpace.from_json(mapping, where="here")


@pytest.mark.parametrize("name", ["background", "Background", "unlabelled", "Clear Label", "background_air", "BG"])
def test_what_may_have_the_value_0(name):
    assert LabelSpace.from_json({name: 0, "liver": 1}) == LabelSpace(("liver",))
    assert LabelSpace.from_json({"0": name, "1": "liver"}) == LabelSpace(("liver",))
    assert LabelSpace.from_json({name: 0, "liver": 2.0}).values == (2,)


def test_a_near_name_is_never_that_of_the_other_side() -> None:
    space = LabelSpace(("liver", "left kidney", "kidney_R"))
    for name, near in (("Left Kidney", "left kidney"), ("kidney_r", "kidney_R"), ("right kidney", "kidney_R"),
                       ("kidney", None), ("kidney_L", "left kidney"), ("Liver", "liver")):  # fmt: skip
        with pytest.raises(LabelError) as caught:
            space.index(name)
        assert caught.value.hint == (near and f"did you mean {near!r}?")
    with pytest.raises(LabelError) as caught:
        LabelSpace(("liver", "right kidney")).index("left kidney")
    assert caught.value.hint is None


@pytest.mark.parametrize("data", [{"names": ["a", "a"]}, {"names": ["$x"]}, {"names": ["a"], "values": [0]},
                                  {"names": []}, {"names": ["a"], "values": ["x"]}, {"names": "a"}, 5,
                                  {"names": ["a"], "exclusive": 1}, {"names": ["background"]}])  # fmt: skip
def test_every_refusal_of_a_space_from_a_file_names_it(data) -> None:
    with pytest.raises(LabelError) as caught:
        LabelSpace.from_dict(data, where="card.json")
    assert caught.value.where == "card.json"


@pytest.mark.parametrize(
    "labels", [{"background": 0, "a": 1, "b": 1}, {"a": -1}, {"a": 1, "1": "a"}, {"background": 1}]
)
def test_every_refusal_of_a_mapping_names_its_file(labels) -> None:
    with pytest.raises(LabelError) as caught:
        LabelSpace.from_json(labels, where="dataset.json")
    assert caught.value.where == "dataset.json"


def test_whether_structures_overlap_is_kept():
    assert (
        LabelSpace.from_dict({"names": ["a"]}).exclusive and LabelSpace.from_json({"background": 0, "a": 1}).exclusive
    )
    over = LabelSpace.from_json({"background": 0, "a": 2, "b": 1}, exclusive=False)
    assert not over.exclusive and (over.names, over.values) == (("b", "a"), (1, 2))
    assert not over.subset(["a"]).exclusive and not union(over, over).exclusive and LabelSpace(("a",)).exclusive
    assert LabelSpace.from_dict(over.to_dict()) == over and len(over) == 2 and over.num_classes == 3
    with pytest.raises(LabelError, match="true or false"):
        LabelSpace(("a",), exclusive=1)


def test_the_largest_value_of_a_label_file():
    assert LabelSpace(("a",), (2**31 - 1,)).values == (2**31 - 1,)
    for wrong in (2**31, 0, -1, 1.5, True, float("nan"), float("inf"), "1", None):
        with pytest.raises(LabelError):
            LabelSpace(("a",), (wrong,))
    assert LabelSpace(("a", "b"), (3.0, 7)).values == (3, 7)
    for values in ((1,), (1, 2, 3), (2, 2)):
        with pytest.raises(LabelError, match="one per name"):
            LabelSpace(("a", "b"), values)


def test_what_is_unknown_is_no_structure_and_what_is_far_no_hint():
    space = LabelSpace(("left kidney", "liver"))
    with pytest.raises(LabelError) as caught:
        space.index("brain")
    assert "did you mean" not in str(caught.value) and space.index("background") == 0
    with pytest.raises(LabelError, match="did you mean 'liver'"):
        space.index("lever")
    assert space.lookup(LabelSpace(("brain", "liver"), (4, 9))) == {0: 0, 4: 0, 9: 2}
    assert space.annotated(LabelSpace(("liver",))).tolist() == [True, False, True]
