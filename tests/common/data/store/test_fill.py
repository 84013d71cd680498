import errno
import logging
import multiprocessing
import os
import signal
import threading
import time
from functools import partial

import pytest
import torch
from filelock import FileLock
from monai.transforms import Compose

from common.data.store import entry as entry_module
from common.data.store import fill as module
from common.data.store.cases import StoredCases
from common.data.store.place import Store, listed
from common.errors import DataError
from tests.common.data.store.processes import begun, ended, forked


@pytest.fixture
def place(tmp_path):
    return tmp_path / "store"


def test_several_processes_share_the_cases(items, reading, place, caplog):
    with caplog.at_level(logging.INFO):
        StoredCases(items, reading, store=Store(store_dir=place, workers=2))
    assert sorted(reading.cases()) == ["c0", "c1", "c2"]
    pids = {line.split()[1] for line in reading.log.read_text().splitlines()}
    assert len(pids) >= 2 and any(p != str(os.getpid()) for p in pids)
    assert "preparing 2 volumes in" in caplog.text and "about" in caplog.text
    assert not list(place.rglob("*.tmp")) and not list(place.rglob("*.lock"))


def test_the_training_draws_what_it_would_draw_without(items, reading, place):
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    StoredCases(items, reading, store=Store(store_dir=place))
    assert torch.equal(torch.rand(1), wanted)


def test_killed_in_the_middle_of_writing(items, reading, place, monkeypatch):
    def dying(path, content):
        path.write_bytes(content[: len(content) // 2])
        if path.name == "1.b2nd":
            os.kill(os.getpid(), signal.SIGKILL)

    def run():
        monkeypatch.setattr(entry_module, "_synced", dying)
        StoredCases(items, reading, store=Store(store_dir=place))

    assert forked(run) == -signal.SIGKILL
    assert list(place.rglob(".*.tmp")), "the kill hit the middle of the writing"
    cases = StoredCases(items, reading, store=Store(store_dir=place))
    assert not list(place.rglob(".*.tmp")) and len(cases[0]["label"].whole()) == 1
    assert len(reading.cases()) == 4


def test_a_killed_process_of_ours_is_explained(items, reading, place):
    chain = type(reading)(reading.log, die="c2")
    with pytest.raises(DataError, match=r"killed, most often for want of memory[\s\S]*--store_workers 1"):
        StoredCases(items, chain, store=Store(store_dir=place, workers=1))


def test_a_full_disk_keeps_what_is_prepared(items, reading, place, monkeypatch):
    real, written = entry_module._synced, []

    def filling(path, content):
        written.append(path)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, content)

    monkeypatch.setattr(entry_module, "_synced", filling)
    with pytest.raises(DataError, match=r"case c\d.*the disk is full[\s\S]*goes on from here"):
        StoredCases(items, reading, store=Store(store_dir=place))
    assert [k.cases for k in listed(place)] == [1]
    monkeypatch.setattr(entry_module, "_synced", real)
    StoredCases(items, reading, store=Store(store_dir=place))
    assert [k.cases for k in listed(place)] == [3] and len(reading.cases()) == 4


def test_two_runs_at_once_prepare_each_case_once(items, reading, place):
    """The other run holds a case's lock, finishes it, and lets go."""
    StoredCases(items[:1], reading, store=Store(store_dir=place / "other"))
    (done,) = (k.folder for k in listed(place / "other"))
    (entry,) = (p for p in done.iterdir() if p.is_dir())
    lock = FileLock(place / "locks" / f"{done.name[:8]}{entry.name}.lock", thread_local=False)
    (place / "locks").mkdir(parents=True)
    lock.acquire()

    def finish():
        time.sleep(0.5)
        (place / done.name).mkdir(exist_ok=True)
        entry.rename(place / done.name / entry.name)
        lock.release()

    other = threading.Thread(target=finish)
    other.start()
    cases = StoredCases(items, reading, store=Store(store_dir=place))
    other.join()
    assert sorted(reading.cases()) == ["c0", "c1", "c2"] and [c["case"] for c in (cases[0], cases[2])] == ["c0", "c2"]


def begun_together(chains, items, place, workers):
    """Runs that begin to fill a place at one moment."""
    barrier = multiprocessing.get_context("fork").Barrier(len(chains))

    def run(chain):
        barrier.wait(30)
        cases = StoredCases(items, chain, store=Store(store_dir=place, workers=workers))
        assert [len(cases[i]["image"].whole()) for i in range(len(items))] == [1] * len(items)

    return [begun(partial(run, chain)) for chain in chains]


@pytest.mark.parametrize("workers", [0, 2])
def test_two_runs_that_fill_a_place_at_once_prepare_each_case_once(items, reading, place, workers):
    items = [{**items[n % 3], "case": f"c{n}"} for n in range(6)]
    runs = begun_together([type(reading)(reading.log, seconds=0.1)] * 2, items, place, workers)
    assert [ended(pid) for pid in runs] == [0, 0]
    assert sorted(reading.cases()) == [f"c{n}" for n in range(6)] and [k.cases for k in listed(place)] == [6]
    assert len({line.split()[1] for line in reading.log.read_text().splitlines()}) >= 2, "both did a part"
    assert not list(place.rglob("*.tmp")) and not list(place.rglob("*.lock"))


def test_of_two_runs_one_is_killed_and_the_other_takes_its_case_over(items, reading, place):
    """The first one has the case in the middle of their sizes and dies of it; the other waits for it."""
    fatal = type(reading)(reading.log, seconds=0.5, die="c1")
    one = begun(lambda: StoredCases(items, fatal, store=Store(store_dir=place)))
    deadline = time.monotonic() + 30
    while not reading.cases() and time.monotonic() < deadline:
        time.sleep(0.01)
    two = begun(lambda: StoredCases(items, reading, store=Store(store_dir=place)))
    assert (ended(one), ended(two)) == (-signal.SIGKILL, 0)
    read = [line.split() for line in reading.log.read_text().splitlines()]
    assert read[0] == ["c1", str(one)] and sorted(read[1:]) == [[c, str(two)] for c in ("c0", "c1", "c2")]
    assert [k.cases for k in listed(place)] == [3] and not list(place.rglob("*.lock"))


def test_a_case_that_cannot_be_read_is_named(items, reading, place):
    class Refusing(type(reading)):
        def __call__(self, data):
            if data["case"] == "c1":
                raise DataError("the volume holds NaN", where=f"case {data['case']}")
            return super().__call__(data)

    for workers in (0, 2):
        with pytest.raises(DataError, match=r"^case c1: the volume holds NaN$"):
            StoredCases(items, Refusing(reading.log), store=Store(store_dir=place, workers=workers))
        with pytest.raises(DataError, match=r"^case c1: the volume holds NaN$"):  # MONAI's Compose hides it
            StoredCases(items, Compose([Refusing(reading.log)]), store=Store(store_dir=place, workers=workers))


def test_how_many_processes(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: type("M", (), {"available": 64e9}))
    assert [module._workers(None, n) for n in (1, 7, 8, 100)] == [0, 0, 8, 8]
    assert module._workers(3, 2) == 2 and module._workers(0, 100) == 0
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: type("M", (), {"available": 7e9}))
    assert module._workers(None, 100) == 2
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: type("M", (), {"available": 64e9}))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert module._workers(None, 100) == 4, "each process of a launch prepares in its share of the cores"
