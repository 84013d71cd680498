import os

import numpy as np
import pytest
import torch
from monai.transforms import Compose, Orientationd

from common.data.samples.draws import DrawnSamples
from common.data.store.cases import StoredCases, WholeCases, prepared, whole
from common.data.store.entry import DamagedEntryError, StoredArray
from common.data.store.place import Store, listed
from common.errors import DataError


@pytest.fixture
def store(tmp_path):
    return Store(store_dir=tmp_path / "store")


def crop(case):
    return case["image"].box((2, 3, 4), (12, 13, 14))


def test_crops_of_the_store_are_crops_of_the_chain(items, reading, store):
    cases = StoredCases(items, reading, store=store, reading=10, transform=crop)
    for position, item in enumerate(items):
        full = reading(item)
        assert torch.allclose(cases[position], full["image"].as_tensor()[:, 2:12, 3:13, 4:14], atol=2**-16, rtol=0)
        kept = cases.case(position)
        assert isinstance(kept["image"], StoredArray) and torch.equal(kept["label"].whole(), full["label"])
        assert {k: v for k, v in kept.items() if k not in ("image", "label")} == {"case": item["case"], "task": "liver"}


def test_whole_cases_are_what_the_chain_makes(items, reading, store):
    found, full = WholeCases(items, reading, store=store)[1], reading(items[1])
    assert found.keys() == full.keys() and type(found["image"]) is type(full["image"])
    assert found["image"].meta["filename_or_obj"] == items[1]["image"]
    assert torch.allclose(found["image"].as_tensor(), full["image"].as_tensor(), atol=2**-16, rtol=0)
    assert whole({"a": {1: 2}}) == {"a": {1: 2}}


def test_a_second_run_prepares_nothing(items, reading, store):
    StoredCases(items, reading, store=store)
    before = reading.cases()
    StoredCases(items, type(reading)(reading.log), store=Store(store_dir=store.readable[0]))
    assert reading.cases() == before


@pytest.mark.parametrize("change", ["file", "chain", "item", "reading"])
def test_whatever_changes_is_prepared_anew(items, reading, store, change):
    StoredCases(items, reading, store=store)
    chain, own = reading, [dict(i) for i in items]
    if change == "file":
        np.save(items[1]["image"], np.full((1, 20, 18, 23), 0.7, np.float32))
    elif change == "chain":
        chain = type(reading)(reading.log, scale=2.0)
    elif change == "item":
        own[2]["modality"] = "CT"
    cases = StoredCases(own, chain, store=store, reading=8 if change == "reading" else None)
    anew = {"file": ["c1"], "chain": ["c0", "c1", "c2"], "item": ["c2"], "reading": ["c0", "c1", "c2"]}[change]
    assert sorted(reading.cases()[3:]) == anew
    if change == "file":
        assert float(cases[1]["image"].whole().mean()) == pytest.approx(0.7, abs=1e-3)


def test_one_content_twice_is_prepared_once(items, reading, store, tmp_path):
    copy = tmp_path / "copy.npy"
    copy.write_bytes(open(items[0]["image"], "rb").read())  # noqa: PTH123, SIM115
    cases = StoredCases([items[0], {**items[0], "image": str(copy)}], reading, store=store)
    assert reading.cases() == ["c0"] and len(cases) == 2
    assert cases[1]["image"].whole().meta["filename_or_obj"] == str(copy)


@pytest.mark.parametrize("harm", ["cut", "cut later", "gone", "wild"])
def test_a_damaged_entry_is_made_again(items, reading, store, harm, caplog):
    cases = StoredCases(items, reading, store=store, transform=crop)
    wanted = cases[0]
    (file,) = (p for p in store.readable[0].rglob("0.b2nd") if p.parent.name == cases.names[0])
    if harm == "gone":
        file.unlink()
    elif harm == "wild":
        file.write_bytes(b"\0" * file.stat().st_size)
    else:
        file.write_bytes(file.read_bytes()[:200])
    if harm != "cut later":
        cases = StoredCases(items, reading, store=store, transform=crop)
    assert torch.equal(cases[0], wanted)
    assert reading.cases().count("c0") == 2 and "preparing a volume again" in caplog.text
    assert torch.equal(cases[0], wanted) and len(reading.cases()) == 4


def test_what_a_sample_prepares_again_has_its_geometry(items, reading, store):
    cases = StoredCases(items, Compose([reading, Orientationd("image", "LPS", labels=None)]), store=store)
    wanted = cases[0]["image"].whole()
    for file in store.readable[0].rglob("*.b2nd"):
        file.write_bytes(b"")
    found = DrawnSamples(cases)[(0, 0)]["image"].whole()
    assert torch.equal(found.affine, wanted.affine) and not torch.equal(found.affine, torch.eye(4).double())
    assert len(found.applied_operations) == len(wanted.applied_operations) == 1


