"""What one pass of a student costs beside the passes of the five experts that it stands for: time and host memory."""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from common.atomic import atomic_write
from common.data.io import write_label_map
from common.data.transforms.loading import LoadCased
from common.errors import ConfigError
from common.experts.answers.at_home import HomeNNUNet
from common.experts.spec import read_manifest, write_manifest
from common.experts.tiles import inherited_tiles
from common.geometry import Grid

from ..amalgamate.described import Told, read_experts
from ..predict import command as _predict  # what a pass imports is imported before its time begins
from ..workflow import config_files, run_bundle
from .parts import PROFILE, Size, write_ct, write_one, write_parts

__all__ = ["FASTER", "MEMORY", "Pass", "passes", "shape_of"]

FASTER = 3.0
MEMORY = 1.0
LAPTOP = (256, 256, 200)
_LOADED = _predict.__name__
_DECIDING = "decide_in_tiles::enabled"


@dataclass(frozen=True)
class Pass:
    """One pass over one scan, in a process of its own.

    Args:
        name: whose.
        classes: with the background.
        cpu: seconds of the processor, from opening the weights to the written label map.
        wall: the same by the clock.
        peak: most memory of the process so far, MB.
        floor: the same before the pass began, MB: Python and its libraries.
    """

    name: str
    classes: int
    cpu: float
    wall: float
    peak: float
    floor: float


def shape_of(text: str | None) -> tuple[int, ...]:
    """``256x256x200`` as numbers.

    Raises:
        ConfigError: for anything else.
    """
    words = "x".join(map(str, LAPTOP)) if text is None else text
    found = tuple(int(n) if n.isdecimal() and len(n) < 5 else 0 for n in words.split("x"))
    if len(found) != 3 or min(found) < 1:
        raise ConfigError("a CT has three sides", where="bench passes", got=words, expected="such as 256x256x200")
    return found


def passes(
    text: str | None = None, *, size: Size | None = None, overlap: float | None = None, threads: int = 1,
    plain: bool = True, out: str | None = None,
) -> str:  # fmt: skip
    """Measure five nnU-Nets in TotalSegmentator's layout, one after another, and one student of all their structures.

    Each expert runs as in its home profile, by nnU-Net's own predictor and export. All networks are of one width.

    Args:
        text: voxels of the CT, at the experts' 1.5 mm; ``256x256x200`` when None.
        size: of the networks.
        overlap: share of a tile that the student's neighbours share; None is what ``predict`` takes: the experts', 0.2.
        threads: CPU threads.
        plain: also let the student keep all logits, to see that the label map is the same, and what that takes.
        out: folder for ``bench_passes.json``.

    Returns:
        the table.

    Raises:
        ConfigError: for a size that is none.
    """
    shape, size = shape_of(text), size or Size()
    with tempfile.TemporaryDirectory(prefix="amalgam-") as place:
        root = Path(place)
        scan = write_ct(root / "scans" / "ct.nii.gz", shape)
        specs = read_experts(write_parts(root / "results", size), told=Told(profile=PROFILE))
        manifest = write_manifest(root / "experts.json", specs)
        tiles = inherited_tiles(specs)
        model = write_one(root / "model.pt", size, tiles=tiles)
        rows = []
        for number, spec in enumerate(specs):
            rows.append(_alone(_expert, spec.name, str(manifest), number, str(scan), str(root / f"{number}.nii.gz"),
                               threads))  # fmt: skip
        maps = {}
        for name, streamed in (("student", True), ("student, all logits", False)):
            if streamed or plain:
                folder = root / f"student {streamed}"
                rows.append(_alone(_student, name, str(model), str(scan), str(folder), overlap, streamed, threads))
                maps[name] = next(folder.rglob("*.nii.gz"))
        different = _different(list(maps.values())) if len(maps) > 1 else None
    overlap = tiles.overlap if overlap is None else overlap
    result = {"shape": shape, **size._asdict(), "overlap": overlap, "threads": threads, "torch": torch.__version__,
              "rows": [asdict(row) for row in rows], "different_voxels": different, **_ratios(rows)}  # fmt: skip
    if out is not None:
        with atomic_write(Path(out) / "bench_passes.json") as file:
            file.write_text(json.dumps(result, indent=2), encoding="utf-8")
    return _table(result, rows)


