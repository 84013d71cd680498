"""``python -m tools bench``: figures of this machine, each beside a check that both ways give the same."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai
import torch

from common.atomic import atomic_write
from common.errors import ConfigError

from . import ic_moe as bench_ic_moe
from . import ka2er as bench_ka2er
from . import m4oe as bench_m4oe
from . import sam as bench_sam
from . import sam_med3d_moe as bench_sam_med3d_moe
from . import samora as bench_samora
from .augment import augment
from .curve import curve
from .measure import SMALLER, Case, Row, cost, measure
from .parts import Size
from .passes import passes
from .pipeline import pipeline
from .step import step
from .stored import stored

__all__ = ["METHODS", "Method", "bench"]


@dataclass(frozen=True)
class Method:
    """What can be measured of one method.

    Args:
        parts: names of the comparisons.
        laptop: sizes that a small machine can do, ``size`` among them.
        paper: the paper's sizes, with the same names.
        experts: how many unless told otherwise.
        cases: the comparisons, from the sizes, ``count`` experts and the ``parts`` wanted.
        growth: numbers of experts and what to run with them, from the sizes and the ``counts``.
        sides: the size in words, with ``{}`` in place of its number.
        grows: what ``growth`` runs, in words.
    """

    parts: tuple[str, ...]
    laptop: Mapping[str, Any]
    paper: Mapping[str, Any]
    experts: int
    cases: Callable[..., Iterable[Case]]
    growth: Callable[..., Iterable[tuple[int, Callable[[], object]]]]
    sides: str
    grows: str


METHODS = {
    "ic_moe": Method(
        bench_ic_moe.PARTS, bench_ic_moe.LAPTOP, bench_ic_moe.PAPER, 3, bench_ic_moe.cases, bench_ic_moe.growth,
        "Inference at the sizes named, training at {}^2", "IC-MoE inference",
    ),
    "ka2er": Method(
        bench_ka2er.PARTS, bench_ka2er.LAPTOP, bench_ka2er.PAPER, 10, bench_ka2er.cases, bench_ka2er.growth,
        "Crop {}^3", "KA2ER step",
    ),
    "m4oe": Method(
        bench_m4oe.PARTS, bench_m4oe.LAPTOP, bench_m4oe.PAPER, 3, bench_m4oe.cases, bench_m4oe.growth,
        "Image {}^2", "M4oE step",
    ),
    "sam": Method(
        bench_sam.PARTS, bench_sam.LAPTOP, bench_sam.PAPER, 3, bench_sam.cases, bench_sam.growth,
        "Encoders at the sizes named, the rest at {}^2", "SAM block",
    ),
    "sam_med3d_moe": Method(
        bench_sam_med3d_moe.PARTS, bench_sam_med3d_moe.LAPTOP, bench_sam_med3d_moe.PAPER, 15,
        bench_sam_med3d_moe.cases, bench_sam_med3d_moe.growth, "Crop {}^3", "SAM-Med3D-MoE click",
    ),
    "samora": Method(
        bench_samora.PARTS, bench_samora.LAPTOP, bench_samora.PAPER, 3, bench_samora.cases, bench_samora.growth,
        "Inference at the sizes named, the rest at {}^2", "SAMora inference",
    ),
}  # fmt: skip


def bench(
    method: str = "ka2er",
    size: int | str | None = None,
    repeats: int = 3,
    out: str | None = None,
    paper: bool = False,
    threads: int | None = None,
    experts: int | None = None,
    only: str | Sequence[str] | None = None,
    small: bool = False,
    width: int = Size().width,
    overlap: float | None = None,
    student: str = "nnunet",
    classes: int | None = None,
) -> str:
    """Measure our way against the published one, in turns within one run; ``bench pipeline``: what samples cost.

    Args:
        method: ``ic_moe``, ``ka2er``, ``m4oe``, ``sam_med3d_moe``, ``samora``, or ``sam`` (the encoder beneath it);
            or ``pipeline``: the data path of the bundle named next, or of all; or ``step``: a training step of the
            preset named next, or of all, in 32 bits and in bf16, on ``data/phantom``; or ``curve``: how far its losses
            in bf16 lie from those in 32 bits; or ``augment``: what m4oe's augmentation costs within samples and
            batched; or ``stored``: a step of ka2er's student with stored answers beside one
            of the student alone; or ``passes``: five nnU-Nets in TotalSegmentator's layout beside one student of all
            their structures, on a CT of the size named next (``256x256x200``), in time and host memory.
        size: voxels along each side of the crop (64; with --paper 96, sam_med3d_moe 128) or pixels along each side of
            the image (ic_moe 256; m4oe 128, with --paper 224; sam 256; samora 224), a multiple of 32 from 64 on.
        repeats: timed pairs per comparison.
        out: folder for ``bench_<method>.json`` and ``bench_<method>.md``.
        paper: the paper's networks (ka2er's student with nnU-Net's 3d_fullres experts) instead of small ones.
        threads: CPU threads (at most 2).
        experts: task experts in ka2er's routing comparisons (10), modality experts of m4oe (3), mask decoders of
            sam_med3d_moe beside the general one (15), LoRA experts of sam and samora (3).
        only: some of ka2er's ``inference``, ``training``, ``routing``, ``step`` and ``growth``, of m4oe's ``layer``,
            ``layer_training``, ``inference``, ``training``, ``hard``, ``top_k`` and ``growth``, of sam's
            ``encoder_224``, ``encoder_256``, ``encoder_512``, ``encoder_1024``, ``training``, ``experts`` and
            ``growth``, of sam_med3d_moe's ``encoder``, ``click``, ``click_general``, ``session``, ``gate_training`` and
            ``growth``, of ic_moe's ``inference_256``, ``inference_512``, ``training``, ``training_cached`` and
            ``growth``, or of samora's ``inference_224``, ``inference_512``,
            ``training``, ``low_memory``, ``switching`` and ``growth``; all when omitted.
        small: of ``pipeline``, tiny volumes and few cases.
        width: of ``passes``, features of the networks' first stage (TotalSegmentator: 32).
        overlap: of ``passes``, share of a tile that the student's neighbours share; left out, what ``predict`` takes.

        student: of ``stored``, ``nnunet`` (five experts of together 117 structures, if nothing is said) or
            ``swin_unetr`` (two of the phantom's).
        classes: of ``stored`` with an nnU-Net student, structures that it learns.

    Returns:
        the tables.
    """
    name = None if size is None else str(size)
    others: dict[str, Callable[[], str]] = {
        "pipeline": lambda: pipeline(name, small=small, out=out),
        "step": lambda: step(name, repeats=max(repeats, 2), out=out),
        "curve": lambda: curve(name, out=out),
        "augment": lambda: augment(repeats=repeats, out=out),
        "stored": lambda: stored(
            name,
            repeats=repeats if student == "nnunet" else max(repeats, 8),
            out=out,
            experts=experts,
            student=student,
            classes=classes,
        ),
        "passes": lambda: passes(name, size=Size(width), overlap=overlap, threads=threads or 1, out=out),
    }
    if method in others:
        return others[method]()
    if not isinstance(size, int | None):
        raise ConfigError("the size is a number", where="size", got=size, expected="a multiple of 32 from 64 on")
    if method not in METHODS:
        raise ConfigError(
            "there is nothing to measure for this method",
            got=method,
            expected=", ".join((*METHODS, *others)),
        )
    way = METHODS[method]
    sizes: dict[str, Any] = dict(way.paper if paper else way.laptop)
    size = sizes["size"] = sizes["size"] if size is None else size
    experts = way.experts if experts is None else experts
    if size % 32 or size < 64 or repeats < 1 or experts < 1:
        got = f"size {size}, repeats {repeats}, experts {experts}"
        raise ConfigError("size is a multiple of 32 from 64 on, repeats and experts at least 1", where="bench", got=got)
    known = (*way.parts, "growth")
    wanted = only.split(",") if isinstance(only, str) else list(only or known)
    unknown = set(wanted) - set(known)
    if unknown:
        raise ConfigError("unknown parts", where="only", got=sorted(unknown), expected=", ".join(known))
    before = torch.get_num_threads()
    torch.set_num_threads(threads or min(2, before))
    try:
        rows = []
        for case in way.cases(**sizes, count=experts, parts=[p for p in way.parts if p in wanted]):
            rows.append(measure(case, repeats))
            print(_line(rows[-1]), file=sys.stderr, flush=True)
        counts = sorted({1, experts}) if "growth" in wanted else []
        steps = [{"experts": n, **cost(run, repeats)} for n, run in way.growth(**sizes, counts=counts)]
        result = {"machine": _machine(), "size": size, "repeats": repeats, "paper": paper,
                  "rows": [row.as_dict() for row in rows], "steps": steps}  # fmt: skip
    finally:
        torch.set_num_threads(before)
    text = _text(way, result, rows, steps)
    if out is not None:
        with atomic_write(Path(out) / f"bench_{method}.json") as file:
            file.write_text(json.dumps(result, indent=2))
        with atomic_write(Path(out) / f"bench_{method}.md") as file:
            file.write_text(text + "\n")
    return text


def _line(row: Row) -> str:
    memory = f"{row.memory:.2f}x memory, " + (f"{row.tensors:.2f}x of tensors, " if row.tensors is not None else "")
    memory += f"{row.multiply_adds:.2f}x fewer multiply-adds"
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


def _text(way: Method, result: dict[str, Any], rows: Sequence[Row], steps: Sequence[dict[str, Any]]) -> str:
    machine = ", ".join(f"{k} {v}" for k, v in result["machine"].items())
    counted = any(row.tensors is not None for row in rows)
    table = [["part", "s", "faster", "CPU time", "peak MB", "memory", *["tensors MB", "tensors"][: 2 * counted],
              "10^9 multiply-adds", "fewer", "difference", "goals"]]  # fmt: skip
    for row in rows:
        goals = ", ".join(
            f"{k} {'<=' if k in SMALLER else '>='} {v:g} {_met(row.met[k])}" for k, v in row.goals.items()
        )
        table.append([
            row.part, f"{row.plain_s:.3g} -> {row.fast_s:.3g}", f"{row.faster:.2f}x", f"{row.cpu_faster:.2f}x",
            f"{row.plain_mb:.0f} -> {row.fast_mb:.0f}", f"{row.memory:.2f}x", *(_tensors(row) if counted else ()),
            f"{row.plain_gmac:.4g} -> {row.fast_gmac:.4g}", f"{row.multiply_adds:.2f}x", f"{row.difference:.0e}",
            goals,
        ])  # fmt: skip
    more = [[f"{way.grows} (ours), experts", "s", "peak MB", "10^9 multiply-adds"]]
    more += [[str(s["experts"]), f"{s['s']:.3g}", f"{s['mb']:.0f}", f"{s['gmac']:.4g}"] for s in steps]
    head = f"{way.sides.format(result['size'])}, fp32, {result['repeats']} interleaved pairs, medians. {machine}."
    return "\n\n".join([head, *(_markdown(t) for t in (table, more) if len(t) > 1)])


def _tensors(row: Row) -> tuple[str, str]:
    if row.tensors is None:
        return "", ""
    return f"{row.plain_tensors_mb:.0f} -> {row.fast_tensors_mb:.0f}", f"{row.tensors:.2f}x"


def _met(met: bool) -> str:
    return "met" if met else "MISSED"


def _markdown(table: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in table]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])
