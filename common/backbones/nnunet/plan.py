"""Planning with nnU-Net's own fingerprint and planner, from our datasets and without its folders or settings."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np

from ...atomic import atomic_write
from ...bundle_words import shown_knob
from ...data.datasets.datalist import read_collection
from ...data.datasets.dataset import Dataset
from ...errors import ConfigError, DataError
from ...labels import LabelSpace
from ...modalities import is_ct
from ...name_words import meant_together
from ...weights import read_card
from .fingerprint import fingerprint
from .kept import check_kept
from .network import PLANAR, channel_names, labels_of, output_channels, plan_managers, quiet, read_json

__all__ = ["Plan", "nnunet_name", "plan", "plan_of_model", "read_plan"]

_READERS = {"RAS": "NibabelIOWithReorient", None: "NibabelIO"}


@dataclass(frozen=True)
class Plan:
    """Plans and labels of one nnU-Net configuration.

    Args:
        plans: content of ``plans.json``.
        dataset_json: content of ``dataset.json``.
        configuration: one of the plans' configurations.
        folder: where both files lie.
    """

    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    configuration: str
    folder: Path

    @property
    def labels(self) -> LabelSpace:
        """The structures, with consecutive values 1..K."""
        return labels_of(self.dataset_json, where=self.folder / "dataset.json")

    @property
    def channels(self) -> tuple[str, ...]:
        """Image channel names."""
        return channel_names(self.dataset_json)

    @property
    def out_channels(self) -> int:
        """Number of logits."""
        return output_channels(self.labels)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that inference needs, for the card of a model."""
        return {"plans": self.plans, "dataset_json": self.dataset_json, "configuration": self.configuration}

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Patch in voxels, axes in nnU-Net's order."""
        return tuple(int(n) for n in plan_managers(self.plans, self.configuration)[1].patch_size)

    @property
    def batch_size(self) -> int:
        """Patches of a batch."""
        return int(plan_managers(self.plans, self.configuration)[1].batch_size)

    @property
    def orientation(self) -> str | None:
        """Axis codes that volumes are turned to before anything else; None keeps them."""
        return "RAS" if self.plans.get("image_reader_writer") == _READERS["RAS"] else None


def read_plan(folder: str | Path, configuration: str | None = None) -> Plan:
    """Read ``plans.json`` and ``dataset.json`` from a folder.

    Args:
        folder: where a training wrote them.
        configuration: None takes the one that the training recorded, or the only one.
    """
    place = Path(folder)
    plans = read_json(place / "plans.json")
    chosen = configuration or plans.get("configuration") or next(iter(plans["configurations"]))
    plan_managers(plans, chosen, where=place / "plans.json")
    return Plan(plans, read_json(place / "dataset.json"), chosen, place)


def plan_of_model(model: str | Path, fallback: str | Path | Mapping[str, Any]) -> Plan:
    """The plan that a model was trained with: from its card, from beside it, or (no model yet) from ``fallback``.

    Args:
        model: ``model.pt``.
        fallback: folder with the plans that a bundle ships; or the plans themselves as :attr:`Plan.settings`, which
            need no file: ``monai.bundle.load`` builds the network in whatever folder it is called in.

    Raises:
        WeightError: when the model exists and nothing says how it was planned.
    """
    path = Path(model)
    if path.is_file():
        card = read_card(path)
        known = {} if card is None else card.extra.get("settings") or {}
        if known.get("plans"):
            check_kept(known, path)
            return Plan(known["plans"], known["dataset_json"], known["configuration"], path.parent)
        return read_plan(path.parent)
    if isinstance(fallback, Mapping):
        return Plan(fallback["plans"], fallback["dataset_json"], fallback["configuration"], path.parent)
    return read_plan(fallback)


def nnunet_name(name: str) -> str:
    """``DatasetXXX_Name`` with a number in 500..999 that depends on the name alone."""
    clean = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_") or "dataset"
    return f"Dataset{500 + zlib.crc32(name.encode()) % 500}_{clean}"


