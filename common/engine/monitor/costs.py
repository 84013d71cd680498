"""What a computation costs: multiply-adds, peak memory, parameters, and what each evaluated case took."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ...atomic import atomic_write
from ..run.plain import bare

__all__ = ["CaseCosts", "count_parameters", "counted_operations", "device_name", "peak_megabytes", "reset_peak"]


@contextmanager
def counted_operations() -> Iterator[Callable[[], float]]:
    """Count inside the block; the function that it gives says how many 10^9 multiply-adds there were.

    Matrix products, convolutions and attention products count; what is elementwise does not.
    """
    aten = torch.ops.aten
    mapping = {aten._scaled_dot_product_flash_attention_for_cpu: _attention, aten.addmm_: _addmm}
    mode = FlopCounterMode(display=False, custom_mapping=mapping)
    mode.mod_tracker = _Everything()  # type: ignore[assignment]
    with mode as counter:
        yield lambda: float(counter.get_total_flops()) / 2e9


class _Everything:
    """In the place of torch's tracker of modules: its hooks fail on parameters that are used without gradients."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""


def _attention(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    batch, heads, n, d = q
    return int(2 * batch * heads * n * k[2] * (d + v[3]))


def _addmm(_: Any, a: Any, b: Any, out_shape: Any = None, **__: Any) -> int:
    return int(2 * a[0] * a[1] * b[1])


def count_parameters(parameters: Iterable[nn.Parameter]) -> int:
    """Number of values, shared ones once."""
    return sum(p.numel() for p in {id(p): p for p in parameters}.values())


def device_name(device: torch.device | str | None) -> str:
    """The device's type, and the GPU's name."""
    kind = torch.device(device or "cpu").type
    return f"cuda ({torch.cuda.get_device_name()})" if kind == "cuda" and torch.cuda.is_available() else kind


def reset_peak() -> None:
    """Begin a new peak, where the system can (CUDA, Linux)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM


def peak_megabytes() -> float:
    """MB (10^6 bytes) at the highest point: of tensors on a GPU, else of the process; NaN where nothing tells."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024 / 1e6
    return math.nan


class CaseCosts:
    """Handler of MONAI's SupervisedEvaluator that measures the network's part of every case.

    Writes ``<output_dir>/evaluation/costs.json``: parameters, and for each case the seconds and peak memory from the
    loaded batch to the network's answer (all windows or slices; not loading, restoring or scoring), and for the first
    case of each task the multiply-adds. A case that was counted is slower for it and marked ``counted``. Batches hold
    one case each.

    Args:
        output_dir: the run's folder.
        clock: source of seconds.
    """

    def __init__(self, *, output_dir: str | Path, clock: Callable[[], float] = time.perf_counter) -> None:
        self.path = Path(output_dir) / "evaluation" / "costs.json"
        self.clock = clock
        self.cases: list[dict[str, Any]] = []
        self._counting: Any = None
        self._operations: Callable[[], float] | None = None
        self._began = 0.0

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_STARTED, self.begin)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.end)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.fail)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, _engine: Engine) -> None:
        """Forget earlier cases and remove an earlier file."""
        self.cases = []
        self.path.unlink(missing_ok=True)

    def begin(self, engine: Engine) -> None:
        """The batch is there."""
        task = _first(engine.state.batch, "task")
        if task not in {c["task"] for c in self.cases}:
            self._counting = counted_operations()
            self._operations = self._counting.__enter__()
        reset_peak()
        _wait()
        self._began = self.clock()

    def end(self, engine: Engine) -> None:
        """The network has answered."""
        _wait()
        seconds, memory = self.clock() - self._began, peak_megabytes()
        case: dict[str, Any] = {k: _first(engine.state.batch, k) for k in ("task", "case")}
        case |= {"seconds": seconds, "peak_mb": memory if math.isfinite(memory) else None}
        if self._operations is not None:
            case |= {"multiply_adds_g": self._operations(), "counted": True}
            self._close()
        self.cases.append(case)

    def fail(self, _engine: Engine, error: BaseException) -> None:
        """Stop counting, and pass the error on."""
        self._close()
        raise error

    def _close(self) -> None:
        if self._counting is not None:
            self._counting.__exit__(None, None, None)
        self._counting = self._operations = None

    def finish(self, engine: Engine) -> None:
        """Write the file."""
        if idist.get_rank() != 0:
            return
        network = bare(engine.network)  # type: ignore[attr-defined]
        content = {
            "parameters": count_parameters(network.parameters()),
            "device": device_name(engine.state.device),  # type: ignore[attr-defined]
            "threads": torch.get_num_threads(),
            "cases": self.cases,
        }
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _first(batch: Any, key: str) -> str:
    item = batch[0] if isinstance(batch, list | tuple) and batch else batch
    value = item.get(key, "") if isinstance(item, Mapping) else ""
    return str(value[0] if isinstance(value, list | tuple) and value else value)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
