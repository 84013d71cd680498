"""nnU-Net's own planner, run in folders of its own and with nobody's environment changed."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...atomic import atomic_write
from ...errors import ConfigError
from .calls import quiet
from .network import PLANAR, read_json

__all__ = ["nnunet_name", "run_planner", "write_json"]


def nnunet_name(name: str) -> str:
    """``DatasetXXX_Name`` with a number in 500..999 that depends on the name alone."""
    clean = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_") or "dataset"
    return f"Dataset{500 + zlib.crc32(name.encode()) % 500}_{clean}"


def run_planner(
    cases: Mapping[str, Mapping[str, Any]],
    description: Mapping[str, Any],
    found: Mapping[str, Any],
    knobs: Mapping[str, Any],
    *,
    where: object | None = None,
) -> dict[str, Any]:
    """The content of ``plans.json`` that nnU-Net's planner writes.

    Args:
        cases: ``images`` and ``label`` by name, as in a nnU-Net ``dataset.json``.
        description: the ``dataset.json``, with channel names that nnU-Net's planner knows.
        found: the fingerprint.
        knobs: ``name``, ``planner``, ``configuration``, ``memory_gb``, ``base_features``, ``max_features``,
            ``patch_size``, ``batch_size`` and ``spacing`` of :func:`~.plan.plan`.
        where: the data, for messages.

    Raises:
        ConfigError: for an unknown planner, or a configuration that nnU-Net does not plan for these data.
    """
    name = nnunet_name(knobs["name"])
    with tempfile.TemporaryDirectory() as temporary, quiet():
        raw, preprocessed = Path(temporary) / "raw", Path(temporary) / "preprocessed"
        for root in (raw, preprocessed):
            (root / name).mkdir(parents=True)
        write_json(raw / name / "dataset.json", {**description, "dataset": cases})
        write_json(preprocessed / name / "dataset_fingerprint.json", found)
        with _environment(nnUNet_raw=str(raw), nnUNet_preprocessed=str(preprocessed), nnUNet_n_proc_DA="1"):
            planner = _planner(name, knobs)
            planner.plan_experiment()
            plans: dict[str, Any] = read_json(preprocessed / name / f"{planner.plans_identifier}.json")
            configuration = str(knobs["configuration"])
            if configuration not in plans["configurations"]:
                raise ConfigError(
                    f"nnU-Net plans no {configuration} for this dataset",
                    where=where,
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


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file as nnU-Net lays it out, complete or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
