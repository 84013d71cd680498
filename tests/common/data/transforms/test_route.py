"""Which expert and head a case is for."""

import pytest

from common.data.transforms.route import RouteCased
from common.errors import DataError

NETWORK = {"modalities": ["CT", "MR"], "heads": ["btcv", "chaos"]}


def test_the_case_decides_and_an_override_overrides():
    case = {"case": "a", "modality": "MR", "task": "btcv"}
    assert RouteCased(**NETWORK)(case) == {**case, "modality_id": 1, "head_id": 0}
    assert RouteCased(**NETWORK, modality="CT", head="chaos")(case) == {
        **case, "modality": "CT", "modality_id": 0, "head_id": 1,
    }  # fmt: skip


def test_the_only_one_is_taken():
    found = RouteCased(["CT"], ["btcv"])({"case": "a"})
    assert (found["modality"], found["modality_id"], found["head_id"]) == ("CT", 0, 0)


@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        ({}, {}, "does not say its modality"),
        ({"modality": "CT"}, {}, "does not say its task"),
        ({"modality": "PET", "task": "btcv"}, {}, "no modality for this case(.|\n)*CT, MR"),
        ({"modality": "CT", "task": "btvc"}, {}, "did you mean 'btcv'"),
        ({"modality": "CT"}, {"head": "amos"}, "no head for this case"),
    ],
)
def test_refusals(case, options, message):
    with pytest.raises(DataError, match=message):
        RouteCased(**NETWORK, **options)({"case": "a", **case})