def plan(
    dataset_dir: str | Path,
    output_dir: str | Path,
    *,
    configuration: str = "3d_fullres",
    planner: str = "ExperimentPlanner",
    memory_gb: float | None = None,
    base_features: int | None = None,
    max_features: int | None = None,
    patch_size: Sequence[int] | None = None,
    batch_size: int | None = None,
    spacing: Sequence[float] | None = None,
    orientation: str | None = "RAS",
    name: str | None = None,
) -> Plan:
    """Plan a dataset's training cases with nnU-Net; an earlier plan with equal settings and data is read back.

    Args:
        dataset_dir: a dataset folder.
        output_dir: receives ``plans.json``, ``dataset.json``, ``dataset_fingerprint.json``.
        configuration: ``2d``, ``3d_fullres`` or ``3d_lowres``.
        planner: nnU-Net planner class, for example ``nnUNetPlannerResEncM``.
        memory_gb: GPU memory to plan for; nnU-Net's default when None.
        base_features: features of the first stage (nnU-Net: 32).
        max_features: upper bound of the features (nnU-Net: 320, in 2-D 512).
        patch_size: patch in voxels along x, y, z (2d: in-plane) instead of the planned one.
        batch_size: patches of a batch instead of the planned number.
        spacing: target spacing in mm along x, y, z instead of the median.
        orientation: ``RAS``, or None to keep each file's own directions.
        name: name of the dataset, if not its own.

    Raises:
        ConfigError: for unknown settings, or a configuration that nnU-Net does not plan for this dataset.
        DataError: when the dataset cannot be read.
    """
    if orientation not in _READERS:
        raise ConfigError("nnU-Net readers know these orientations", got=orientation, expected="RAS or null")
    dataset = _single(dataset_dir)
    orientation = orientation if dataset.dim == 3 else None
    knobs = {
        "planner": planner,
        "memory_gb": memory_gb,
        "base_features": base_features,
        "max_features": max_features,
        "patch_size": None if patch_size is None else [int(n) for n in patch_size],
        "batch_size": batch_size,
        "spacing": None if spacing is None else [float(s) for s in spacing],
        "orientation": orientation,
        "name": name or dataset.name,
        "configuration": configuration,
    }
    folder = Path(output_dir)
    key = hashlib.sha256(json.dumps([knobs, _content(dataset)], sort_keys=True).encode()).hexdigest()
    if idist.get_rank() == 0 and not _planned(folder, key):
        description = _dataset_json(dataset, name or dataset.name, orientation)
        found = fingerprint(dataset, orientation)
        plans = _run_planner(dataset, description, found, knobs)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "dataset_fingerprint.json", found)
        _write(folder / "dataset.json", description)
        _write(folder / "plans.json", {**plans, "configuration": configuration, "settings_sha256": key})
    idist.barrier()
    return read_plan(folder, configuration)


def _single(dataset_dir: str | Path) -> Dataset:
    datasets = read_collection(dataset_dir).datasets
    if len(datasets) != 1:
        raise ConfigError(
            "an expert is trained on one dataset",
            where=dataset_dir,
            got=", ".join(d.name for d in datasets),
            expected="the folder of one of them",
            hint=shown_knob("dataset_dir", datasets[0].root),
        )
    if not datasets[0].cases("training"):
        raise DataError("the dataset has no training cases", where=dataset_dir)
    return datasets[0]


def _content(dataset: Dataset) -> list[list[Any]]:
    files = [p for c in dataset.cases("training") for p in (*c.images, c.label) if p is not None]
    return [[str(p), p.stat().st_size if p.exists() else 0] for p in sorted(files)]


def _planned(folder: Path, key: str) -> bool:
    file = folder / "plans.json"
    return file.is_file() and (folder / "dataset.json").is_file() and read_json(file).get("settings_sha256") == key


def _dataset_json(dataset: Dataset, name: str, orientation: str | None) -> dict[str, Any]:
    return {
        "name": name,
        "channel_names": {str(i): c for i, c in enumerate(dataset.channels)},
        "labels": {"background": 0, **{n: i for i, n in enumerate(dataset.labels.names, 1)}},
        "numTraining": len(dataset.cases("training")),
        "file_ending": ".nii.gz" if dataset.dim == 3 else ".png",
        "overwrite_image_reader_writer": _READERS[orientation] if dataset.dim == 3 else "NaturalImage2DIO",
    }


