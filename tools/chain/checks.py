"""The steps that ask each nnU-Net twice about one scan: is it heard as it speaks at home?"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from common.command_words import option, place
from common.data.datasets.datalist import Collection, read_collection
from common.data.datasets.dataset_json import SPLITS, Case
from common.experts.fit import reads
from common.experts.spec import ExpertSpec, read_manifest
from common.literals import folder_names

from .experts import given_expert
from .step import ChainSettings, Step, recipe

__all__ = ["checks", "expert_checks", "unchecked"]

_FOUND = "agreement.json"


def checks(described: Iterable[tuple[Path, ExpertSpec]], collection: Collection, folder: Path) -> list[Step]:
    """One step per nnU-Net that can be checked, each ``experts check`` without mirroring.

    It is asked about the first scan of its task; one that belongs to no task about the first that it reads, else about
    the first that has its number of channels.

    Args:
        described: files with one description each, and what they say.
        collection: the scans.
        folder: that gets a folder for each.
    """
    checked = [(path, spec, _scan(spec, collection)) for path, spec in described if spec.kind == "nnunet"]
    names = folder_names(spec.name for _, spec, case in checked if case is not None)
    steps = []
    for path, spec, case in checked:
        if case is None or _unable(spec):
            continue
        own, files = folder / names[spec.name], case.images
        several = ("--together=True",) if len(files) > 1 else ()
        words = (place(path), *map(place, files), "--mirroring=False", *several, option("out", own / _FOUND))
        steps.append(
            Step(f"check:{spec.name}", "check", f"Check of the given expert {spec.name}", own,
                 (sys.executable, "-m", "tools", "experts", "check", *words), (path, *files), produces=_FOUND)
        )  # fmt: skip
    return steps


def expert_checks(settings: ChainSettings, content: Mapping[str, Any], collection: Collection) -> list[Step]:
    """The steps of a chain's given experts, none where nobody wants them."""
    return checks(_given(settings, content), collection, settings.output_dir / "checks")


def unchecked(settings: ChainSettings) -> list[str]:
    """Sentences on given nnU-Nets that nobody can check."""
    given = [spec for _, spec in _given(settings, recipe(settings)) if spec.kind == "nnunet"]
    collection = read_collection(settings.dataset_dir)
    found = [(spec, _unable(spec) or _missing(spec, collection)) for spec in given]
    return [f"the given expert {spec.name} is not checked against nnU-Net itself: {why}" for spec, why in found if why]


def _given(settings: ChainSettings, content: Mapping[str, Any]) -> Iterator[tuple[Path, ExpertSpec]]:
    if not settings.check_experts or "phase1" in content.get("stage1", ("phase1",)):
        return
    for path in (*(path for _, path in settings.given), *given_expert(settings)):
        for spec in read_manifest(path):
            yield path, spec


def _unable(spec: ExpertSpec) -> str:
    if spec.orientation is None and spec.profile is None:
        return "nobody says how its training scans lay (experts describe ... --training_files)"
    return "it is the second stage of a cascade" if "cascade" in (spec.configuration or "") else ""


def _scan(spec: ExpertSpec, collection: Collection) -> Case | None:
    fits = [d for d in collection.datasets if d.dim == len("xyz") and len(d.channels) == len(spec.channels)]
    own = [d for d in fits if d.name == spec.task] if spec.role == "task" else fits
    cases = [(d, case) for d in own for split in SPLITS for case in d.cases(split)]
    read = (c for d, c in cases if spec.role == "task" or reads(spec, d.channels, d.modality_of(c)))
    return next(read, cases[0][1] if cases else None)


def _missing(spec: ExpertSpec, collection: Collection) -> str:
    return "" if _scan(spec, collection) else f"no volume has its {len(spec.channels)} channels"
