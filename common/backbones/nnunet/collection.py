"""One plan for several data sets: a network for all of them, and a configuration that normalises each modality."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ignite.distributed as idist
import numpy as np

from ...data.datasets.datalist import Collection
from ...data.datasets.dataset import Dataset
from ...data.datasets.dataset_json import Case
from ...data.datasets.part_labelled import with_used
from ...errors import ConfigError, DataError
from ...literals import disk_name
from ...modalities import is_ct
from .calls import quiet
from .description import channel_names
from .fingerprint import Analysed, analyse, samples_per_case, spread, told
from .network import PLANAR, NNUNetResults, plan_managers, read_json
from .plan import READERS, Plan, for_planner, read_plan
from .planner import nnunet_name, run_planner, write_json

__all__ = ["Start", "free_name", "plan_collection"]

logger = logging.getLogger(__name__)

_UNKNOWN = {"mean": 0.0, "median": 0.0, "std": 1.0, "min": 0.0, "max": 1.0,
            "percentile_99_5": 1.0, "percentile_00_5": 0.0}  # fmt: skip
# Of a channel that is normalised by each scan's own values: nnU-Net wants an entry and does not read it.
ANSWERED = 10
# CT scans, evenly over all of them, whose structures are asked for where no label map shows any.


@dataclass(frozen=True)
class Start:
    """A trained nnU-Net whose plans are taken over.

    Args:
        results: its folder.
        orientation: axis codes of the scans that it was trained on; None where its reader turns them itself.
    """

    results: NNUNetResults
    orientation: str | None = None


def plan_collection(
    dataset_dir: str | Path | Sequence[str | Path] | Collection,
    output_dir: str | Path,
    *,
    start: Start | None = None,
    configuration: str = "3d_fullres",
    planner: str = "ExperimentPlanner",
    memory_gb: float | None = None,
    base_features: int | None = None,
    max_features: int | None = None,
    patch_size: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    splits: Sequence[str] = ("training",),
    foreground: Callable[[Case], Any] | None = None,
    labels_used: str | int = "all",
    seed: int = 0,
    name: str | None = None,
) -> Plan:
    """Plan one network over all scans of a collection, with nnU-Net's planner or from a trained nnU-Net's plans.

    A configuration of the plans belongs to each way of normalising: ``CTNormalization`` with the statistics of the CT
    scans' structures, ``ZScoreNormalization`` for MR. The others inherit from the first, so that all share a network.
    An earlier plan with equal settings and data is read back.

    Args:
        dataset_dir: anything that ``read_collection`` reads.
        output_dir: receives ``plans.json`` and ``dataset.json``.
        start: a trained nnU-Net whose plans are taken instead of the planner's; the knobs below are then without use.
        configuration: ``3d_fullres`` or ``3d_lowres``.
        planner: as in :func:`~.plan.plan`.
        memory_gb: also.
        base_features: also.
        max_features: also.
        patch_size: also, x y z.
        spacing: also, x y z in mm.
        splits: whose scans are looked at.
        foreground: as in :func:`~.fingerprint.analyse`; called for up to :data:`ANSWERED` CT scans, and only where CT
            statistics are needed and no label map that is used shows a structure.
        labels_used: whose label maps are read: ``all``, ``none``, or so many of each task.
        seed: which ones these are.
        name: of the data set; the collection's when None.

    Raises:
        ConfigError: for pictures, structures that overlap, a trained nnU-Net with other channels or for slices, or CT
            scans of which nobody knows a structure's voxels.
        DataError: when the collection cannot be read.
    """
    collection = with_used(dataset_dir, labels_used=labels_used, seed=seed)
    _check(collection, splits)
    knobs: dict[str, Any] = {
        "planner": planner, "memory_gb": memory_gb, "base_features": base_features, "max_features": max_features,
        "patch_size": None if patch_size is None else [int(n) for n in patch_size], "batch_size": None,
        "spacing": None if spacing is None else [float(s) for s in spacing], "name": name or collection.name,
        "configuration": configuration if start is None else start.results.configuration,
    }  # fmt: skip
    folder = Path(output_dir)
    key = _key(collection, knobs, start, splits, foreground)
    if idist.get_rank() == 0 and not _planned(folder, key):
        plans, by_modality = _plans(collection, knobs, start, splits, foreground)
        turned = None if start is None else start.orientation
        told_by = {"configuration": knobs["configuration"], "by_modality": by_modality, "turned": turned}
        write_json(folder / "dataset.json", _dataset_json(collection, knobs["name"], plans, splits))
        write_json(folder / "plans.json", {**plans, **told_by, "settings_sha256": key})
    idist.barrier()
    return read_plan(folder)


def _check(collection: Collection, splits: Sequence[str]) -> None:
    if not collection.labels.exclusive or any(d.dim == PLANAR for d in collection.datasets):
        got = "pictures" if collection.labels.exclusive else "structures that overlap"
        raise ConfigError("an nnU-Net student segments volumes, each voxel as one structure", where=collection.root,
                          got=got, hint="leave nnunet.json out: the Swin UNETR takes them")  # fmt: skip
    if not any(_cases(d, splits) for d in collection.datasets):
        raise DataError("there is no scan to plan for", where=collection.root, got=", ".join(splits))


def _cases(dataset: Dataset, splits: Sequence[str]) -> list[Case]:
    return [case for split in splits for case in dataset.cases(split)]


def _key(
    collection: Collection,
    knobs: Mapping[str, Any],
    start: Start | None,
    splits: Sequence[str],
    foreground: Callable[[Case], Any] | None,
) -> str:
    cases = [c for d in collection.datasets for c in _cases(d, splits)]
    files = sorted(p for c in cases for p in (*c.images, c.label) if p is not None)
    listed = [[str(p), p.stat().st_size if p.is_file() else 0] for p in files]
    kinds = [[d.name, list(d.channels), sorted({d.modality_of(c) for c in d.cases()})] for d in collection.datasets]
    origin = None if start is None else [start.results.plans, start.results.configuration, start.orientation]
    source = None if foreground is None else getattr(foreground, "identity", type(foreground).__qualname__)
    whole = [dict(knobs), list(collection.labels.names), kinds, listed, origin, source]
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()


def _planned(folder: Path, key: str) -> bool:
    file = folder / "plans.json"
    return file.is_file() and (folder / "dataset.json").is_file() and read_json(file).get("settings_sha256") == key


def _dataset_json(collection: Collection, name: str, plans: Mapping[str, Any], splits: Sequence[str]) -> dict[str, Any]:
    return {
        "name": name,
        "channel_names": {str(i): c for i, c in enumerate(collection.channels)},
        "labels": {"background": 0, **{n: i for i, n in enumerate(collection.labels.names, 1)}},
        "numTraining": sum(len(_cases(d, splits)) for d in collection.datasets),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": plans["image_reader_writer"],
    }


class _Scans:
    """The scans of a collection by modality, looked at when they are asked for."""

    def __init__(
        self, *, collection: Collection, splits: Sequence[str], orientation: str | None, foreground: Any
    ) -> None:
        self.orientation, self.foreground = orientation, foreground
        self.cases: dict[str, list[tuple[Dataset, Case]]] = {}
        for dataset in collection.datasets:
            for case in _cases(dataset, splits):
                self.cases.setdefault(dataset.modality_of(case), []).append((dataset, case))
        self.count = sum(map(len, self.cases.values()))
        self._found: dict[str, list[Analysed]] = {}

    def channels(self, modality: str) -> tuple[str, ...]:
        return self.cases[modality][0][0].channels

    def analysed(self, modality: str) -> list[Analysed]:
        if modality not in self._found:
            logger.info("looking at %d scans of %s", len(self.cases[modality]), modality)
            samples = samples_per_case(self.count)
            self._found[modality] = [
                a for dataset, case in self.cases[modality] for a in analyse(dataset, [case], self.orientation, samples)
            ]
        return self._found[modality]

    def normalised(self, modality: str) -> tuple[list[str], list[bool]]:
        """nnU-Net's schemes of a modality's channels, and whether zeros are left out, by its planner's own rule."""
        from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

        share = float(np.median([a.share for a in self.analysed(modality)]))
        asked = SimpleNamespace(
            dataset_json=for_planner(self.channels(modality), 3),
            dataset_fingerprint={"median_relative_size_after_cropping": share},
        )
        decide: Any = ExperimentPlanner.determine_normalization_scheme_and_whether_mask_is_used_for_norm
        schemes, masked = decide(asked)
        return list(schemes), [bool(m) for m in masked]

    def intensities(self, channel: int) -> dict[str, float]:
        """Of the structures in all scans whose channel is a CT; where there is none, of no scan.

        Label maps say where structures are; where none does, answers about some of the scans.

        Raises:
            ConfigError: when nobody knows a voxel of a structure in any of them.
        """
        of_ct = [m for m in self.cases if is_ct(self.channels(m)[channel])]
        drawn = [a.intensities[channel] for m in of_ct for a in self.analysed(m)]
        if of_ct and not any(map(len, drawn)) and self.foreground is not None:
            drawn = [a.intensities[channel] for a in self._answered(of_ct)]
        if of_ct and not any(map(len, drawn)):
            raise ConfigError("nobody knows which voxels of the CT scans are structures, and their normalisation is "
                              "made of those", where=", ".join(of_ct), got="scans without labels or answers",
                              hint="start from a CT expert, or give label maps of some scans")  # fmt: skip
        return spread(drawn) if of_ct else dict(_UNKNOWN)

    def _answered(self, modalities: Sequence[str]) -> list[Analysed]:
        """Some scans of these modalities, with the voxels that answers take for structures."""
        scans = [pair for m in modalities for pair in self.cases[m]]
        count = min(ANSWERED, len(scans))
        chosen = [scans[(2 * n + 1) * len(scans) // (2 * count)] for n in range(count)]
        logger.info("no label map shows a structure of %s: answers about %d of %d scans say where structures are",
                    ", ".join(modalities), count, len(scans))  # fmt: skip
        samples, asked = samples_per_case(count), self.foreground
        return [a for d, case in chosen for a in analyse(d, [case], self.orientation, samples, asked)]


def _plans(
    collection: Collection,
    knobs: Mapping[str, Any],
    start: Start | None,
    splits: Sequence[str],
    foreground: Callable[[Case], Any] | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    orientation = "RAS" if start is None else start.orientation or "RAS"
    scans = _Scans(collection=collection, splits=splits, orientation=orientation, foreground=foreground)
    chosen = str(knobs["configuration"])
    plans = _fresh(collection, scans, knobs) if start is None else _taken(collection, scans, start)
    plans["dataset_name"] = nnunet_name(str(knobs["name"]))
    base = plan_managers(plans, chosen)[1]
    known = {chosen: [list(base.normalization_schemes), [bool(m) for m in base.use_mask_for_norm]]}
    by_modality: dict[str, str] = {}
    for modality in scans.cases:
        own = [_schemes(scans, modality), known[chosen][1]]
        if start is None or own[0] != known[chosen][0]:
            own = [*scans.normalised(modality)]
        name = next((n for n, other in known.items() if other == own), None)
        if name is None:
            name = free_name(chosen, modality, plans["configurations"])
            plans["configurations"][name] = {
                "inherits_from": chosen, "data_identifier": f"{plans['plans_name']}_{name}",
                "normalization_schemes": own[0], "use_mask_for_norm": own[1],
            }  # fmt: skip
            known[name] = own
        by_modality[modality] = name
    return plans, by_modality


def _schemes(scans: _Scans, modality: str) -> list[str]:
    from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

    return [
        get_normalization_scheme(c).__name__ for c in for_planner(scans.channels(modality), 3)["channel_names"].values()
    ]


def _fresh(collection: Collection, scans: _Scans, knobs: Mapping[str, Any]) -> dict[str, Any]:
    first = next(iter(scans.cases))
    every = [a for modality in scans.cases for a in scans.analysed(modality)]
    channels = range(len(collection.channels))
    found = told(every, {c: scans.intensities(c) for c in channels})
    cases = {
        f"{d.name} {c.id}": {"images": [*map(str, c.images)], "label": str(c.label or c.images[0])}
        for own in scans.cases.values()
        for d, c in own
    }
    description = {**_dataset_json(collection, str(knobs["name"]), {"image_reader_writer": READERS["RAS"]}, ()),
                   **for_planner(scans.channels(first), 3), "numTraining": len(cases)}  # fmt: skip
    plans = run_planner(cases, description, found, knobs, where=collection.root)
    chosen = str(knobs["configuration"])
    if len(plans["configurations"][chosen]["patch_size"]) == PLANAR:
        raise ConfigError("the student segments volumes", where="configuration", got=chosen, expected="3d_fullres")
    schemes, masked = scans.normalised(first)
    content = {**plans["configurations"][chosen], "normalization_schemes": schemes, "use_mask_for_norm": masked}
    return {**plans, "configurations": {chosen: content}}


def _taken(collection: Collection, scans: _Scans, start: Start) -> dict[str, Any]:
    """The plans of a trained nnU-Net: its configuration written out, and CT statistics where it has none of its own."""
    results, chosen = start.results, start.results.configuration
    _, config = plan_managers(results.plans, chosen)
    own = channel_names(results.dataset_json, where=results.folder / "dataset.json")
    if len(own) != len(collection.channels):
        raise ConfigError("the nnU-Net to start from reads other channels", where=results.folder, got=", ".join(own),
                          expected=", ".join(collection.channels))  # fmt: skip
    if len(config.patch_size) == PLANAR or config.previous_stage_name is not None:
        raise ConfigError("a student starts from an nnU-Net that segments volumes in one stage", where=results.folder,
                          got=chosen, expected="3d_fullres or 3d_lowres")  # fmt: skip
    with quiet():
        plans = copy.deepcopy(results.plans)
        content = {k: v for k, v in copy.deepcopy(config.configuration).items() if k != "inherits_from"}
    plans["configurations"] = {chosen: content}
    known = plans["foreground_intensity_properties_per_channel"] = {
        **(plans.get("foreground_intensity_properties_per_channel") or {})
    }
    for channel, scheme in enumerate(config.normalization_schemes):
        needed = any(is_ct(scans.channels(m)[channel]) for m in scans.cases)
        if needed and (scheme != "CTNormalization" or str(channel) not in known):
            known[str(channel)] = scans.intensities(channel)
        known.setdefault(str(channel), dict(_UNKNOWN))
    return plans


def free_name(configuration: str, modality: str, taken: Mapping[str, Any]) -> str:
    """A name for a modality's own configuration that no disk takes for another's, and that a folder may have."""
    word = re.sub(r"[^0-9a-z]+", "", modality.lower()) or "other"
    names = (f"{configuration}_{word}{number or ''}" for number in range(len(taken) + 1))
    used = {disk_name(str(name)) for name in taken}
    return next(name for name in names if disk_name(name) not in used)
