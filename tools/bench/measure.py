"""Time, peak memory and multiply-adds of two ways to compute the same thing, measured in turns."""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from common.engine.monitor.costs import counted_operations
from common.errors import AmalgamationError

__all__ = ["SMALLER", "Case", "Row", "cost", "measure", "multiply_adds", "peak_memory", "relative", "tensor_memory"]

SMALLER = ("memory", "tensors")
"""Ratios that are better when they are smaller."""


@dataclass(frozen=True)
class Case:
    """Two ways to compute the same.

    Args:
        part: what is measured.
        plain: the published way.
        fast: ours.
        difference: relative difference between both results, 0 is bit for bit.
        tolerance: largest difference that counts as equal.
        goals: least ``faster``, ``cpu_faster`` and ``multiply_adds`` ratio, largest ``memory`` and ``tensors`` ratio.
        tensors: also count the memory of tensors alone.
    """

    part: str
    plain: Callable[[], object]
    fast: Callable[[], object]
    difference: Callable[[], float]
    tolerance: float
    goals: dict[str, float]
    tensors: bool = False


@dataclass(frozen=True)
class Row:
    """A case's figures: seconds (median wall), ``faster`` and ``cpu_faster`` (median ratio of pairs), MB above what was
    there before, 10^9 multiply-adds; where counted, MB of tensors alone.
    """

    part: str
    plain_s: float
    fast_s: float
    faster: float
    cpu_faster: float
    plain_mb: float
    fast_mb: float
    memory: float
    plain_gmac: float
    fast_gmac: float
    multiply_adds: float
    difference: float
    equal: bool
    goals: dict[str, float]
    met: dict[str, bool]
    plain_tensors_mb: float | None = None
    fast_tensors_mb: float | None = None
    tensors: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {k: v for k, v in asdict(self).items() if v is not None}


def relative(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest value of ``b``."""
    return float((a - b).abs().max() / b.abs().max())


def multiply_adds(function: Callable[[], object]) -> float:
    """10^9 multiply-adds of matrix products, convolutions and attention products."""
    with counted_operations() as count:
        function()
        return count()


def peak_memory(function: Callable[[], object]) -> float:
    """MB (10^6 bytes) at the highest point above what was there before; NaN where the system does not tell.

    On a CPU it is the process's peak of resident memory, which includes the buffers of oneDNN and OpenMP.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        start = _status("VmRSS")
        function()
        return (_status("VmHWM") - start) / 1e6
    function()
    return float("nan")


def tensor_memory(function: Callable[[], object]) -> float:
    """MB (10^6 bytes) of tensors at the highest point above what was there before.

    Unlike the process's memory it repeats exactly: what the allocator keeps for later does not count.
    """
    gc.collect()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
        function()
    results = record.profiler.kineto_results if record.profiler is not None else None
    events = results.events() if results is not None else []
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return float(max(accumulate((n for _, n in changes), initial=0))) / 1e6


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(name)


def _timed(function: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def cost(function: Callable[[], object], repeats: int) -> dict[str, float]:
    """Seconds (median), MB and 10^9 multiply-adds of one function after a warm-up."""
    gmac = multiply_adds(function)
    memory = peak_memory(function)
    return {"s": statistics.median(_timed(function)[0] for _ in range(repeats)), "mb": memory, "gmac": gmac}


def measure(case: Case, repeats: int) -> Row:
    """Check that both ways agree, then run them in turns.

    Raises:
        AmalgamationError: when they do not agree; a figure without that is worth nothing.
    """
    difference = case.difference()
    if not difference <= case.tolerance:
        raise AmalgamationError(
            "both ways must give the same", where=case.part, got=difference, expected=f"<= {case.tolerance}"
        )
    gmac = multiply_adds(case.plain), multiply_adds(case.fast)
    memory = peak_memory(case.plain), peak_memory(case.fast)
    tensors = (tensor_memory(case.plain), tensor_memory(case.fast)) if case.tensors else None
    plain: list[tuple[float, float]] = []
    fast: list[tuple[float, float]] = []
    for turn in range(repeats):
        for kind in ("pf", "fp")[turn % 2]:
            (plain if kind == "p" else fast).append(_timed(case.plain if kind == "p" else case.fast))
    pairs = list(zip(plain, fast, strict=True))
    ratios = {
        "faster": statistics.median(p[0] / f[0] for p, f in pairs),
        "cpu_faster": statistics.median(p[1] / f[1] for p, f in pairs),
        "memory": memory[1] / memory[0] if memory[0] > 0 else float("nan"),
        "multiply_adds": gmac[0] / gmac[1],
    }
    if tensors is not None:
        ratios["tensors"] = tensors[1] / tensors[0]
    met = {k: ratios[k] <= goal if k in SMALLER else ratios[k] >= goal for k, goal in case.goals.items()}
    return Row(
        case.part,
        statistics.median(p[0] for p in plain),
        statistics.median(f[0] for f in fast),
        ratios["faster"],
        ratios["cpu_faster"],
        *memory,
        ratios["memory"],
        *gmac,
        ratios["multiply_adds"],
        difference,
        True,
        case.goals,
        met,
        plain_tensors_mb=None if tensors is None else tensors[0],
        fast_tensors_mb=None if tensors is None else tensors[1],
        tensors=ratios.get("tensors"),
    )
