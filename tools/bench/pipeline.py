"""What a method's training samples cost: time, reading, start-up and memory, on synthetic volumes of real sizes."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import blosc2
import numpy as np
import psutil
import torch
from monai.bundle import ConfigParser
from monai.data import list_data_collate

from common.atomic import atomic_write
from common.data.samples.loader import SampleLoader
from common.data.samples.sampler import DrawSampler
from common.data.store import cases
from common.data.store.cases import StoredCases
from common.data.store.entry import StoredArray
from common.data.store.fill import Job
from common.data.store.place import listed
from common.errors import ConfigError, DataError

from .synthetic import CT, MR, PICTURE, TINY, write_synthetic

__all__ = ["PIPELINES", "pipeline"]

BUNDLES = Path("bundles")
_PROMPTED = {"train::dataset::size": 128, "train::dataset::experts": []}
PIPELINES: dict[str, dict[str, Any]] = {
    "ic_moe": {},
    "ka2er": {},
    "ka2er_expert": {},
    "m4oe": {},
    "m4oe_expert": {},
    "sam_med3d_moe": _PROMPTED,
    "sam_med3d_moe_expert": {"train::dataset::size": 128},
    "samora": {},
    "samora_expert": {},
}
STEPS_MS = (100, 250, 1000)
WORKERS = 8
SPREAD = 60  # samples over all cases, after which memory is read


def pipeline(method: str | None = None, *, small: bool = False, samples: int = 40, out: str | None = None) -> str:
    """Measure the data path of one method, or of all.

    Args:
        method: a bundle; all when None.
        small: tiny volumes and few cases, to see that it works.
        samples: that are timed, >= 1.
        out: folder for ``bench_pipeline.json``.

    Returns:
        the table.

    Raises:
        ConfigError: for an unknown method, or no samples.
    """
    wanted = list(PIPELINES) if method is None else [method]
    if not set(wanted) <= set(PIPELINES) or samples < 1:
        got = f"{method}, {samples} samples"
        raise ConfigError("there is no such data path", where="bench pipeline", got=got, expected=", ".join(PIPELINES))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = {}
    try:
        for name in wanted:
            rows[name] = _measured(name, small=small, samples=samples)
            print(f"{name}: {rows[name]['ms']:.1f} ms a sample", file=sys.stderr, flush=True)
            if out is not None:
                with atomic_write(Path(out) / "bench_pipeline.json") as file:
                    file.write_text(json.dumps(rows, indent=2))
    finally:
        torch.set_num_threads(before)
    return _table(rows)


def waiting(ms: float, batch: int, step_ms: float, workers: int = WORKERS) -> float:
    """Share of the time that a training waits, when ``workers`` cores make batches during its steps.

    Args:
        ms: one core's time for a sample.
        batch: samples of a batch.
        step_ms: time of a step.
        workers: cores that make samples.
    """
    needed = ms * batch / workers
    return max(0.0, needed - step_ms) / max(needed, step_ms)


def _measured(name: str, *, small: bool, samples: int) -> dict[str, Any]:
    shapes = [TINY] if small else [PICTURE] if name == "ic_moe" else [CT, MR]
    counts, row = ((3, 6) if small else (20, 200)), dict[str, Any]()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        began = time.perf_counter()
        few = write_synthetic(root / "few", len(shapes), shapes, flat=name == "ic_moe")
        row["written_s"] = time.perf_counter() - began
        began = time.perf_counter()
        loader = _loader(name, few, root / "store", small=small)
        row["prepare_s"] = (time.perf_counter() - began) / len(shapes)
        _first(loader)
        row |= {"empty_s": time.perf_counter() - began, "empty_cases": len(shapes)}
        row |= _times(loader, samples)
        for count in counts:
            many = write_synthetic(root / str(count), count, shapes, flat=name == "ic_moe", like=few)
            _multiplied(_cases(loader), name, many, root / "store", small=small)
            row |= {f"{k}_{count}": v for k, v in _apart(name, many, root / "store", small).items()}
        row["counts"] = list(counts)
        kept = sum(f.stat().st_size for f in (root / "store").rglob("*.b2nd"))
        row["cases_MB"] = kept / 1e6 / sum(k.cases for k in listed(root / "store"))  # data sets share some
    return row


def _loader(name: str, data: Path, store: Path, *, small: bool) -> SampleLoader:
    """The method's own loader, from its training configuration."""
    parser = ConfigParser()
    names = ["train", *(["smoke"] if small else [])]
    parser.read_config([str(BUNDLES / name / "configs" / f"{n}.json") for n in names])
    own = {"dataset_dir": str(data), "store_dir": str(store), "bundle_root": str(BUNDLES / name), "num_workers": 0}
    for key, value in {**own, "output_dir": str(data.parent / "run"), "quiet": True, **PIPELINES[name]}.items():
        parser[key] = value
    loader: SampleLoader = parser.get_parsed_content("train::dataloader")
    return loader


