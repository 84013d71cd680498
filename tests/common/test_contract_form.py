"""A card may come from anywhere: what has another form is refused by file and key, and no text becomes letters."""

import pytest

from common.card import ModelCard
from common.contract_form import checked_contract, checked_names
from common.errors import WeightError
from common.labels import LabelSpace

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


@pytest.mark.parametrize("name", ["$import evilmod", "@network", "%x.json", "a::b", "../x", "a\u202eb", "-x"])
@pytest.mark.parametrize(
    ("place", "extra"),
    [
        ("contract.modalities", lambda n: {"contract": {"modalities": {n: {}}}}),
        ("contract.modalities.CT.kind", lambda n: {"contract": {"modalities": {"CT": {"kind": n}}}}),
        ("contract.modalities.CT.channels", lambda n: {"contract": {"modalities": {"CT": {"channels": ["x", n]}}}}),
        ("contract.taught", lambda n: {"contract": {"modalities": {}, "taught": {n: []}}}),
        ("contract.taught.CT", lambda n: {"contract": {"modalities": {}, "taught": {"CT": [n]}}}),
        ("settings.modalities", lambda n: {"settings": {"modalities": [n]}}),
        ("settings.modalities", lambda n: {"settings": {"modalities": {n: 1}}}),
        ("settings.intensities", lambda n: {"settings": {"intensities": {n: {}}}}),
        ("settings.structures", lambda n: {"settings": {"structures": [n]}}),
        ("settings.expert_structures", lambda n: {"settings": {"expert_structures": [["x"], [n]]}}),
        ("settings.heads", lambda n: {"settings": {"heads": [["task", ["x", n]]]}}),
        ("settings.overlap_from", lambda n: {"settings": {"overlap_from": ["x", n]}}),
        ("settings.name", lambda n: {"settings": {"name": n}}),
    ],
)  # fmt: skip
def test_every_name_of_a_card_is_a_name(place, extra, name):
    told = ModelCard(LabelSpace(("liver",)), ("CT",), "b", extra=extra(name))
    with pytest.raises(WeightError, match="cannot be the name of") as caught:
        ModelCard.from_json(told.to_json(), where="model.pt")
    assert f"model.pt, {place}" in str(caught.value) and "weights rename" in str(caught.value)
    mended = ModelCard.from_json(told.to_json(), names={name: "plain"})
    assert name not in mended.to_json() and "plain" in mended.to_json()
    if "contract" in place:
        with pytest.raises(WeightError, match="weights rename"):
            checked_contract(told.extra["contract"], "model.pt")


def test_names_that_trainings_wrote_are_read():
    names = [f"structure {i}" for i in range(60)]
    extra = {
        "settings": {
            "name": "+".join(names),
            "modalities": ["", "CT | MR"],
            "heads": [["a", names]],
            "structures": None,
        },
        "contract": {
            "modalities": {"": {"kind": "", "channels": ["x" * 100 + " | " + "y" * 100]}},
            "taught": {"": names},
        },
    }
    told = ModelCard(LabelSpace(("liver",)), ("CT",), "b", extra=extra)
    assert ModelCard.from_json(told.to_json()) == told
    for spoilt in ("+".join([*names, "$x"]), "\u202e" + "+".join(names), "+".join(names) + "::x"):
        with pytest.raises(WeightError, match=r"settings\.name"):
            ModelCard.from_json(told.with_extra(settings={"name": spoilt}).to_json())


@pytest.mark.parametrize(
    ("key", "value"),
    [("cases", 5), ("cases", {"test": 5}), ("cases", {"test": {"number": "$x"}}), ("cases", {"test": {"number": True}}),
     ("modalities", 5), ("modalities", "CT"), ("modalities", [5]), ("name", ["x"])],
)  # fmt: skip
def test_another_form_of_a_data_set_is_refused(key, value):
    with pytest.raises(WeightError, match=rf"contract\.data\[0\]\.{key}"):
        checked_contract({**GOOD, "data": [{"name": "d", key: value}]}, "model.pt")


@pytest.mark.parametrize("number", [-1, 1.5, "3", True, None, 10**400])
def test_a_number_of_cases_is_one(number):
    told = {**GOOD, "data": [{"name": "d", "cases": {"training": {"number": number}}}]}
    with pytest.raises(WeightError, match=r"contract\.data.*training\.number"):
        checked_contract(told, "model.pt")


def test_a_data_set_may_say_little_of_itself():
    said = [{"name": "d", "cases": {"training": {"number": 0}, "test": {}}, "modalities": ["CT"]}, {}, {"cases": None}]
    assert list(checked_contract({**GOOD, "data": said}, "model.pt")[2]) == said
    with pytest.raises(WeightError, match="name"):
        checked_contract({**GOOD, "data": [{"name": 5}]}, "model.pt")
    with pytest.raises(WeightError, match="modalities"):
        checked_contract({**GOOD, "data": [{"modalities": "CT"}]}, "model.pt")