def _for_planner(description: Mapping[str, Any], dim: int) -> dict[str, Any]:
    """Channel names that nnU-Net's planner knows: to it, CTA is no CT."""
    given = description["channel_names"]
    read = dict(zip(given, meant_together(list(given.values())), strict=True))
    names = {i: "CT" if dim != PLANAR and is_ct(c) else given[i] for i, c in read.items()}
    return {"channel_names": names}


def _run_planner(
    dataset: Dataset, description: Mapping[str, Any], found: Mapping[str, Any], knobs: Mapping[str, Any]
) -> dict[str, Any]:
    name = nnunet_name(knobs["name"])
    cases = {c.id: {"images": [str(p) for p in c.images], "label": str(c.label)} for c in dataset.cases("training")}
    with tempfile.TemporaryDirectory() as temporary, quiet():
        raw, preprocessed = Path(temporary) / "raw", Path(temporary) / "preprocessed"
        for root in (raw, preprocessed):
            (root / name).mkdir(parents=True)
        _write(raw / name / "dataset.json", {**description, **_for_planner(description, dataset.dim), "dataset": cases})
        _write(preprocessed / name / "dataset_fingerprint.json", found)
        with _environment(nnUNet_raw=str(raw), nnUNet_preprocessed=str(preprocessed), nnUNet_n_proc_DA="1"):
            planner = _planner(name, knobs)
            planner.plan_experiment()
            plans: dict[str, Any] = read_json(preprocessed / name / f"{planner.plans_identifier}.json")
            configuration = str(knobs["configuration"])
            if configuration not in plans["configurations"]:
                raise ConfigError(
                    f"nnU-Net plans no {configuration} for this dataset",
                    where=dataset.root,
                    got=configuration,
                    expected=", ".join(plans["configurations"]),
                    hint="3d_lowres exists only where volumes are much larger than a patch",
                )
            if knobs["patch_size"] is not None:
                _force_patch(planner, plans, configuration, knobs["patch_size"])
    if knobs["batch_size"] is not None:
        plans["configurations"][configuration]["batch_size"] = int(knobs["batch_size"])
    return plans


def _planner(name: str, knobs: Mapping[str, Any]) -> Any:
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = str(Path(nnunetv2.__path__[0]) / "experiment_planning")
    found: Any = recursive_find_python_class(folder, knobs["planner"], "nnunetv2.experiment_planning")
    if found is None:
        raise ConfigError(
            "nnU-Net has no planner of this name", got=knobs["planner"], expected="ExperimentPlanner, ..."
        )
    options: dict[str, Any] = {}
    if knobs["memory_gb"] is not None:
        options["gpu_memory_target_in_gb"] = float(knobs["memory_gb"])
    if knobs["spacing"] is not None:
        options["overwrite_target_spacing"] = [float(s) for s in reversed(knobs["spacing"])]
    planner = found(name, **options)
    if knobs["base_features"] is not None:
        planner.UNet_base_num_features = int(knobs["base_features"])
    if knobs["max_features"] is not None:
        planner.UNet_max_features_2d = planner.UNet_max_features_3d = int(knobs["max_features"])
    return planner


def _force_patch(planner: Any, plans: dict[str, Any], configuration: str, patch_size: Sequence[int]) -> None:
    """Let nnU-Net derive topology and batch size for a patch that the user chose."""
    config = plans["configurations"][configuration]
    order = [(2, 1, 0)[i] for i in plans["transpose_forward"]]
    if len(patch_size) != len(config["spacing"]):
        raise ConfigError("one entry per axis", where="patch_size", got=list(patch_size), expected=config["spacing"])
    planar = len(config["spacing"]) == PLANAR
    wanted = [patch_size[i] for i in ((1, 0) if planar else order)]
    voxels = math.prod(config["median_image_size_in_voxels"]) * len(planner.dataset)
    fresh = planner.get_plans_for_configuration(
        np.array(config["spacing"]), tuple(wanted), config["data_identifier"], float(voxels), {}
    )
    from nnunetv2.utilities.json_export import recursive_fix_for_json_export

    recursive_fix_for_json_export(fresh)
    kept = copy.deepcopy(config)
    config.update(fresh)
    config["median_image_size_in_voxels"] = kept["median_image_size_in_voxels"]


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
