import hashlib

import pytest

from common.data.datasets.splits import hash_fraction, hashed_split
from common.errors import ConfigError

FRACTIONS = {"training": 0.0, "validation": 0.2, "test": 0.1}
SUBJECTS = [f"s{i}" for i in range(500)]


def test_hash_fraction_equals_naive():
    naive = int(hashlib.sha256(b"d/s").hexdigest()[:16], 16) / 16**16
    assert hash_fraction("d", "s") == naive
    assert 0 <= naive < 1


def test_fractions_are_about_right_and_order_does_not_matter():
    place = hashed_split("d", SUBJECTS, FRACTIONS)
    counts = {s: list(place.values()).count(s) / 500 for s in FRACTIONS}
    assert abs(counts["validation"] - 0.2) < 0.06
    assert abs(counts["test"] - 0.1) < 0.05
    assert place == hashed_split("d", reversed(SUBJECTS), FRACTIONS)


def test_adding_a_subject_moves_nobody():
    place = hashed_split("d", SUBJECTS[:400], FRACTIONS)
    more = hashed_split("d", SUBJECTS, FRACTIONS)
    assert all(more[s] == p for s, p in place.items())


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("name", list("abcdefgh"))
def test_no_split_stays_empty_when_avoidable(count, name):
    place = hashed_split(name, SUBJECTS[:count], {"training": 0.0, "validation": 0.2})
    assert set(place.values()) == {"training", "validation"}


def test_one_subject_trains():
    assert set(hashed_split("d", ["only"], {"training": 0.0, "validation": 0.0}).values()) == {"training"}


@pytest.mark.parametrize("bad", [{"training": 0, "validation": -0.1}, {"training": 0, "validation": 0.6, "test": 0.4}])
def test_refuses_fractions(bad):
    with pytest.raises(ConfigError, match="fractions"):
        hashed_split("d", SUBJECTS, bad)
