"""What a card may say, and in which kinds."""

import json
import logging

import pytest

from common.card import ModelCard
from common.errors import WeightError
from common.labels import LabelSpace

CARD = ModelCard(
    LabelSpace(("liver", "spleen")), ("CT",), "toy", "1", extra={"metric": 0.5, "liver": 1, "settings": {}}
)
PLAIN = json.loads(CARD.to_json())


def read(names=None, **entries):
    return ModelCard.from_json(json.dumps({**PLAIN, **entries}), where="model.pt", names=names)


@pytest.mark.parametrize(
    "entries",
    [
        {"channels": "CT"},
        {"channels": {"CT": 0}},
        {"channels": [None]},
        {"channels": [5]},
        {"channels": None},
        {"labels": {"names": "liver"}},
        {"labels": ["liver"]},
        {"labels": None},
        {"bundle": ["a"]},
        {"bundle": 5},
        {"version": 1.0},
        {"config_hash": None},
        {"extra": []},
        {"extra": "abc"},
        {"extra": None},
    ],
)
def test_entries_of_a_wrong_kind_are_refused(entries):
    with pytest.raises(WeightError, match=r"model\.pt: the card cannot be read"):
        read(**entries)


def test_no_card_at_all():
    for text in ("[]", "5", "{}", "{", "[" * 100_000, '{"labels": {"names": ["a"]}, "labels": {"names": ["b"]}}'):
        with pytest.raises(WeightError, match=r"model\.pt: the card cannot be read"):
            ModelCard.from_json(text, where="model.pt")


def test_what_a_newer_version_says_is_kept(caplog):
    with caplog.at_level(logging.INFO):
        card = read(licence="CC0", metric={"newer": True})
    assert card == ModelCard(CARD.labels, CARD.channels, "toy", "1", extra={"licence": "CC0", **CARD.extra})
    assert "licence" in caplog.text and "model.pt" in caplog.text
    assert ModelCard.from_json(card.to_json()) == card


def test_new_names_reach_names_alone_and_never_meet():
    labels = {"names": ["channels", "spleen"], "values": [1, 2], "exclusive": True}
    assert read({"channels": "lung", "labels": "x"}, labels=labels).labels.names == ("lung", "spleen")
    assert read({"liver": "left liver"}).extra["left liver"] == 1
    with pytest.raises(WeightError, match="one name"):
        read({"liver": "metric"})
    with pytest.raises(WeightError, match="repeat"):
        read({"liver": "spleen"})


@pytest.mark.parametrize(("settings", "key"), [
    ([1], "settings"), ("x", "settings"), ({"network": "vit_b"}, "settings.network"), ({"plans": []}, "settings.plans"),
    ({"modalities": "CT"}, "settings.modalities"), ({"structures": "liver"}, "settings.structures"),
    ({"level": 5}, "settings.level"), ({"intensities": ["CT"]}, "settings.intensities"),
    ({"overlap_from": "organs"}, "settings.overlap_from"),
])  # fmt: skip
def test_settings_of_another_kind_are_named_by_file_and_key(settings: object, key: str) -> None:
    text = json.dumps({"labels": LabelSpace(("liver",)).to_dict(), "extra": {"settings": settings}})
    with pytest.raises(WeightError, match="the card is damaged") as caught:
        ModelCard.from_json(text, where="model.pt")
    assert caught.value.where == f"model.pt, {key}" and caught.value.hint and "rename" not in caught.value.hint
    fine = {"network": {"a": 1}, "modalities": ["CT"], "level": None, "more": 5}
    assert ModelCard.from_json(json.dumps({**json.loads(text), "extra": {"settings": fine}})).extra["settings"] == fine
