"""Running the steps of a chain: in the order of their needs, several at a time, each in a process of its own."""

from __future__ import annotations

import datetime
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

import torch

from common.errors import AmalgamationError, ConfigError, ExpertError, visible

from ..terminal import one_line
from .artefacts import unfit
from .record import Record, write_manifest
from .step import ChainSettings, Step

__all__ = ["default_jobs", "execute", "last_progress"]

_PROGRESS = re.compile(r"epoch \d+/\d+.*left")
_PAUSE = 15.0


def default_jobs(gpus: int | None = None, cores: int | None = None) -> int:
    """Processes at a time: one with a GPU, else two where there are two cores (memory ends before cores do).

    Args:
        gpus: number of GPUs; counted when None.
        cores: number of CPU cores; counted when None.
    """
    gpus = torch.cuda.device_count() if gpus is None else gpus
    cores = (os.cpu_count() or 1) if cores is None else cores
    return 1 if gpus else max(1, min(2, cores))


def execute(
    steps: Sequence[Step], record: Record, settings: ChainSettings, jobs: int, *, keep_going: bool = False
) -> dict[str, BaseException]:
    """Do every step that is not done yet.

    A failed step stops the start of further ones; those that run are waited for, so that nothing of theirs is lost.
    An interrupt or SIGTERM is passed on to the running steps, which write their checkpoints and end.

    Args:
        steps: in an order that respects their needs.
        record: the chain's record.
        settings: the chain's settings.
        jobs: processes at a time, >= 1; they share the CPU's cores evenly.
        keep_going: do all that needs no failed step, and give the failures back instead of raising the first.

    Returns:
        the failures by the steps' ids; of steps that were left out, that of the one they need.

    Raises:
        ConfigError: for less than one job.
        AmalgamationError: of the first step that failed.
    """
    if jobs < 1:
        raise ConfigError("at least one process at a time", where="jobs", got=jobs)
    waiting, done, lock = list(steps), set[str](), threading.Lock()
    running: dict[Future[None], Step] = {}
    failures: dict[str, BaseException] = {}
    processes = Processes(max(1, (os.cpu_count() or 1) // jobs))
    with ThreadPoolExecutor(jobs) as pool, processes.ended_with_us():
        while running or waiting:
            for step in [s for s in waiting if done.issuperset(s.needs)][: jobs - len(running)]:
                waiting.remove(step)
                position = f"[{steps.index(step) + 1}/{len(steps)}]"
                running[pool.submit(_do, step, record, settings, position, lock, processes)] = step
            if not running:
                break
            finished, _ = wait(running, timeout=_PAUSE, return_when=FIRST_COMPLETED)
            ended = {running.pop(future).id: future.exception() for future in finished}
            done |= {i for i, error in ended.items() if error is None}
            failures |= {i: error for i, error in ended.items() if error is not None}
            if failures:
                waiting = _still_possible(waiting, failures) if keep_going else []
            if not finished:
                _show(list(running.values()))
    fatal = [e for e in failures.values() if not keep_going or not isinstance(e, AmalgamationError)]
    if fatal:
        raise fatal[0]
    return failures


def _still_possible(waiting: Sequence[Step], failures: dict[str, BaseException]) -> list[Step]:
    """The steps that need no failed one; the others are added to the failures."""
    left = []
    for step in waiting:
        failed = [need for need in step.needs if need in failures]
        if failed:
            failures[step.id] = failures[failed[0]]
        else:
            left.append(step)
    return left


_ENDING = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}  # Windows has no SIGHUP


class Processes:
    """The processes of a chain, none of which outlives it.

    Args:
        threads: CPU threads for each of them.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock, self._closed = threading.Lock(), False

    def run(self, argv: Sequence[str], environment: Mapping[str, str], log: IO[str]) -> int:
        """Run a command to its end; its exit code (that of SIGTERM when the chain is ending)."""
        with self._lock:
            if self._closed:
                return -signal.SIGTERM
            # a group of its own: Ctrl-C in a terminal would reach it besides us, and a second signal kills at once
            process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, process_group=0)
            self._running.add(process)
        try:
            return process.wait()
        finally:
            with self._lock:
                self._running.discard(process)

    def end(self) -> None:
        """Ask every process to finish what it writes and to end; start none any more."""
        with self._lock:
            self._closed, running = True, list(self._running)
            for process in running:
                process.terminate()

    @contextmanager
    def ended_with_us(self) -> Iterator[None]:
        """Pass an interrupt of the block on; in the main thread SIGTERM and a closed terminal's SIGHUP are some."""
        main = threading.current_thread() is threading.main_thread()
        before = {n: signal.signal(n, _interrupt) for n in _ENDING} if main else {}
        try:
            yield
        except BaseException:
            self.end()
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _do(
    step: Step, record: Record, settings: ChainSettings, position: str, lock: threading.Lock, processes: Processes
) -> None:
    with lock:
        why = record.lacks(step)
        if why is None:
            record.confirm(step)
            _say(f"{position} {step.title}: done before")
            return
        _say(f"{position} {step.title}" + (f" ({why})" if why else "") + (f"\n    {step.command}" if step.argv else ""))
        record.begin(step)
    started, status = time.monotonic(), "failed"
    try:
        if step.kind == "manifest":
            write_manifest(step)
        else:
            _call(step, processes)
        _check_result(step)
        status = "done"
    finally:
        with lock:
            record.end(step, status, time.monotonic() - started)


def _call(step: Step, processes: Processes) -> None:
    step.output_dir.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(p for p in (str(Path.cwd()), os.environ.get("PYTHONPATH", "")) if p)
    environment = {**os.environ, "PYTHONPATH": path}
    environment.setdefault("OMP_NUM_THREADS", str(processes.threads))
    log = _log(step)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"\n# {datetime.datetime.now(datetime.UTC).isoformat()} {one_line(step.command)}\n")
        file.flush()
        returncode = processes.run(step.argv, environment, file)
    if returncode:
        error = ExpertError if step.kind in ("expert", "external") else AmalgamationError
        raise error(
            f"the command ended with exit code {returncode}",
            where=step.title,
            got=_reason(log),
            hint=f"read {log}, mend the cause and type the same chain command again: finished steps are kept",
        )


def _check_result(step: Step) -> None:
    wrong = unfit(step)
    if wrong:
        log = _log(step)
        last = f"; its last words: {_reason(log)}" if log.is_file() else ""
        problem = "the command ended well but left no result"
        expected = step.output_dir / step.produces
        raise AmalgamationError(problem, where=step.title, got=f"{wrong}{last}", expected=expected, hint=f"read {log}")


def _log(step: Step) -> Path:
    return step.output_dir / f"{step.kind}.log"


def _reason(log: Path) -> str:
    """The error message at the end of a log."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    for number in range(len(lines) - 1, -1, -1):
        if re.match(r"^\w*(Error|Exception|Interrupt)\b", lines[number]):
            return "\n".join(lines[number : number + 5])
    return lines[-1] if lines else "no output"


def last_progress(log: Path) -> str:
    """What a training's log last said about its progress, e.g. ``epoch 3/10: loss 0.51, 02:10 left``."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        found = _PROGRESS.findall(file.read().decode("utf-8", "replace"))
    return found[-1] if found else ""


def _show(steps: Sequence[Step]) -> None:
    for step in steps:
        progress = last_progress(_log(step))
        if progress:
            _say(f"    {step.title}: {progress}")


def _say(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)
