"""What the steps of a chain leave, with the hashes by which a later run knows that it is all still there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from common.errors import DataError, WeightError
from common.integrity import SUFFIX, file_hash, verify
from common.plain_json import read_plain

from ..run_files import inside
from .step import Step

__all__ = ["artefacts", "changed", "kept_together", "unfit"]

# What later steps and users read. Not the checkpoints: a step that is done does not go on from them.
TRAINED = ("model.pt", "expert.json", "plans.json", "dataset.json", "nnunet/**/*", "adapter/*")
MEASURED = ("evaluation/*.json", "evaluation/*.csv")


def artefacts(step: Step) -> dict[str, str]:
    """sha256 of every file that a step made, by its name in the step's folder."""
    return {path.relative_to(step.output_dir).as_posix(): file_hash(path) for path in _files(step)}


def _files(step: Step) -> Iterator[Path]:
    patterns = {step.produces, *step.also}
    if step.kind != "manifest":
        patterns |= set(TRAINED if step.produces == Step.produces else MEASURED)
    found = {p for pattern in patterns for p in step.output_dir.glob(pattern) if p.is_file()}
    yield from sorted(p for p in found if p.suffix != SUFFIX and not p.name.startswith("."))


def changed(folder: Path, hashes: Mapping[str, str]) -> str:
    """Which of the files are not what they were, as a sentence; empty when all are."""
    for name, expected in hashes.items():
        try:
            path = inside(folder, name, where="sha256")
        except DataError:
            return f"{name} is no place in its folder"
        if not path.is_file():
            return f"{name} is missing"
        if file_hash(path) != expected:
            return f"{name} " + ("changed since it was made" if path.stat().st_size else "was emptied")
    return ""


def unfit(step: Step, *, absent: bool = True) -> str:
    """Why what lies in a step's folder cannot be its result, judged without a record's hashes; empty when it may be.

    Args:
        step: the step.
        absent: whether what is not there counts: it does once the step is done.
    """
    for name in (step.produces, *step.also):
        path = step.output_dir / name
        if not path.is_file():
            if absent:
                return f"{name} is missing"
            continue
        if not path.stat().st_size:
            return f"{name} is empty"
        if path.suffix == ".json":
            try:
                read_plain(path, error=DataError, finite=False)
            except DataError:
                return f"{name} cannot be read"
        try:
            verify(path)
        except WeightError as error:
            return f"{name}: {error.problem}"
    return ""


def kept_together(step: Step) -> Path:
    """What is moved aside before a step whose result was spoilt is done again: its folder, or its part of one."""
    if step.kind == "manifest":
        return step.output_dir / step.produces
    return step.output_dir / "evaluation" if step.kind == "evaluate" else step.output_dir
