"""A data set is a card's own by its files; its name alone is anybody's."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
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


def test_a_few_cases_of_each_split_are_looked_at_evenly(tmp_path):
    files = []
    for number in range(11):
        files.append(tmp_path / f"{number}.nii.gz")
        files[-1].write_bytes(bytes([number]))
    cases = [SimpleNamespace(images=[file]) for file in files]
    hashes = [case_hash(c.images)[:16] for c in cases]

    def known(listed, count=11, **splits):
        dataset = SimpleNamespace(name="d", splits={"training": cases[:count], **splits})
        return is_known_data(dataset, [{"name": "d", "cases": {"training": {"hashes": listed}}}])

    assert [known([h]) for h in hashes] == [n % 2 == 0 for n in range(11)], "every second of eleven"
    assert [known([h], count=9) for h in hashes[:9]] == [True] * 9, "all of nine"
    assert known([hashes[1]], test=cases[1:2]) and known([h[:15] for h in hashes]) is False
    assert known([]) is None and known("abc") is None and known([5]) is None
    assert is_known_data(SimpleNamespace(name="e", splits={}), [{"name": "d"}]) is False
    files[0].unlink()
    assert known([hashes[0]], count=1) is None, "nothing on the disk to compare"
    assert known([hashes[2]]) is True
    two = SimpleNamespace(images=[files[1], files[2]])
    assert case_hash(two.images) != case_hash(two.images[::-1])
    folder = tmp_path / "series"
    folder.mkdir()
    for file in files[1:3]:
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "sub").mkdir()
    assert case_hash([folder]) == case_hash(two.images) and short_hash([folder]) == case_hash([folder])[:16]
