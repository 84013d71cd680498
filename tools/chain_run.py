"""Running the steps of a chain: in the order of their needs, several at a time, each in a process of its own."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import torch

from common.errors import AmalgamationError, ConfigError, ExpertError

from .chain_plan import ChainSettings, Step
from .chain_record import Record, write_manifest

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


def execute(steps: Sequence[Step], record: Record, settings: ChainSettings, jobs: int) -> None:
    """Do every step that is not done yet.

    A failed step stops the start of further ones; those that run are waited for, so that nothing of theirs is lost.

    Args:
        steps: in an order that respects their needs.
        record: the chain's record.
        settings: the chain's settings.
        jobs: processes at a time, >= 1; they share the CPU's cores evenly.

    Raises:
        ConfigError: for less than one job.
        AmalgamationError: of the first step that failed.
    """
    if jobs < 1:
        raise ConfigError("at least one process at a time", where="jobs", got=jobs)
    waiting, done, lock = list(steps), set[str](), threading.Lock()
    running: dict[Future[None], Step] = {}
    failure: BaseException | None = None
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ThreadPoolExecutor(jobs) as pool:
        while running or (waiting and failure is None):
            for step in [s for s in waiting if failure is None and done.issuperset(s.needs)][: jobs - len(running)]:
                waiting.remove(step)
                position = f"[{steps.index(step) + 1}/{len(steps)}]"
                running[pool.submit(_do, step, record, settings, position, lock, threads)] = step
            finished, _ = wait(running, timeout=_PAUSE, return_when=FIRST_COMPLETED)
            for future in finished:
                step = running.pop(future)
                error = future.exception()
                failure = failure or error
                if error is None:
                    done.add(step.id)
            if not finished:
                _show(list(running.values()))
    if failure is not None:
        raise failure


def _do(step: Step, record: Record, settings: ChainSettings, position: str, lock: threading.Lock, threads: int) -> None:
    with lock:
        if record.holds(step):
            _say(f"{position} {step.title}: done before")
            return
        _say(f"{position} {step.title}" + (f"\n    {step.command}" if step.argv else ""))
        record.begin(step)
    started, status = time.monotonic(), "failed"
    try:
        if step.kind == "manifest":
            write_manifest(step, settings)
        else:
            _call(step, threads)
        status = "done"
    finally:
        with lock:
            record.end(step, status, time.monotonic() - started)


def _call(step: Step, threads: int) -> None:
    step.output_dir.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(p for p in (str(Path.cwd()), os.environ.get("PYTHONPATH", "")) if p)
    environment = {**os.environ, "PYTHONPATH": path}
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    log = _log(step)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"\n# {datetime.datetime.now(datetime.UTC).isoformat()} {step.command}\n")
        file.flush()
        process = subprocess.run(step.argv, env=environment, stdout=file, stderr=file, check=False)
    if process.returncode:
        error = ExpertError if step.kind in ("expert", "external") else AmalgamationError
        raise error(
            f"the command ended with exit code {process.returncode}",
            where=step.title,
            got=_reason(log),
            hint=f"read {log}, mend the cause and type the same chain command again: finished steps are kept",
        )


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
    print(text, file=sys.stderr, flush=True)
