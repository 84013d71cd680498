"""What M4oE's augmentation costs within samples, and batched: what a device would have to do in a worker's place."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import Tensor
from torch.nn import functional as F

from common.atomic import atomic_write
from common.errors import ConfigError

__all__ = ["augment", "drawn", "turned"]

CONFIG = Path("bundles") / "m4oe" / "configs" / "train.json"


def augment(*, size: int | None = None, batch: int | None = None, repeats: int = 5, out: str | None = None) -> str:
    """Measure the random transforms of ``m4oe/train.json`` slice by slice, and as one resampling of a whole batch.

    Args:
        size: pixels along each side of a slice; the bundle's when None.
        batch: slices; the bundle's when None.
        repeats: batches of each way, in turns, >= 1; the fastest counts, and one before them does not.
        out: folder for ``bench_augment.json``.

    Returns:
        the figures in a sentence: the processor's time on one thread.

    Raises:
        ConfigError: for sizes or repeats below 1.
    """
    parser = ConfigParser()
    parser.read_config(str(CONFIG))
    size, batch = size or int(parser.get("image_size")), batch or int(parser.get("batch_size"))
    if min(size, batch, repeats) < 1:
        got = f"size {size}, batch {batch}, repeats {repeats}"
        raise ConfigError("there is nothing to measure", where="bench augment", got=got, expected="1 or more of each")
    transform: Any = parser.get_parsed_content("train::random_transforms")
    share, rotate = float(parser.get("rotate_flip")), float(parser.get("rotate"))
    random = np.random.default_rng(0)
    image, label = torch.rand(batch, 1, size, size), torch.randint(0, 9, (batch, 1, size, size), dtype=torch.uint8)
    samples = [{"image": i, "label": k} for i, k in zip(image, label, strict=True)]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        within, batched = _fastest(
            lambda: [transform(s) for s in samples],
            lambda: turned(image, label, drawn(batch, share, rotate, random)),
            repeats,
        )
    finally:
        torch.set_num_threads(before)
    found = {"size": size, "batch": batch, "within_ms": within / batch * 1e3, "batched_ms": batched / batch * 1e3,
             "torch": torch.__version__}  # fmt: skip
    if out is not None:
        with atomic_write(Path(out) / "bench_augment.json") as file:
            file.write_text(json.dumps(found, indent=2))
    return (
        f"m4oe, {batch} slices of {size}^2, one thread, torch {torch.__version__}: augmentation takes "
        f"{found['within_ms']:.2f} ms a slice within samples, {found['batched_ms']:.2f} ms batched"
    )


def drawn(count: int, share: float, rotate: float, random: np.random.Generator) -> Tensor:
    """What the bundle's transforms draw, as matrices ``[count, 2, 3]``: quarter turns and a flip, or a small rotation.

    Args:
        count: slices.
        share: of quarter turns and flips.
        rotate: probability of a rotation for the others.
        random: generator.
    """
    angle = np.where(random.random(count) < rotate, random.uniform(-0.349, 0.349, count), 0.0)
    quarter = random.random(count) < share
    turns = np.where(random.random(count) < 0.75, random.integers(1, 4, count), 0) * math.pi / 2
    angle = np.where(quarter, turns, angle)
    matrix = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=-1).reshape(count, 2, 2)
    rows, axis = np.flatnonzero(quarter), random.integers(0, 2, count)
    matrix[rows, axis[rows]] *= -1
    return torch.from_numpy(np.concatenate([matrix, np.zeros((count, 2, 1))], axis=-1)).float()


def turned(image: Tensor, label: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A batch of slices, resampled at once: images linearly, labels by the nearest pixel, borders repeated.

    Args:
        image: ``[N, 1, H, W]``.
        label: likewise, of whole numbers.
        matrix: ``[N, 2, 3]``, from where a pixel is taken.
    """
    grid = F.affine_grid(matrix, list(image.shape), align_corners=True)
    moved = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)
    names = F.grid_sample(label.float(), grid, mode="nearest", padding_mode="border", align_corners=True)
    return moved, names.to(label.dtype)


def _fastest(one: Callable[[], object], other: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Seconds of the processor, both ways in turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 1):
        for way, run in zip(seconds, (one, other), strict=True):
            began = time.process_time()
            run()
            way.append(time.process_time() - began)
    return min(seconds[0][1:]), min(seconds[1][1:])
