"""Preparing what is missing: several processes, two runs at once, a full disk, and a forecast before anything large."""

from __future__ import annotations

import contextlib
import errno
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from filelock import FileLock, Timeout
from monai.data import get_track_meta, set_track_meta
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ...atomic import process_alive, usable_cores
from ...errors import AmalgamationError, DataError, cause_of
from ..datasets.dataset_json import case_name
from .entry import TEXT, write_entry
from .layout import Reading
from .owned import LOCKS, refuse_link, remove_unfinished
from .place import VARIABLE, Store, size_text

__all__ = ["Job", "fill", "prepare"]

logger = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_BYTES_PER_WORKER = 3 * 10**9  # a large CT while it is resampled
_WAIT = 0.2


class Job(NamedTuple):
    """A case to prepare.

    Args:
        item: as the chain takes it.
        chain: the chain's digest, the name of its folder.
        key: the entry's name.
        size: bytes of its source files.
    """

    item: Mapping[Any, Any]
    chain: str
    key: str
    size: int


class _Done(NamedTuple):
    job: int
    size: int
    error: Exception | None = None
    busy: bool = False


class _Jobs(Dataset[_Done]):
    """Each item prepares a case, so that a ``DataLoader``'s processes share them."""

    def __init__(
        self, jobs: Sequence[Job], wanted: Sequence[int], chain: Callable[..., Any], place: Path, reading: Reading
    ) -> None:
        self.jobs, self.wanted, self.chain, self.place, self.reading = jobs, wanted, chain, place, reading

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, position: int) -> _Done:
        number = self.wanted[position]
        try:
            size = prepare(self.jobs[number], self.chain, self.place, self.reading)
        except (AmalgamationError, OSError, RuntimeError) as error:
            told = cause_of(error, AmalgamationError, OSError)
            if told is None:
                raise  # with its traceback, through the loader
            return _Done(number, 0, told)
        return _Done(number, size or 0, busy=size is None)


