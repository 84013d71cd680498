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

import nibabel as nib
import numpy as np
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

__all__ = ["PRESETS", "STUDENTS", "Cost", "stored"]

PRESETS = ("abdomen_cpu", "demo", "laptop", "smoke")
GOAL = 1.15
_DATA = "/phantom_ct"
STUDENTS = {"nnunet": (5, 117), "swin_unetr": (2, None)}
# Experts and structures: as many as TotalSegmentator's for the student that `amalgamate` trains, else the phantom's.
_PATCH, _SPACING = (64, 64, 32), (4.0, 4.0, 6.0)
_SURE = 12.0


@dataclass(frozen=True)
class Cost:
    """Seconds of the processor, medians.

    Args:
        student: its kind.
        preset: of the student.
        classes: structures that it learns.
        experts: how many taught, each a part of the structures.
        alone: a step of the student alone, with labels.
        taught: a step with stored answers and labels.
        sample_alone: making a batch of the student alone, in the training process.
        sample_taught: the same with answers.
    """

    student: str
    preset: str
    classes: int
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
        if self.encoder.bias is not None:  # always: for the type alone
            with torch.no_grad():
                self.encoder.bias[0] += _SURE / 4  # mostly background, as an expert's answer is

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = 4 * self.encoder(x)
        return found


def stored(preset: str | None = None, *, data: str = "data/phantom", repeats: int = 8, out: str | None = None,
           experts: int | None = None, student: str = "nnunet", classes: int | None = None) -> str:  # fmt: skip
    """Measure, on one thread and in turns, steps of KA2ER's student alone and with stored answers.

    Args:
        preset: one of :data:`PRESETS`; ``laptop`` when None.
        data: the phantom; an nnU-Net student learns from scans made here, with label maps of all its structures.
        repeats: steps of each, >= 2; each on a batch of its own, and the first one does not count.
        out: folder for ``bench_stored.json``.
        experts: how many share the structures, >= 1; of :data:`STUDENTS` when None.
        student: ``nnunet``, which ``amalgamate`` trains if nothing is said, or ``swin_unetr``.
        classes: structures of the nnU-Net student; of :data:`STUDENTS` when None.

    Returns:
        the table.

    Raises:
        ConfigError: for an unknown preset, too few repeats or no data.
    """
    name = preset or "laptop"
    known = STUDENTS.get(student, (0, None))
    count, structures = known[0] if experts is None else experts, known[1] if classes is None else classes
    if (
        name not in PRESETS
        or repeats < 2
        or count < 1
        or (classes is not None and (student != "nnunet" or classes < 1))
    ):
        raise ConfigError("there is no such step to measure", where="bench stored",
                          got=f"{name}, {repeats} repeats, {student} with {count} experts of {structures} structures",
                          expected=f"one of {', '.join(PRESETS)}, 2 repeats or more, one of {', '.join(STUDENTS)}, and "
                          "structures of nnunet alone")  # fmt: skip
    if student == "swin_unetr" and not Path(data + _DATA).is_dir():
        hint = f"python -m tools phantom {shown_option('out', data)}"
        raise ConfigError("the phantom is not there", where=data + _DATA, hint=hint)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as place:
            if structures is not None:
                data = str(_scans(Path(place), structures))
            found = _measured(name, data, Path(place), repeats, count, student)
    finally:
        torch.set_num_threads(before)
    if out is not None:
        with atomic_write(Path(out) / "bench_stored.json") as file:
            file.write_text(json.dumps({**asdict(found), "ratio": found.ratio, "whole": found.whole}, indent=2))
    return _table(found)


def _measured(preset: str, data: str, place: Path, repeats: int, experts: int, student: str) -> Cost:
    manifest = _experts(data + _DATA, place, experts)
    own: dict[str, Any] = {"iterations_per_epoch": repeats}
    files: tuple[str, ...] = (preset,)
    if student == "nnunet":
        files, own = (preset, "nnunet"), {**own, "patch_size": list(_PATCH), "plan_spacing": list(_SPACING)}
    told = {**own, "experts": str(manifest), "unlabelled": False, "use": ["external"]}
    ways = {
        "alone": Network("ka2er", files if student == "nnunet" else (*files, "alone"), _DATA, own),
        "taught": Network("ka2er", (*files, "stored"), _DATA, told),
    }
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
    classes = len(read_collection(data + _DATA).labels)
    return Cost(student, preset, classes, experts, middle["alone", "step"], middle["taught", "step"],
                middle["alone", "sample"], middle["taught", "sample"])  # fmt: skip


def _scans(place: Path, classes: int) -> Path:
    """Three CT scans of a few patches, each structure a block of its own."""
    shape, side = tuple(n + n // 8 for n in _PATCH), 6
    blocks = list(itertools.product(*(range(0, n - side, side) for n in shape)))
    if classes > len(blocks):
        raise ConfigError("more structures than fit", where="classes", got=classes, expected=f"1 .. {len(blocks)}")
    label = np.zeros(shape, np.uint8 if classes < 256 else np.uint16)
    for number in range(classes):
        x, y, z = blocks[number * len(blocks) // classes]
        label[x : x + side, y : y + side, z : z + side] = number + 1
    folder = place / "scans" / _DATA.strip("/")
    folder.mkdir(parents=True)
    entries: list[dict[str, str]] = []
    for number in range(3):
        image = label * 2 + np.random.default_rng(number).normal(0, 20, shape)
        for kind, values in (("image", image.astype(np.int16)), ("label", label)):
            nib.save(nib.Nifti1Image(values, np.diag([*_SPACING, 1.0])), folder / f"{number}_{kind}.nii.gz")
        entries.append({"image": f"{number}_image.nii.gz", "label": f"{number}_label.nii.gz", "id": f"scan_{number}"})
    labels = {"background": 0, **{f"structure {n}": n for n in range(1, classes + 1)}}
    about = {"name": _DATA.strip("/"), "channel_names": {"0": "CT"}, "labels": labels, "training": entries[:2],
             "validation": entries[2:]}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder.parent


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
    heads = ["student", "preset", "classes", "experts", "step alone s", "step taught s", "ratio"]
    heads += ["batch alone s", "batch taught s", "whole"]
    met = "met" if found.ratio <= GOAL else "MISSED"
    seconds = [found.alone, found.taught, found.sample_alone, found.sample_taught]
    step, taught, sample, sample_taught = (f"{s:.3f}" for s in seconds)
    figures = [found.student, found.preset, str(found.classes), str(found.experts), step, taught,
               f"{found.ratio:.2f}", sample, sample_taught, f"{found.whole:.2f}"]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * 8, f"| {' | '.join(figures)} |"]
    return "\n".join([*lines, "", f"ratio <= {GOAL}: {met}"])
