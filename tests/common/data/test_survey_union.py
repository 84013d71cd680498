"""What two descriptions of training data say is kept, of the same modality, too."""

import json
from typing import Any

import pytest

from common.card import ModelCard
from common.contract import Contract
from common.data.survey_union import merged
from common.labels import LabelSpace


def described(channel: str, low: float, high: float, names: list[str], **more: Any) -> dict[str, Any]:
    stats = {"mean": low, "std": 1.0, "min": low, "max": high, "percentile_00_5": low, "percentile_50": 0.0,
             "percentile_99_5": high, "lows": [low, low + 1], "highs": [high - 1, high]}  # fmt: skip
    entry = {"kind": "CT", "channels": [channel], "dim": 3, "cases": 4, "scans": 2, "intensities": [stats],
             "spacing": {"median": [1, 1, low], "lowest": [1, 1, low], "highest": [1, 1, high]},
             "orientation": {"RAS": 3, channel[-3:]: 1}}  # fmt: skip
    data = {"name": more.pop("name", channel), "cases": {"training": {"number": 1, "hashes": [channel]}}}
    return {"format": 1, "modalities": {"CT": {**entry, **more}}, "taught": {"CT": names}, "data": [data]}


NATIVE = described("CT native", -10, 5, ["liver"])
PORTAL = described("CT portal", -2, 50, ["spleen"])


def test_both_of_one_modality_are_kept() -> None:
    both = merged(NATIVE, PORTAL)
    (entry,) = both["modalities"].values()
    assert entry["channels"] == ["CT native | CT portal"] and entry["cases"] == 8 and entry["scans"] == 4
    (stats,) = entry["intensities"]
    assert stats["lows"] == [-10, -1] and stats["highs"] == [4, 50] and (stats["min"], stats["max"]) == (-10, 50)
    assert stats["mean"] == -6 and stats["std"] == pytest.approx(17**0.5, rel=1e-5)
    assert (stats["percentile_00_5"], stats["percentile_99_5"]) == (-10, 50)
    assert entry["spacing"] == {"median": [1, 1, -2], "lowest": [1, 1, -10], "highest": [1, 1, 50]}
    assert entry["orientation"] == {"RAS": 6, "ive": 1, "tal": 1}
    assert both["taught"] == {"CT": ["liver", "spleen"]} and [d["name"] for d in both["data"]] == [
        "CT native", "CT portal"]  # fmt: skip
    assert entry["taught"] == [{"channels": ["CT native"], "structures": ["liver"]},
                               {"channels": ["CT portal"], "structures": ["spleen"]}]  # fmt: skip
    more = merged(both, described("CT delayed", 0, 9, ["kidney"]))["modalities"]["CT"]
    assert len(more["taught"]) == 3 and more["channels"] == ["CT native | CT portal | CT delayed"]
    card = ModelCard(LabelSpace(("liver", "spleen")), ("CT",), extra={"contract": both})
    (note,) = Contract.of_card(ModelCard.from_json(card.to_json())).fit(("CT portal",), "CT").notes
    assert "nobody taught liver on CT portal" in note


def test_channels_that_differ_in_a_sign_are_both_kept() -> None:
    both = merged(described("T1+C", 0, 5, ["liver"]), described("T1-C", 0, 5, ["spleen"]))
    assert both["modalities"]["CT"]["channels"] == ["T1+C | T1-C"]
    again = merged(described("T1+C", 0, 5, ["liver"]), described("t1 + c", 0, 5, ["liver"], name="other"))
    assert again["modalities"]["CT"]["channels"] == ["T1+C"]


def test_the_same_cases_are_counted_once() -> None:
    again = merged(NATIVE, NATIVE)
    assert again["modalities"] == NATIVE["modalities"] and again["data"] == NATIVE["data"]
    grown = described("CT native", -10, 5, ["liver"])
    grown["data"][0]["cases"]["training"]["hashes"] = ["another"]
    assert [d["cases"]["training"]["hashes"] for d in merged(NATIVE, grown)["data"]] == [["CT native"], ["another"]]
    assert merged(NATIVE, grown)["modalities"]["CT"]["cases"] == 8


def test_what_cannot_be_united_keeps_a_name_of_its_own() -> None:
    pair = described("CT portal", 0, 9, ["spleen"], channels=["CT", "PET"])
    both = merged(NATIVE, pair)
    assert list(both["modalities"]) == ["CT (CT native)", "CT"]
    assert both["taught"] == {"CT (CT native)": ["liver"], "CT": ["spleen"]}


def test_a_modality_that_one_of_them_lacks_and_statistics_that_one_of_them_lacks() -> None:
    assert merged({}, NATIVE)["modalities"] == NATIVE["modalities"] == merged(NATIVE, {})["modalities"]
    bare = json.loads(json.dumps(PORTAL))
    bare["modalities"]["CT"]["intensities"] = [None]
    assert merged(bare, NATIVE)["modalities"]["CT"]["intensities"] == NATIVE["modalities"]["CT"]["intensities"]
    del bare["modalities"]["CT"]["intensities"], bare["modalities"]["CT"]["spacing"], bare["taught"]
    left = merged(bare, NATIVE)["modalities"]["CT"]
    assert left["intensities"] == NATIVE["modalities"]["CT"]["intensities"] and "spacing" in left


@pytest.mark.parametrize(("scans", "share"), [((6, 2), 0.75), ((2, 6), 0.25), ((0, 4), 0.0), ((0, 0), 0.5)])
def test_who_saw_more_scans_weighs_more(scans: tuple[int, int], share: float) -> None:
    one, other = (
        described("CT", low, 50, ["liver"], scans=n, name=str(n)) for low, n in zip((-10, -2), scans, strict=True)
    )
    entry = merged(one, other)["modalities"]["CT"]
    (stats,) = entry["intensities"]
    mean = share * -10 + (1 - share) * -2
    assert stats["mean"] == pytest.approx(mean) and stats["percentile_50"] == 0
    square = share * (1 + 100) + (1 - share) * (1 + 4)
    assert stats["std"] == pytest.approx((square - mean**2) ** 0.5, rel=1e-5)
    assert entry["spacing"]["median"] == [1, 1, -10 if share > 0.5 else -2]


def test_of_one_modality_in_other_dimensions_both_are_kept() -> None:
    flat = described("CT portal", 0, 9, ["spleen"], dim=2)
    assert list(merged(NATIVE, flat)["modalities"]) == ["CT (CT native)", "CT"]
    bare = {"modalities": {"CT": {}}, "data": [{"name": "a"}]}
    assert merged(bare, bare)["modalities"] == {"CT": {"channels": []}} and merged(bare, bare)["data"] == bare["data"]
    other = {**bare, "data": [{"name": "a", "cases": {"test": {"number": 1}}}]}
    assert len(merged(bare, other)["data"]) == 2, "nobody knows whether these are the same cases"
    assert merged({}, {})["format"] == 1 and "ignored" not in merged({}, {})
    told = merged({"format": 2, "ignored": ["a"]}, {"ignored": ["b", "a"]})
    assert told["format"] == 2 and told["ignored"] == ["a", "b"]
    assert merged({"format": 2}, {"format": 3})["format"] == 3
