"""A data set is a card's own by its files; its name alone is anybody's."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from common.data.datasets.dataset import Dataset
from common.data.datasets.dataset_json import SPLITS, Case
from common.data.datasets.known_cases import case_hash, is_known_data, short_hash
from common.labels import LabelSpace


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    cases = {"training": (Case("a", (tmp_path / "a",), None, "a"),), "test": (Case("b", (tmp_path / "b",), None, "b"),)}
    return Dataset("d", tmp_path, ("CT",), LabelSpace(("liver",)), {**dict.fromkeys(SPLITS, ()), **cases}, 3, "CT")


def said(name: str, *files: Path, **more: Any) -> dict[str, Any]:
    return {"name": name, "cases": {"training": {"number": 1, "hashes": [short_hash([f]) for f in files]}}, **more}


def test_a_name_is_no_proof(data: Dataset, tmp_path: Path) -> None:
    own, other = tmp_path / "b", tmp_path / "other"
    other.write_bytes(b"another scan")
    assert is_known_data(data, [said("d", own)]) is True and is_known_data(data, [said("d", other)]) is False
    assert is_known_data(data, [said("KiTS", own)]) is False is is_known_data(data, [])
    assert is_known_data(data, [said("d", other), said("d", own)]) is True  # learned from twice


def test_what_cannot_be_compared_is_not_known(data: Dataset, tmp_path: Path) -> None:
    for card in ({"name": "d"}, {"name": "d", "cases": {"training": {"number": 5000}}}, {"name": "d", "cases": 5},
                 {"name": "d", "cases": {"training": {"hashes": "0" * 16}}}):  # fmt: skip
        assert is_known_data(data, [card]) is None
    card = said("d", tmp_path / "a")
    for name in ("a", "b"):
        (tmp_path / name).unlink()
    assert is_known_data(data, [card]) is None


def test_a_case_is_its_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for name in ("x", "s/2", "s/1"):
        (tmp_path / name).write_bytes(name.encode())
    naive = hashlib.sha256(b"".join(hashlib.sha256(n.encode()).digest() for n in ("s/1", "s/2", "x"))).hexdigest()
    assert (
        case_hash([tmp_path / "s", tmp_path / "x"]) == naive
        and short_hash([tmp_path / "s", tmp_path / "x"]) == naive[:16]
    )
    assert case_hash([tmp_path / "x", tmp_path / "s"]) != naive
