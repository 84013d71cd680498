"""A scan is compared by what the user, the data and DICOM say of it, and by its voxels."""

import json

import pytest

from common.contract import OVERRIDE, Contract
from common.errors import DataError
from common.intensity_range import Range
from common.scan_fit import Said, as_recorded, check_given, judged, mark_of

HU, SIGNAL = {"lows": [-1024, -1000], "highs": [100, 300]}, {"lows": [0, 0], "highs": [700, 1200]}
BODY, BRIGHT = Range(-1000, 250, -1020, 900), Range(0, 900, 0, 1000)


def model(*names: str) -> Contract:
    stats = {"CT": HU, "T2 MR": SIGNAL}
    taught = {"CT": ("liver", "spleen"), "T2 MR": ("liver",)}
    modalities = {n: {"channels": [n], "intensities": [stats[n]]} for n in names}
    return Contract((" | ".join(names),), modalities, {n: taught[n] for n in names})


def test_dicoms_tag_decides_where_nobody_else_speaks() -> None:
    assert judged(model("CT"), Said(tags=("CT",)), [BODY], where="a") == (("CT",), True, (), "")
    with pytest.raises(DataError, match="not what the model was trained on") as error:
        judged(model("CT"), Said(tags=("MR",)), where="a")
    assert error.value.where == "a"
    found = judged(model("CT"), Said(tags=("MR",)), where="a", ignore=True)
    assert found.names == () and found.notes == ("a: MR in the place of channel CT, as asked",)


def test_intensities_are_compared() -> None:
    assert "HU" in judged(model("CT"), Said(), [BRIGHT], where="a").odd
    both = model("CT", "T2 MR")
    found = judged(both, Said(), [BRIGHT], where="a")
    assert found.modality(both) == "T2 MR" and found.sure and not found.odd
    assert "a: taken for T2 MR: its intensities are none of CT; nobody says what it is" in found.notes
    assert judged(both, Said(), where="a").modality(both) == "" and not judged(both, Said(), where="a").sure


@pytest.mark.parametrize("said", [
    Said("CT", "T2 MR"), Said("CT", "", ("T2 MR",)), Said("CT", "", (), ("MR",)), Said("", "T2 MR", (), ("CT",)),
])  # fmt: skip
def test_two_that_contradict_each_other_are_refused_and_the_override_is_told(said: Said) -> None:
    both = model("CT", "T2 MR")
    with pytest.raises(DataError, match="something else") as error:
        judged(both, said, where="a")
    assert OVERRIDE in str(error.value)
    judged(both, said, where="a", ignore=True)


def test_channels_have_tags_of_their_own() -> None:
    pet = Contract(("CT", "PET"), {"PET/CT": {"channels": ["CT", "PET"]}})
    judged(pet, Said(tags=("CT", "PT")), where="a")
    judged(pet, Said(tags=("", "PT")), where="a")
    with pytest.raises(DataError, match="a channel is something else"):
        judged(pet, Said(tags=("PT", "CT")), where="a")
    judged(pet, Said(tags=("PT", "CT")), where="a", ignore=True)


def test_what_is_given_is_compared_with_the_data() -> None:
    assert check_given("", ["T2 MR"], where="d") == check_given("CT", [None, "", "image", "NCCT"], where="d") == []
    with pytest.raises(DataError, match="something else") as error:
        check_given("CT", ["T2 MR"], where="d")
    assert "--modality CT" in str(error.value) and "selects none" in str(error.value) and "T2 MR" in str(error.value)
    assert check_given("CT", ["T2 MR"], where="d", ignore=True) == ["d: T2 MR is read as CT, as asked"]


def test_a_mark_is_of_one_card() -> None:
    assert mark_of(model("CT")) == mark_of(model("CT")) != mark_of(model("T2 MR"))
    assert len({mark_of(model("CT")), mark_of(Contract()), mark_of(Contract(("CT",)))}) == 3


def test_a_record_is_json() -> None:
    assert json.loads(as_recorded(model("CT"), ["x"])) == {
        "ignore_card": True,
        "expected": "channel CT",
        "notes": ["x"],
    }


def test_one_name_of_several_channels_leaves_some_open_or_says_their_order() -> None:
    own = ("T1", "T1ce", "T2", "FLAIR")
    brain = Contract(own, {"MR": {"channels": list(own)}})

    def notes(given: str) -> str:
        return " ".join(judged(brain, Said(given=given), where="s").notes)

    for given in ("T1", "FLAIR", "T2 + FLAIR", "MR"):
        assert f"{given} is all that is said" in notes(given), given
    assert "nobody says in which they lie" in notes("FLAIR, T1, T1ce, T2")
    assert notes("T1, T1ce, T2, FLAIR") == ""


def test_units_and_types_of_each_channel_are_told() -> None:
    both = Contract(("CT", "PET"), {"PET-CT": {"channels": ["CT", "PET"]}})
    for tags, told in (
        (("CT", "PT BQML"), "channel PET: DICOM says that the numbers of this PET are BQML"),
        (("CT; MIP", "PT"), "channel CT: DICOM says that this CT is of the type MIP"),
    ):
        assert told in " ".join(judged(both, Said(tags=tags), where="s").notes), tags
    assert not any("DICOM" in n for n in judged(both, Said(tags=("CT", "PT")), where="s").notes)


def test_a_channels_tag_goes_with_its_name_where_the_data_lie_in_another_order() -> None:
    both = Contract(("CT", "PET"), {"PET-CT": {"channels": ["CT", "PET"]}})
    told = " ".join(judged(both, Said(channels=("PET", "CT"), tags=("PT BQML", "CT; MIP")), where="s").notes)
    assert "channel PET: DICOM says that the numbers of this PET are BQML" in told
    assert "channel CT: DICOM says that this CT is of the type MIP" in told