def test_a_damaged_entry_that_cannot_be_removed_is_passed_over(items, reading, tmp_path, monkeypatch):
    first, second = Store(store_dir=tmp_path / "a"), Store(store_dir=tmp_path / "b")
    StoredCases(items, reading, store=first)
    for file in (tmp_path / "a").rglob("0.b2nd"):
        file.write_bytes(b"")
    both = Store(store_dir=tmp_path / "b")
    both.readable = [tmp_path / "a", tmp_path / "b"]
    monkeypatch.setattr(Store, "writable", lambda self: second.readable[0])
    import shutil

    real = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda p, **o: None if (tmp_path / "a") in p.parents else real(p, **o))
    cases = StoredCases(items, reading, store=both)
    assert cases[1]["image"].whole().shape == (1, 20, 18, 23) and reading.cases().count("c1") == 2
    assert cases[1]["image"].path.is_relative_to(tmp_path / "b")


def test_an_entry_that_lost_its_description_is_prepared_again(items, reading, store):
    wanted = StoredCases(items, reading, store=store, transform=crop)[0]
    for text in store.readable[0].rglob("entry.json"):
        text.unlink()
    cases = StoredCases(items, reading, store=store, transform=crop)
    assert torch.equal(cases[0], wanted) and reading.cases().count("c0") == 2
    assert not list(store.readable[0].rglob(".*.tmp"))
    StoredCases(items, reading, store=store)
    assert len(reading.cases()) == 6, "it is complete again"


def test_a_damaged_entry_that_nobody_can_remove_is_named(items, reading, store, monkeypatch):
    cases = StoredCases(items, reading, store=store)
    folder = store.find(cases.chain, cases.names[1])
    (folder / "0.b2nd").write_bytes(b"")
    monkeypatch.setattr("shutil.rmtree", lambda path, **options: None)
    with pytest.raises(DataError, match="cannot be found again") as caught:
        cases[1]
    assert caught.value.where == folder and caught.value.got == "case c1"
    assert "delete that folder" in caught.value.hint and "--store_dir" in caught.value.hint


def test_a_start_that_fails_remembers_what_the_files_hold(items, reading, store, monkeypatch):
    monkeypatch.setattr("common.data.store.sources._SETTLED_NS", -(10**18))

    class Refusing(type(reading)):
        def __call__(self, data):
            raise DataError("the volume holds NaN")

    with pytest.raises(DataError, match="holds NaN"):
        StoredCases(items, Refusing(reading.log), store=store)
    assert not list(store.readable[0].rglob("entry.json"))
    monkeypatch.setattr("common.data.store.sources.file_hash", None)
    assert len(StoredCases(items, reading, store=store)) == 3


def resident():
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_does_not_grow_with_the_cases(reading, store, tmp_path):
    rng, items = np.random.default_rng(0), []
    for number in range(8):
        np.save(tmp_path / f"{number}.npy", rng.uniform(0, 1, (1, 100, 100, 100)).astype(np.float32))
        items.append({"image": str(tmp_path / f"{number}.npy"), "case": str(number)})
    cases = StoredCases(items, reading, store=store, reading=32, transform=crop)
    cases[0]
    before = resident()
    kept = [cases[i].sum() for i in range(8) for _ in range(3)]
    assert len(kept) == 24 and resident() - before < 8e6, "eight cases are 16 MB on disk"


def test_without_a_store_cases_are_kept_in_memory(items, reading, store):
    cases = prepared(items, reading, None)
    assert cases[0]["image"].shape == cases[0]["image"].shape == (1, 20, 18, 22) and reading.cases() == [
        "c0",
        "c1",
        "c2",
    ]
    assert isinstance(prepared(items, reading, store)[0]["image"], StoredArray)


@pytest.mark.parametrize("inside", [crop, Compose([crop])])
def test_damage_that_a_transform_meets_is_mended_also_inside_a_compose(items, reading, store, inside):
    cases = StoredCases(items, reading, store=store, reading=10, transform=inside)
    wanted = cases[0]
    file = cases.case(0)["image"].path
    file.write_bytes(bytes(file.stat().st_size))
    assert torch.equal(cases[0], wanted) and file.stat().st_size > 0


def test_other_errors_and_other_stores_damage_are_not_taken_for_its_own(items, reading, store):
    cases = StoredCases(items, reading, store=store, told="what they are")
    folder = cases._folder(0)

    def fail(case):
        raise RuntimeError("something else")

    def meet(case):
        raise DamagedEntryError("a prepared volume cannot be read", where=store.readable[0] / "elsewhere" / "0.b2nd")

    for read, told in ((fail, "something else"), (meet, "cannot be read")):
        with pytest.raises((RuntimeError, DamagedEntryError), match=told):
            cases.read(0, read)
        assert folder.is_dir()
    (kept,) = listed(store.readable[0])
    assert kept.chain == ["what they are", "Reading"]
