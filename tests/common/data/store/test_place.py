import os
import shutil
import socket
import tempfile
import time
from functools import partial

import pytest

from common.data.store import place as module
from common.data.store.cases import StoredCases
from common.data.store.facts import remembered
from common.data.store.place import VARIABLE, Store, clear, listed, places, size_text
from common.errors import ConfigError, DataError
from tests.common.data.store.processes import forked, read_only


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


def unwritable(monkeypatch, *folders):
    """Folders that refuse writing, also for root."""
    refused = module._unwritable
    monkeypatch.setattr(module, "_unwritable", lambda p: "Read-only file system" if p in folders else refused(p))


def test_read_only_data_are_prepared_in_the_cache(items, reading, tmp_path, monkeypatch):
    beside, cache = places(tmp_path / "data")
    StoredCases(items[:1], reading, store=Store(tmp_path / "data"))
    unwritable(monkeypatch, beside)
    store = Store(tmp_path / "data")
    assert len(StoredCases(items, reading, store=store)) == 3
    assert sorted(reading.cases()) == ["c0", "c1", "c2"], "what is there is read"
    assert [sum(k.cases for k in listed(p)) for p in (beside, cache)] == [1, 2]
    unwritable(monkeypatch, beside, cache)
    assert len(StoredCases(items, reading, store=Store(tmp_path / "data"))) == 3, "a full store needs no writing"
    assert len(reading.cases()) == 3
    with pytest.raises(DataError, match=rf"Read-only file system[\s\S]*--store_dir or {VARIABLE}"):
        StoredCases([{**items[0], "case": "new"}], reading, store=Store(tmp_path / "data"))


def test_a_disk_that_refuses_every_write_is_read_and_the_cache_takes_the_rest(items, reading, tmp_path):
    """What a killed run left and a damaged volume lie there, too; neither can be removed."""
    data = tmp_path / "data"
    beside, cache = places(data)
    StoredCases(items[:2], reading, store=Store(data))
    facts = partial(remembered, question={"how": "many"}, items=items)
    facts(Store(data), make=lambda: {"cases": 3})
    (chain,) = listed(beside)
    left = chain.folder / f".{'0' * 32}.{socket.gethostname()}.{2**22 + 1}.tmp"
    left.mkdir()
    spoilt = min(chain.folder.glob("[0-9a-f]*/0.b2nd"))
    spoilt.write_bytes(spoilt.read_bytes()[:-1])
    before = {p: p.stat().st_mtime_ns for p in data.rglob("*")}

    def run():
        read_only(data)
        changes = (left.rmdir, spoilt.unlink, (beside / "new").mkdir, spoilt.touch, partial(os.utime, spoilt),
                   partial(spoilt.write_bytes, b""), partial(spoilt.rename, tmp_path / "elsewhere"),
                   partial(shutil.rmtree, left), partial(tempfile.TemporaryFile, dir=beside))  # fmt: skip
        for change in changes:
            with pytest.raises(OSError, match="Read-only file system"):
                change()
        cases = StoredCases(items, reading, store=Store(data))
        assert [cases[i]["image"].whole().shape[-1] for i in range(3)] == [22, 23, 24]
        assert [cases.case(i)["case"] for i in range(3)] == ["c0", "c1", "c2"]
        assert len(reading.cases()) == 4, "one that was missing, one that was damaged"
        assert [(k.folder.parent, k.cases) for p in (beside, cache) for k in listed(p)] == [(beside, 2), (cache, 2)]
        assert facts(Store(data), make=lambda: pytest.fail("asked again")) == {"cases": 3}
        assert facts(Store(data), question={"how": "large"}, make=lambda: {"bytes": 5}) == {"bytes": 5}
        assert facts(Store(data), question={"how": "large"}, make=lambda: pytest.fail("asked again")) == {"bytes": 5}

    def everywhere():
        read_only(data, cache.parent)
        cases = StoredCases(items, reading, store=Store(data))
        assert len(cases) == 3 and len(cases[2]["image"].whole()) == 1 and len(reading.cases()) == 4
        assert facts(Store(data), question={"why": None}, make=lambda: {"kept": "nowhere"}) == {"kept": "nowhere"}
        with pytest.raises(DataError, match=rf"Read-only file system[\s\S]*--store_dir or {VARIABLE}"):
            StoredCases([{**items[0], "case": "new"}], reading, store=Store(data))
        with pytest.raises(DataError, match=r"cannot be deleted here; nothing was[\s\S]*Read-only file system"):
            clear(beside)

    assert forked(run) == 0
    assert forked(everywhere) == 0
    assert {p: p.stat().st_mtime_ns for p in data.rglob("*")} == before, "nothing there was touched"


def test_what_cannot_be_deleted_is_not_said_to_be_gone(items, reading, tmp_path):
    place = tmp_path / "store"
    StoredCases(items, reading, store=Store(store_dir=place))
    StoredCases(items[:2], type(reading)(reading.log, scale=2.0), store=Store(store_dir=place))
    (kept,) = (k for k in listed(place) if k.cases == 3)

    def run():  # a chain of somebody else
        read_only(kept.folder)
        with pytest.raises(DataError, match=r"could not be deleted[\s\S]*3 cases are left, 2 are gone"):
            clear(place)

    assert forked(run) == 0
    assert listed(place) == [kept] and len(StoredCases(items, reading, store=Store(store_dir=place))) == 3
    assert clear(place)[0] == 3 and not place.exists()


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
