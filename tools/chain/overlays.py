"""The order of a run's configuration files: a preset decides how large a run is, the run's overlays what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.plain_json import read_object

__all__ = ["SIZES", "ordered_files"]

_NAMES = """
    max_epochs max_steps max_minutes iterations_per_epoch slices_per_epoch images_per_epoch objects_per_epoch
    batch_size micro_batch learning_rate other_rate weight_decay warmup_epochs warmup_steps milestones lr_steps
    image_size roi_size patch_size spacing samples_per_case clicks min_voxels val_interval select
    cache_gb num_workers precision
"""
SIZES = frozenset(_NAMES.split())
"""Knobs of which a preset's value counts more than that of a run's overlay."""


def ordered_files(
    folder: Path, *, overlays: Sequence[str], preset: Sequence[str], own: Sequence[str] = ()
) -> list[str]:
    """``train.json`` and what is merged over it, the last one counts.

    The files of a preset come after the run's overlays, so that a run has the preset's sizes and not those that the
    overlay has for a training of its own (a teacher of 64 pictures a step, H-SAM's 30 epochs). One that says itself
    what a run is (the base ``sam2``, where the run's base is ``hsam``) comes before them.

    Args:
        folder: of the bundle's configuration files.
        overlays: of the run.
        preset: of the chain's preset, for every run.
        own: of the preset, for this run; they come last.

    Raises:
        ConfigError: for a file of the preset that would have to come before and after.
    """
    said: dict[str, Any] = {}
    for name in overlays:
        said |= _content(folder / name)
    before: list[str] = []
    after: list[str] = []
    for name in preset:
        other = {k for k, v in _content(folder / name).items() if k in said and v != said[k]}
        if other - SIZES and other & SIZES:
            problem = "a preset changes what a run is, and its sizes, in one file"
            expected = f"only sizes, or nothing of {', '.join(overlays)}"
            hint = "split the file in two and list both in the preset"
            raise ConfigError(problem, where=folder / name, got=", ".join(sorted(other)), expected=expected, hint=hint)
        (before if other - SIZES else after).append(name)
    return ["train.json", *before, *overlays, *after, *own]


def _content(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ConfigError("the configuration file does not exist", where=path)
    return read_object(path, error=ConfigError)
