"""What stored answers cost a training step: the same student alone and taught by experts, in turns in one run."""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.atomic import atomic_write
from common.command_words import shown_option
from common.data.datasets.datalist import read_collection
from common.errors import ConfigError
from common.experts.expert_set import hash_expert
from common.experts.spec import ExpertSpec, write_manifest
from common.labels import LabelSpace

from .step import Network, trainer_of

__all__ = ["PRESETS", "Cost", "stored"]

PRESETS = ("abdomen_cpu", "demo", "laptop", "smoke")
GOAL = 1.15
_DATA = "/phantom_ct"


@dataclass(frozen=True)
class Cost:
    """Seconds of the processor, medians.

    Args:
        preset: of the student.
        experts: how many taught, each a part of the structures.
        alone: a step of the student alone, with labels.
        taught: a step with stored answers and labels.
        sample_alone: making a batch of the student alone, in the training process.
        sample_taught: the same with answers.
    """

    preset: str
    experts: int
    alone: float
    taught: float
    sample_alone: float
    sample_taught: float

    @property
    def ratio(self) -> float:
        """A taught step over one of the student alone."""
        return self.taught / self.alone

    @property
    def whole(self) -> float:
        """The same with what making the batch costs."""
        return (self.taught + self.sample_taught) / (self.alone + self.sample_alone)


class _Drawn(nn.Module):
    """An expert of random weights: what it says is nobody's business here, only what hearing it costs."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Conv3d(1, classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = 4 * self.encoder(x)
        return found


def stored(preset: str | None = None, *, data: str = "data/phantom", repeats: int = 8, out: str | None = None,
           experts: int = 2) -> str:  # fmt: skip
    """Measure, on one thread and in turns, steps of KA2ER's student alone and with stored answers.

    Args:
        preset: one of :data:`PRESETS`; ``laptop`` when None.
        data: the phantom.
        repeats: steps of each, >= 2; each on a batch of its own, and the first one does not count.
        out: folder for ``bench_stored.json``.
        experts: how many share the structures, >= 1.

    Returns:
        the table.

    Raises:
        ConfigError: for an unknown preset, too few repeats or no data.
    """
    name = preset or "laptop"
    if name not in PRESETS or repeats < 2 or experts < 1:
        raise ConfigError("there is no such step to measure", where="bench stored",
                          got=f"{name}, {repeats} repeats, {experts} experts",
                          expected=f"one of {', '.join(PRESETS)}, and 2 repeats or more")  # fmt: skip
    if not Path(data + _DATA).is_dir():
        hint = f"python -m tools phantom {shown_option('out', data)}"
        raise ConfigError("the phantom is not there", where=data + _DATA, hint=hint)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as place:
            found = _measured(name, data, Path(place), repeats, experts)
    finally:
        torch.set_num_threads(before)
    if out is not None:
        with atomic_write(Path(out) / "bench_stored.json") as file:
            file.write_text(json.dumps({**asdict(found), "ratio": found.ratio, "whole": found.whole}, indent=2))
    return _table(found)


def _measured(preset: str, data: str, place: Path, repeats: int, experts: int) -> Cost:
    manifest = _experts(data + _DATA, place, experts)
    ways = {
        "alone": Network("ka2er", (preset, "alone"), _DATA, {"iterations_per_epoch": repeats}),
        "taught": Network("ka2er", (preset, "stored"), _DATA, {
            "iterations_per_epoch": repeats, "experts": str(manifest), "unlabelled": False, "use": ["external"],
        }),
    }  # fmt: skip
    trainers = {way: trainer_of(network, data, place) for way, network in ways.items()}
    batches: dict[str, Iterator[Any]] = {way: iter(t.data_loader) for way, t in trainers.items()}
    seconds: dict[tuple[str, str], list[float]] = {
        k: [] for k in itertools.product(ways, ("sample", "step"))
    }  # fmt: skip
    for turn in range(repeats):
        for way in sorted(ways, reverse=bool(turn % 2)):
            began = time.process_time()
            batch = next(batches[way])
            drawn = time.process_time()
            trainers[way]._process_function(trainers[way], batch)
            seconds[way, "sample"].append(drawn - began)
            seconds[way, "step"].append(time.process_time() - drawn)
    middle = {k: float(torch.tensor(s[1:], dtype=torch.float64).median()) for k, s in seconds.items()}
    return Cost(preset, experts, middle["alone", "step"], middle["taught", "step"], middle["alone", "sample"],
                middle["taught", "sample"])  # fmt: skip


def _experts(dataset: str, place: Path, count: int) -> Path:
    collection = read_collection(dataset)
    specs = []
    for number in range(count):
        names = collection.labels.names[number::count]
        if not names:
            raise ConfigError("more experts than structures", where="experts", got=count,
                              expected=f"1 .. {len(collection.labels)}")  # fmt: skip
        file = place / f"expert{number}.ts"
        torch.manual_seed(number)
        torch.jit.script(_Drawn(len(names) + 1)).save(str(file))
        spec = ExpertSpec(f"expert{number}", "torchscript", str(file), LabelSpace(names), collection.channels,
                          role="external", features="encoder", extra={"divisor": 1})  # fmt: skip
        specs.append(ExpertSpec(**{**spec.__dict__, "sha256": hash_expert(spec)}))
    return write_manifest(place / "experts.json", specs)


def _table(found: Cost) -> str:
    heads = "preset", "experts", "step alone s", "step taught s", "ratio", "batch alone s", "batch taught s", "whole"
    met = "met" if found.ratio <= GOAL else "MISSED"
    figures = [found.preset, str(found.experts), f"{found.alone:.3f}", f"{found.taught:.3f}", f"{found.ratio:.2f}",
               f"{found.sample_alone:.3f}", f"{found.sample_taught:.3f}", f"{found.whole:.2f}"]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * 7, f"| {' | '.join(figures)} |"]
    return "\n".join([*lines, "", f"ratio <= {GOAL}: {met}"])
