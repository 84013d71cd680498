import os
import time

import pytest

from common.data.store import place as module
from common.data.store.cases import StoredCases
from common.data.store.place import VARIABLE, Store, clear, listed, places, size_text
from common.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_option_decides_then_the_environment_then_the_data(tmp_path, monkeypatch):
    data, cache = tmp_path / "data", tmp_path / "cache" / "amalgam" / "prepared"
    data.mkdir()
    (data / "dataset.json").write_text("{}")
    beside = [data / ".prepared", *(p for p in places(data)[1:])]
    assert beside[1].parent == cache and beside[1] != places(tmp_path)[1], "one data set's are not another's"
    assert places(data) == places(str(data)) == places([data, tmp_path]) == places(data / "dataset.json") == beside
    assert places(f"{data},elsewhere") == places(f"{data}::liver") == beside
    assert places([f"{data}::liver"]) == beside and places([f"{data},elsewhere"]) == [cache] != beside
    odd = tmp_path / "one, two"
    odd.mkdir()
    assert places(str(odd)) == places(f"{odd}::liver") == places(odd) and places(odd)[0] == odd / ".prepared"
    assert places("nowhere") == places(None) == [cache]
    monkeypatch.setenv(VARIABLE, str(tmp_path / "env"))
    assert places(data) == [tmp_path / "env"]
    assert places(data, tmp_path / "own") == [tmp_path / "own"]


def read_only(monkeypatch, *folders):
    """Folders that refuse writing, also for root."""
    refused = module._unwritable
    monkeypatch.setattr(module, "_unwritable", lambda p: "Read-only file system" if p in folders else refused(p))


def test_read_only_data_are_prepared_in_the_cache(items, reading, tmp_path, monkeypatch):
    beside, cache = places(tmp_path / "data")
    StoredCases(items[:1], reading, store=Store(tmp_path / "data"))
    read_only(monkeypatch, beside)
    store = Store(tmp_path / "data")
    assert len(StoredCases(items, reading, store=store)) == 3
    assert sorted(reading.cases()) == ["c0", "c1", "c2"], "what is there is read"
    assert [sum(k.cases for k in listed(p)) for p in (beside, cache)] == [1, 2]
    read_only(monkeypatch, beside, cache)
    assert len(StoredCases(items, reading, store=Store(tmp_path / "data"))) == 3, "a full store needs no writing"
    assert len(reading.cases()) == 3
    with pytest.raises(DataError, match=rf"Read-only file system[\s\S]*--store_dir or {VARIABLE}"):
        StoredCases([{**items[0], "case": "new"}], reading, store=Store(tmp_path / "data"))


def test_what_is_there_is_listed_and_cleared(items, reading, tmp_path):
    store = Store(store_dir=tmp_path / "store")
    StoredCases(items, reading, store=store)
    other = type(reading)(reading.log, scale=2.0)
    StoredCases(items[:2], other, store=store)
    (old,) = [k for k in listed(tmp_path / "store") if k.cases == 3]
    os.utime(old.folder / "prepared_by.json", (time.time() - 40 * 86400,) * 2)
    new, old = listed(tmp_path / "store")
    assert (new.cases, old.cases) == (2, 3) and old.chain == ["Reading"] and old.tasks == ["liver"]
    assert old.size > 3 * 20 * 18 * 22 and old.used < time.time() - 39 * 86400
    StoredCases(items[:2], other, store=store)
    assert clear(tmp_path / "store", unused_days=30) == (3, old.size)
    assert [k.cases for k in listed(tmp_path / "store")] == [2]
    assert clear(tmp_path / "store")[0] == 2 and not (tmp_path / "store").exists()
    assert clear(tmp_path / "nothing") == (0, 0) and all((tmp_path / "data" / f"{n}.npy").is_file() for n in range(3))


def test_a_run_notes_that_it_used_them(items, reading, tmp_path):
    store = Store(store_dir=tmp_path / "store")
    StoredCases(items, reading, store=store)
    (kept,) = listed(tmp_path / "store")
    os.utime(kept.folder / "prepared_by.json", (0, 0))
    StoredCases(items, reading, store=store)
    assert time.time() - listed(tmp_path / "store")[0].used < 60


def test_the_limit_is_kept_and_the_refusal_says_what_to_do(items, reading, tmp_path):
    place = tmp_path / "store"
    with pytest.raises(DataError, match=r"larger than allowed[\s\S]*forecast for 2 cases[\s\S]*--store_gb"):
        StoredCases(items, reading, store=Store(store_dir=place, limit_gb=4e-5))
    assert len(reading.cases()) == 1, "nothing but the sample was prepared"
    assert len(StoredCases(items, reading, store=Store(store_dir=place, limit_gb=1))) == 3
    assert len(reading.cases()) == 3, "the sample is used"


def test_a_small_disk_is_refused_before_anything_large(items, reading, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "free_bytes", lambda folder: 30_000)
    with pytest.raises(DataError, match=r"no room[\s\S]*30 kB free[\s\S]*larger disk"):
        StoredCases(items, reading, store=Store(store_dir=tmp_path / "store"))


def test_impossible_options(tmp_path):
    with pytest.raises(ConfigError, match="store_gb"):
        Store(store_dir=tmp_path, limit_gb=0)
    with pytest.raises(ConfigError, match="store_workers"):
        Store(store_dir=tmp_path, workers=-1)
    assert [size_text(n) for n in (5, 1500, 2.5e6, 3.21e9, 5e12)] == ["5 B", "1.5 kB", "2.5 MB", "3.21 GB", "5e+03 GB"]
