"""The first item of a bundle's ``run``: check the command, lock the folder, seed, and be ready for interruption."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from types import TracebackType

import ignite.distributed as idist
import torch
from monai.utils import set_determinism

from ...atomic import remove_stale, require_space
from ...errors import AmalgamationError, ConfigError
from ...paths import check_new
from ...visible_output import make_visible
from .interrupt import interrupts
from .lock import RunLock
from .overrides import check_overrides, read_command

__all__ = ["start_run"]

logger = logging.getLogger(__name__)
_locks: dict[Path, RunLock] = {}


def start_run(
    *,
    output_dir: str | Path | None = None,
    seed: int | None = 0,
    threads: int | None = None,
    free_gb: float = 0.1,
    deterministic: bool = False,
    lock: bool = True,
) -> None:
    """Begin a run: call it as the first item of a configuration's ``run``.

    In this order: spells out what a terminal would obey in all that is printed and logged, refuses misspelt overrides
    of ``python -m monai.bundle run``, locks ``output_dir`` against a second run, removes what a killed run left
    half-written, checks the free disk space, seeds everything and installs the handlers of SIGTERM and Ctrl-C (exit
    codes 143 and 130, always with a complete checkpoint).

    Args:
        output_dir: the folder of this run; created. None: nothing is locked or checked.
        seed: seed of torch, numpy and python; None leaves them alone.
        threads: number of CPU threads of torch; None leaves it alone.
        free_gb: gigabytes that must be free in ``output_dir``.
        deterministic: also use torch's deterministic algorithms (slower on a GPU).
        lock: whether to take the run lock.

    Raises:
        ConfigError: for unknown overrides or a folder in use.
        CheckpointError: when the disk is nearly full.
    """
    command = read_command()
    if command is not None:
        make_visible()
        sys.excepthook = show_error
        check_overrides(command)
        interrupts.install()
    if threads is not None:
        torch.set_num_threads(threads)
    if output_dir is not None and idist.get_rank() == 0:
        _prepare(Path(output_dir).absolute(), int(free_gb * 1e9), lock)
    if seed is not None:
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        set_determinism(seed=seed, use_deterministic_algorithms=True if deterministic else None)


def _prepare(folder: Path, needed: int, lock: bool) -> None:
    check_new(folder, what="folder", error=ConfigError).mkdir(parents=True, exist_ok=True)
    if lock:
        _locks.setdefault(folder, RunLock(folder)).acquire()
    for stale in remove_stale(folder):
        logger.warning("removed %s, left by a run that was killed", stale.name)
    require_space(folder, needed)


def show_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show an error of ours as its message alone: the traceback through MONAI's parser would only hide it.

    Set ``AMALGAM_TRACEBACK=1`` to see everything.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, AmalgamationError):
        cause = cause.__cause__
    if cause is None or os.environ.get("AMALGAM_TRACEBACK"):
        sys.__excepthook__(kind, error, trace)
    else:
        sys.stderr.write(f"\n{type(cause).__name__}: {cause}\n")
