"""Whether a training in bf16 stays as near to one in 32 bits as another seed does, on this machine's CPU."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from common.atomic import atomic_write
from common.errors import ConfigError, DataError

from .step import HALF, NETWORKS, PLAIN, Network, absent_phantom, trainer_of

__all__ = ["Curve", "curve"]


@dataclass(frozen=True)
class Curve:
    """How far the losses of the same steps lie apart.

    Args:
        network: its name in :data:`~tools.bench.step.NETWORKS`.
        steps: that were compared.
        mean: of the distances between bf16 and 32 bits; None without finite gradients in bf16.
        largest: of these distances.
        seed_mean: of the distances between 32 bits and 32 bits with another seed.
        seed_largest: of these.
    """

    network: str
    steps: int
    mean: float | None
    largest: float | None
    seed_mean: float
    seed_largest: float


def curve(name: str | None = None, *, data: str = "data/phantom", steps: int = 16, out: str | None = None) -> str:
    """Train a few steps in 32 bits, in bf16 and in 32 bits with another seed, and compare the losses.

    Args:
        name: of :data:`~tools.bench.step.NETWORKS`; all when None.
        data: the phantom, with the pictures in ``<data>_2d`` beside it.
        steps: of each training, >= 2.
        out: folder for ``bench_curve.json``.

    Returns:
        the table.

    Raises:
        ConfigError: for an unknown network, too few steps or no data.
    """
    wanted = list(NETWORKS) if name is None else [name]
    if not set(wanted) <= set(NETWORKS) or steps < 2:
        got, expected = f"{name}, {steps} steps", f"one of {', '.join(NETWORKS)}, and 2 steps or more"
        raise ConfigError("there is no such training to compare", where="bench curve", got=got, expected=expected)
    absent_phantom(wanted, data)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    try:
        for key in wanted:
            rows.append(_compared(key, data, steps))
            print(f"{key}: {_words(rows[-1].mean)} beside {rows[-1].seed_mean:.4f}", file=sys.stderr, flush=True)
            if out is not None:
                with atomic_write(Path(out) / "bench_curve.json") as file:
                    file.write_text(json.dumps([asdict(r) for r in rows], indent=2))
    finally:
        torch.set_num_threads(before)
    return _table(rows)


def _compared(key: str, data: str, steps: int) -> Curve:
    network = NETWORKS[key]
    with tempfile.TemporaryDirectory() as place:
        plain = losses(network, data, Path(place), PLAIN, steps)
        other = losses(network, data, Path(place), PLAIN, steps, seed=1)
        try:
            half: Sequence[float] | None = losses(network, data, Path(place), HALF, steps)
        except DataError:  # the trainer's, of gradients that are not finite
            half = None
    seeds = [abs(a - b) for a, b in zip(plain, other, strict=True)]
    apart = [abs(a - b) for a, b in zip(plain, half, strict=True)] if half is not None else []
    mean, largest = (sum(apart) / steps, max(apart)) if apart else (None, None)
    return Curve(key, steps, mean, largest, sum(seeds) / steps, max(seeds))


def losses(network: Network, data: str, place: Path, precision: str, steps: int, seed: int = 0) -> list[float]:
    """The losses of a training's first steps.

    Args:
        network: the preset.
        data: the phantom.
        place: a folder for what it writes.
        precision: ``fp32`` or ``bf16``.
        steps: how many.
        seed: of the training.

    Raises:
        DataError: where the gradients are not finite.
    """
    seeded = network._replace(values={**network.values, "seed": seed})
    trainer = trainer_of(seeded, data, place / f"{precision}-{seed}", precision)
    found: list[float] = []
    while len(found) < steps:
        for batch in trainer.data_loader:
            told = trainer._process_function(trainer, batch)
            found.append(float((told[0] if isinstance(told, list) else told)["loss"]))
            if not math.isfinite(found[-1]):
                raise DataError("the loss is not finite", where=precision, got=found[-1])
            if len(found) == steps:
                break
    return found


def _words(figure: float | None) -> str:
    return "no finite gradients" if figure is None else f"{figure:.4f}"


def _table(rows: Sequence[Curve]) -> str:
    heads = "network", "steps", "bf16 apart, mean", "largest", "another seed apart, mean", "largest"
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * 5]
    for r in rows:
        half = ["not finite", ""] if r.mean is None or r.largest is None else [f"{r.mean:.4f}", f"{r.largest:.4f}"]
        lines.append(f"| {r.network} | {r.steps} | {' | '.join(half)} | {r.seed_mean:.4f} | {r.seed_largest:.4f} |")
    return "\n".join(lines)