def _alone(work: Callable[..., Pass], *told: Any) -> Pass:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        row = pool.submit(work, *told).result()
    print(f"{row.name}: {row.cpu:.1f} s, {row.peak:.0f} MB", file=sys.stderr, flush=True)
    return row


def _measured(name: str, classes: int, work: Callable[[], object], threads: int) -> Pass:
    from nnunetv2.inference import predict_from_raw_data  # noqa: F401  # imported before the time begins

    torch.set_num_threads(threads)
    floor, wall, cpu = _most(), time.monotonic(), time.process_time()
    work()
    return Pass(name, classes, time.process_time() - cpu, time.monotonic() - wall, _most(), floor)


def _most() -> float:
    """Most memory that this process had, MB."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line.split()[1] for line in status if line.startswith("VmHWM:"))) * 1024 / 1e6
    except OSError:  # elsewhere than on Linux
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6


def _expert(name: str, manifest: str, number: int, scan: str, out: str, threads: int) -> Pass:
    spec = read_manifest(manifest)[number]

    def work() -> None:
        home = HomeNNUNet(spec)
        found = home.segmented(LoadCased(keys="image")({"image": scan, "case": "ct"})["image"])
        write_label_map(found.numpy()[0], Grid.of(found), Path(out), "uint8")

    return _measured(name, len(spec.labels) + 1, work, threads)


def _student(name: str, model: str, scan: str, out: str, overlap: float | None, streamed: bool, threads: int) -> Pass:
    files = config_files(Path("bundles/ka2er"), "inference")
    given = {"dataset::data": [{"image": scan, "case": "ct"}], "model_path": model, "output_dir": out,
             "bundle_root": "bundles/ka2er", "modality": "CT", "quiet": True}  # fmt: skip
    more: dict[str, Any] = {"device": "$__import__('torch').device('cpu')"}
    more |= {} if overlap is None else {"overlap": overlap}
    more |= {} if streamed else {_DECIDING: False}

    def work() -> None:
        run_bundle(files, more, given)

    return _measured(name, 118, work, threads)


def _different(files: Sequence[Path]) -> int:
    one, other = (np.asarray(nib.load(file).dataobj) for file in files)  # type: ignore[attr-defined]
    return int((one != other).sum())


def _ratios(rows: Sequence[Pass]) -> dict[str, float]:
    student = next(row for row in rows if row.name == "student")
    experts = [row for row in rows if not row.name.startswith("student")]
    return {
        "faster_cpu": sum(row.cpu for row in experts) / student.cpu,
        "faster_wall": sum(row.wall for row in experts) / student.wall,
        "memory": student.peak / max(row.peak for row in experts),
    }


def _table(result: Mapping[str, Any], rows: Sequence[Pass]) -> str:
    lines = ["| pass | classes | CPU s | wall s | peak MB | before it |", "|---|" + "---:|" * 5]
    lines += [f"| {r.name} | {r.classes} | {r.cpu:.1f} | {r.wall:.1f} | {r.peak:.0f} | {r.floor:.0f} |" for r in rows]
    faster, memory = result["faster_cpu"], result["memory"]
    met = {True: "met", False: "MISSED"}
    lines.append(f"\none pass is {faster:.2f}x faster in CPU time ({result['faster_wall']:.2f}x by the clock), "
                 f">= {FASTER:g}: {met[faster >= FASTER]}")  # fmt: skip
    lines.append(f"its memory is {memory:.2f}x of the largest single pass, <= {MEMORY:g}: {met[memory <= MEMORY]}")
    if result["different_voxels"] is not None:
        lines.append(f"voxels that differ from those of all logits: {result['different_voxels']}")
    return "\n".join(lines)