def prepare(job: Job, chain: Callable[..., Any], place: Path, reading: Reading) -> int | None:
    """Prepare one case unless another process is doing it.

    Args:
        job: the case.
        chain: its deterministic transforms.
        place: a folder that can be written.
        reading: how the volumes will be read.

    Returns:
        Bytes on disk, 0 when it was there, None while another process prepares it.

    Raises:
        OSError: when the disk refuses.
        AmalgamationError: as the chain does.
    """
    folder = place / job.chain / job.key
    lock = place / LOCKS / f"{job.chain[:8]}{job.key}.lock"
    refuse_link(place, folder.parent, folder, lock.parent, lock)
    if (folder / TEXT).is_file():
        return 0
    with _alone(lock) as alone:
        if not alone:
            return None
        if (folder / TEXT).is_file():  # the other run finished it just now
            return 0
        about = {"case": case_name(job.item), "task": str(job.item.get("task", ""))}
        tracking = get_track_meta()
        set_track_meta(True)  # geometry belongs to a prepared volume, whoever needs it, samples too
        try:
            return write_entry(folder, chain(dict(job.item)), reading, about)
        finally:
            set_track_meta(tracking)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether this process has the lock; a killed one gives it back. Without locks on the disk, everybody has it."""
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        yield True
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        lock.release()


def fill(jobs: Sequence[Job], chain: Callable[..., Any], store: Store, reading: Reading) -> None:
    """Prepare cases, and wait for those that other runs are preparing.

    One case in the middle of their sizes is prepared first: from it, room and time are forecast before the rest.

    Args:
        jobs: what is missing.
        chain: the deterministic transforms.
        store: where it goes.
        reading: how the volumes will be read.

    Raises:
        DataError: when there is no room; nothing but finished cases is left behind.
        AmalgamationError: as the chain does for a case.
    """
    if not jobs:
        return
    place = store.writable()
    remove_unfinished(place / jobs[0].chain, process_alive)
    total = sum(j.size for j in jobs)
    order = sorted(range(len(jobs)), key=lambda i: jobs[i].size)
    first = order[len(order) // 2]
    began = time.monotonic()
    (done,) = _run([first], jobs, chain, place, reading, 0)
    needed = _checked(done, jobs, place).size * (total - jobs[first].size) / max(1, jobs[first].size)
    rest = [i for i in _rotated(len(jobs)) if i != first or done.busy]
    more = f" (forecast for {len(rest)} cases from one of them)"
    store.room(int(needed), more=more if rest else "")
    workers = _workers(store.workers, len(rest))
    if rest:
        seconds = (time.monotonic() - began) * len(rest) / max(1, workers)
        logger.info("preparing %d volumes in %s: about %s and %s, %d processes", len(rest), place, size_text(needed),
                    tqdm.format_interval(seconds), max(1, workers))  # fmt: skip
    try:
        _fill_rest(rest, jobs, chain, store, place, reading, workers)
    except (RuntimeError, OSError) as error:
        _told(error, place)
        raise


def _fill_rest(
    rest: Sequence[int], jobs: Sequence[Job], chain: Any, store: Store, place: Path, reading: Reading, workers: int
) -> None:
    quiet = store.quiet or not sys.stderr.isatty()
    with tqdm(total=len(rest), desc="preparing volumes", unit="volume", dynamic_ncols=True, file=sys.stderr,
              disable=quiet, leave=False) as bar:  # fmt: skip
        written = 0
        while rest:
            busy = []
            for done in _run(rest, jobs, chain, place, reading, workers):
                written += _checked(done, jobs, place).size
                if done.busy:
                    busy.append(done.job)
                    continue
                bar.update(1)
                if store.limit_gb is not None and written > 10**8:  # a forecast may err
                    written = 0
                    store.room(0)
            if busy:
                bar.set_postfix_str(f"{len(busy)} prepared by another run")
                time.sleep(_WAIT)
            rest, workers = busy, min(workers, len(busy))


def _run(
    wanted: Sequence[int], jobs: Sequence[Job], chain: Any, place: Path, reading: Reading, workers: int
) -> Iterator[_Done]:
    dataset = _Jobs(jobs, wanted, chain, place, reading)
    own = torch.Generator()  # the random numbers of the training stay as they are
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, collate_fn=_same, generator=own)
    yield from loader


def _same(done: Any) -> Any:
    return done


def _checked(done: _Done, jobs: Sequence[Job], place: Path) -> _Done:
    if isinstance(done.error, OSError):
        _told(done.error, place, case_name(jobs[done.job].item))
    if done.error is not None:
        raise done.error
    return done


def _told(error: Exception, place: Path, case: str | None = None) -> None:
    """Say what a refusing disk or a killed process means."""
    if isinstance(error, OSError) and error.errno in _FULL:
        raise DataError("the disk is full; what is prepared already stays", where=f"{place}, case {case}" if case else
                        place, got=str(error.strerror),
                        hint=f"free some space, or name another folder with --store_dir or {VARIABLE}; then run the "
                             "same command again: it goes on from here") from error  # fmt: skip
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error) and "pid" in str(error):
        problem = "a process that prepared volumes was killed, most often for want of memory"
        hint = "run it again with --store_workers 1"
        raise DataError(problem, where=place, got=str(error)[:200], hint=hint) from error


def _workers(given: int | None, count: int) -> int:
    """Processes: as many as memory and this process's share of the cores allow; none of its own for a few cases."""
    if multiprocessing.current_process().daemon:  # a loader's worker has no children
        return 0
    if given is not None:
        return min(given, count)
    fits = int(psutil.virtual_memory().available // _BYTES_PER_WORKER)
    found = min(usable_cores(), 8, count, fits)
    return 0 if found < 2 or count < 8 else found


def _rotated(count: int) -> list[int]:
    """All numbers, from another one on in each process, so that two runs seldom want the same case."""
    start = os.getpid() % count
    return [*range(start, count), *range(start)]
