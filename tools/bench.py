"""``python -m tools bench``: figures of this machine, each beside a check that both ways give the same."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import monai
import torch

from common.atomic import atomic_write
from common.errors import ConfigError

from .bench_ka2er import PARTS, cases, growth
from .bench_measure import Row, cost, measure

__all__ = ["bench"]

LAPTOP = {"size": 64, "feature_size": 24, "features": (8, 16, 32, 64, 80, 80)}
PAPER = {"size": 96, "feature_size": 48, "features": (32, 64, 128, 256, 320, 320)}


def bench(
    method: str = "ka2er",
    size: int | None = None,
    repeats: int = 3,
    out: str | None = None,
    paper: bool = False,
    threads: int | None = None,
    experts: int = 10,
    only: str | Sequence[str] | None = None,
) -> str:
    """Measure our way against the published one, in turns within one run.

    Args:
        method: ``ka2er``.
        size: voxels along each side of the crop, a multiple of 32 from 64 on (64; with --paper 96).
        repeats: timed pairs per comparison.
        out: folder for ``bench_<method>.json`` and ``bench_<method>.md``.
        paper: the paper's student (feature size 48) and nnU-Net's 3d_fullres experts instead of small ones.
        threads: CPU threads (at most 2).
        experts: task experts in the routing comparisons.
        only: some of ``inference``, ``training``, ``routing``, ``step`` and ``growth``; all when omitted.

    Returns:
        the tables.
    """
    preset: dict[str, Any] = PAPER if paper else LAPTOP
    if method != "ka2er":
        raise ConfigError("there is nothing to measure for this method", got=method, expected="ka2er")
    size = preset["size"] if size is None else size
    if size % 32 or size < 64 or repeats < 1 or experts < 1:
        raise ConfigError("size is a multiple of 32 from 64 on, repeats and experts at least 1", where="bench",
                          got=f"size {size}, repeats {repeats}, experts {experts}")  # fmt: skip
    wanted = only.split(",") if isinstance(only, str) else list(only or (*PARTS, "growth"))
    unknown = set(wanted) - {*PARTS, "growth"}
    if unknown:
        raise ConfigError("unknown parts", where="only", got=sorted(unknown), expected=", ".join((*PARTS, "growth")))
    before = torch.get_num_threads()
    torch.set_num_threads(threads or min(2, before))
    try:
        settings = (size, preset["feature_size"], preset["features"])
        rows = []
        for case in cases(*settings, experts, [p for p in PARTS if p in wanted]):
            rows.append(measure(case, repeats))
            print(_line(rows[-1]), file=sys.stderr, flush=True)
        counts = sorted({1, experts}) if "growth" in wanted else []
        steps = [{"experts": n, **cost(run, repeats)} for n, run in growth(*settings, counts)]
        result = {"machine": _machine(), "size": size, "repeats": repeats, "paper": paper,
                  "rows": [row.as_dict() for row in rows], "steps": steps}  # fmt: skip
    finally:
        torch.set_num_threads(before)
    text = _text(result, rows, steps)
    if out is not None:
        with atomic_write(Path(out) / f"bench_{method}.json") as file:
            file.write_text(json.dumps(result, indent=2))
        with atomic_write(Path(out) / f"bench_{method}.md") as file:
            file.write_text(text + "\n")
    return text


def _line(row: Row) -> str:
    memory = f"{row.memory:.2f}x memory, {row.multiply_adds:.2f}x fewer multiply-adds"
    return f"{row.part}: {row.faster:.2f}x faster ({row.cpu_faster:.2f}x in CPU time), {memory}"


def _machine() -> dict[str, Any]:
    try:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        name = commit.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        name = "unknown"
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "commit": name,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "monai": monai.__version__,
    }


def _text(result: dict[str, Any], rows: Sequence[Row], steps: Sequence[dict[str, Any]]) -> str:
    machine = ", ".join(f"{k} {v}" for k, v in result["machine"].items())
    table = [["part", "s", "faster", "CPU time", "peak MB", "memory", "10^9 multiply-adds", "fewer", "difference",
              "goals"]]  # fmt: skip
    for row in rows:
        goals = ", ".join(
            f"{k} {'<=' if k == 'memory' else '>='} {v:g} {_met(row.met[k])}" for k, v in row.goals.items()
        )
        table.append([
            row.part, f"{row.plain_s:.3g} -> {row.fast_s:.3g}", f"{row.faster:.2f}x", f"{row.cpu_faster:.2f}x",
            f"{row.plain_mb:.0f} -> {row.fast_mb:.0f}", f"{row.memory:.2f}x",
            f"{row.plain_gmac:.4g} -> {row.fast_gmac:.4g}", f"{row.multiply_adds:.2f}x", f"{row.difference:.0e}",
            goals,
        ])  # fmt: skip
    more = [["KA2ER step (ours), experts", "s", "peak MB", "10^9 multiply-adds"]]
    more += [[str(s["experts"]), f"{s['s']:.3g}", f"{s['mb']:.0f}", f"{s['gmac']:.4g}"] for s in steps]
    head = f"Crop {result['size']}^3, fp32, {result['repeats']} interleaved pairs, medians. {machine}."
    return "\n\n".join([head, *(_markdown(t) for t in (table, more) if len(t) > 1)])


def _met(met: bool) -> str:
    return "met" if met else "MISSED"


def _markdown(table: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in table]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])