def _first(loader: SampleLoader) -> Any:
    """The loader's first sample, made in this process."""
    drawn: Any = loader.dataset
    return drawn[(0, 0)]


def _times(loader: SampleLoader, samples: int) -> dict[str, Any]:
    drawn: Any = loader.dataset
    sampler = DrawSampler(drawn.dataset, draws=samples, seed=1, rank=0, processes=1)
    draws = list(sampler)
    drawn[draws[0]]
    found: dict[str, Any] = {"batch": loader.batch_size}
    with _counted() as count:
        cpu = time.process_time()
        for draw in draws:
            drawn[draw]
        found["ms"] = (time.process_time() - cpu) / samples * 1e3
    found["MB"], found["own_MB"] = count[0] / samples / 1e6, count[1] / samples / 1e6
    for workers, key in ((1, "ms_one_worker"), (2, "ms_two_workers")):
        own = SampleLoader(drawn.dataset, sampler=sampler, num_workers=workers, collate_fn=list_data_collate)
        for _ in own:  # workers start
            pass
        wall = time.perf_counter()
        for _ in own:
            pass
        found[key] = (time.perf_counter() - wall) / samples * 1e3
        del own
    return found


@contextmanager
def _counted() -> Iterator[list[float]]:
    """Bytes of the blocks that are read and of what was wanted of them."""
    read, count = StoredArray.read, [0.0, 0.0]

    def counting(self: StoredArray, part: Sequence[slice] = ()) -> torch.Tensor:
        array = blosc2.open(str(self.path), mode="r")
        whole = [*part, *[slice(None)] * (self.ndim - len(part))]
        spans = [s.indices(n)[:2] for s, n in zip(whole, array.shape, strict=True)]
        blocks = [-(-b // e) - a // e if b > a else 0 for (a, b), e in zip(spans, array.blocks, strict=True)]
        count[0] += float(np.prod(blocks)) * float(np.prod(array.blocks)) * array.dtype.itemsize
        count[1] += float(np.prod([max(0, b - a) for a, b in spans])) * array.dtype.itemsize
        return read(self, part)

    StoredArray.read = counting  # type: ignore[method-assign]
    try:
        yield count
    finally:
        StoredArray.read = read  # type: ignore[method-assign]


def _cases(loader: Any) -> StoredCases:
    """The stored cases below a loader of crops, slices or objects."""
    dataset = loader.dataset.dataset
    found: StoredCases = dataset if isinstance(dataset, StoredCases) else dataset.volumes
    return found


def _multiplied(few: StoredCases, name: str, many: Path, store: Path, *, small: bool) -> None:
    """Give every case of a larger data set the entry of the case whose files it shares.

    A chain that learns from all cases has another name for more of them: the larger data set's own loader says what it
    would prepare, and has it linked.
    """
    made = {Path(str(i["image"])).resolve(): store / few.chain / n for i, n in zip(few.data, few.names, strict=True)}

    def link(jobs: Sequence[Job], *given: Any) -> None:
        for job in jobs:
            origin = made[Path(str(job.item["image"])).resolve()]
            shutil.copytree(origin, store / job.chain / job.key, copy_function=os.link)

    with mock.patch.object(cases, "fill", link):
        _loader(name, many, store, small=small)


def _apart(name: str, data: Path, store: Path, small: bool) -> dict[str, float]:
    """Start-up with a filled store, and memory, in a process of its own: imports are done, and no network is built.

    Raises:
        DataError: when that process ends without an answer.
    """
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_started, args=(send, name, data, store, small))
    process.start()
    send.close()  # the other process alone holds it, so that its end is noticed
    try:
        found: Mapping[str, float] = receive.recv()
    except EOFError as error:
        process.join()
        problem = "the process that measures start-up and memory ended without an answer"
        got = f"exit code {process.exitcode}"
        raise DataError(problem, where=f"bench pipeline {name}", got=got, hint="it says above why") from error
    process.join()
    return dict(found)


def _started(send: Any, name: str, data: Path, store: Path, small: bool) -> None:
    own = psutil.Process()
    before = own.memory_full_info().uss
    began = time.perf_counter()
    loader = _loader(name, data, store, small=small)
    _first(loader)
    start = time.perf_counter() - began
    drawn: Any = loader.dataset
    for number, position in enumerate(np.linspace(0, len(drawn) - 1, SPREAD).astype(int).tolist()):
        drawn[(number, position)]
    memory = own.memory_full_info()
    send.send({"start_s": start, "grown_MB": (memory.uss - before) / 1e6, "resident_MB": memory.rss / 1e6})


def _table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    counts = next(iter(rows.values()))["counts"]
    head = ["method", "ms a sample (one core)", "ms, 1 worker", "ms, 2 workers", "MB read", "of its own bytes",
            "s to prepare a case", "s to the first sample, empty store (cases)",
            *[f"s to the first sample, {n} cases in the store" for n in counts],
            *[f"MB of its own more, {n} cases" for n in counts], *[f"MB resident, {n} cases" for n in counts],
            *[f"waiting, step {s} ms" for s in STEPS_MS]]  # fmt: skip
    table = [head]
    for name, row in rows.items():
        waits = [f"{waiting(row['ms'], row['batch'], s):.0%}" for s in STEPS_MS]
        table.append([name, f"{row['ms']:.1f}", f"{row['ms_one_worker']:.1f}", f"{row['ms_two_workers']:.1f}",
                      f"{row['MB']:.2f}", f"{row['MB'] / max(row['own_MB'], 1e-9):.2f}x", f"{row['prepare_s']:.1f}",
                      f"{row['empty_s']:.1f} ({row['empty_cases']})",
                      *[f"{row[f'start_s_{n}']:.1f}" for n in counts], *[f"{row[f'grown_MB_{n}']:.0f}" for n in counts],
                      *[f"{row[f'resident_MB_{n}']:.0f}" for n in counts], *waits])  # fmt: skip
    lines = ["| " + " | ".join(r) + " |" for r in table]
    return "\n".join([_told(), "", lines[0], "|" + "---|" * len(head), *lines[1:]])


def _told() -> str:
    """What the columns are, and what they are not."""
    return "\n".join([
        f"Batches of the paper's size; waiting is computed for {WORKERS} cores that make samples. "
        f"torch {torch.__version__}",
        "The first sample: loader and sample in a process that has imported everything; no network, experts or step.",
        f"Memory: of one process without workers after {SPREAD} samples over all cases; how much its own (USS) grew, "
        "and all that is resident (RSS), libraries and pages shared with other processes included.",
        "The network's own step is not in this table: `python -m tools bench step` measures presets that fit a CPU.",
    ])  # fmt: skip
