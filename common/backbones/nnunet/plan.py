"""Planning with nnU-Net's own fingerprint and planner, from our datasets and without its folders or settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ignite.distributed as idist

from ...bundle_words import shown_knob
from ...command_words import shown_option
from ...data.datasets.datalist import read_collection
from ...data.datasets.dataset import Dataset
from ...errors import ConfigError, DataError, WeightError
from ...labels import LabelSpace
from ...literals import check_name
from ...modalities import is_ct
from ...name_words import meant_together
from ...weights import read_card
from .description import channel_names, labels_of, output_channels
from .fingerprint import fingerprint
from .grid import array_axcodes
from .kept import check_kept
from .network import PLANAR, plan_managers, read_json
from .planner import run_planner, write_json

__all__ = ["READERS", "Plan", "for_planner", "plan", "plan_of_model", "plan_of_settings", "read_plan"]

READERS = {"RAS": "NibabelIOWithReorient", None: "NibabelIO"}


@dataclass(frozen=True)
class Plan:
    """Plans and labels of one nnU-Net configuration.

    Args:
        plans: content of ``plans.json``.
        dataset_json: content of ``dataset.json``.
        configuration: one of the plans' configurations.
        folder: where both files lie.
        by_modality: the configuration that normalises the scans of each modality; empty where one serves all.
        turned: axis codes that scans are turned to, where it is not what the plans' reader does.
    """

    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    configuration: str
    folder: Path
    by_modality: Mapping[str, str] = field(default_factory=dict)
    turned: str | None = None

    @property
    def labels(self) -> LabelSpace:
        """The structures, with consecutive values 1..K."""
        return labels_of(self.dataset_json, where=self.folder / "dataset.json")

    @property
    def channels(self) -> tuple[str, ...]:
        """Image channel names."""
        return channel_names(self.dataset_json, where=self.folder / "dataset.json")

    @property
    def out_channels(self) -> int:
        """Number of logits."""
        return output_channels(self.labels)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that inference needs, for the card of a model."""
        told = {"plans": self.plans, "dataset_json": self.dataset_json, "configuration": self.configuration}
        more: dict[str, Any] = {"by_modality": dict(self.by_modality), "turned": self.turned}
        return {**told, **{k: v for k, v in more.items() if v}}

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
        return self.turned or ("RAS" if self.plans.get("image_reader_writer") == READERS["RAS"] else None)

    @property
    def axcodes(self) -> str | None:
        """Axis codes of the preprocessed array's axes; None where those of the scans are not known."""
        return array_axcodes(self.orientation, self.plans["transpose_forward"])

    @property
    def spacing(self) -> tuple[float, ...]:
        """Spacing in mm along x, y, z of a volume's configuration."""
        manager, config = plan_managers(self.plans, self.configuration)
        return tuple(float(config.spacing[i]) for i in reversed(manager.transpose_backward))

    def configuration_for(self, modality: Any, *, where: object | None = None) -> str:
        """The configuration that normalises a scan.

        Args:
            modality: what the scan is; may be unknown where all are normalised alike.
            where: the case, for messages.

        Raises:
            DataError: when nobody says what the scan is and it matters, or the plans know no such modality.
        """
        found = self.by_modality.get(modality) if isinstance(modality, str) else None
        every = {*self.by_modality.values()} or {self.configuration}
        if found is None and len(every) > 1:
            raise DataError("what a scan is decides how it is normalised, and this is none that was planned for",
                            where=where, got=modality or "nobody says what the scan is",
                            expected=", ".join(self.by_modality),
                            hint=shown_option("modality", next(iter(self.by_modality))))  # fmt: skip
        return found or next(iter(every))


def read_plan(folder: str | Path, configuration: str | None = None) -> Plan:
    """Read ``plans.json`` and ``dataset.json`` from a folder.

    Args:
        folder: where a training wrote them.
        configuration: None takes the one that the training recorded, or the only one.
    """
    place = Path(folder)
    plans = read_json(place / "plans.json")
    chosen = configuration or plans.get("configuration") or next(iter(plans["configurations"]))
    found: dict[str, Any] = {k: plans[k] for k in ("by_modality", "turned") if k in plans}
    found |= {"plans": plans, "dataset_json": read_json(place / "dataset.json"), "configuration": chosen}
    return plan_of_settings(found, place, where=place / "plans.json")


def plan_of_settings(settings: Mapping[str, Any], folder: str | Path, *, where: str | Path | None = None) -> Plan:
    """A plan from what :attr:`Plan.settings` wrote, which may come from anywhere: nothing but nnU-Net's own is named.

    Args:
        settings: of a card, or of files.
        folder: where they lie.
        where: file, for messages.

    Raises:
        WeightError: for entries of another form, or names that are not nnU-Net's own.
    """
    check_kept(settings, folder if where is None else where)
    by_modality, turned = settings.get("by_modality") or {}, settings.get("turned")
    pairs = by_modality.items() if isinstance(by_modality, Mapping) else [(None, None)]
    if not all(isinstance(name, str) and isinstance(own, str) for name, own in pairs):
        raise WeightError("the plans do not say which configuration is for which modality", where=where,
                          got=ascii(by_modality)[:200], expected='such as {"CT": "3d_fullres"}')  # fmt: skip
    if turned is not None and not (isinstance(turned, str) and sorted(map(_axis, turned)) == [0, 1, 2]):
        raise WeightError("these are no axis codes", where=where, got=ascii(turned)[:200], expected="such as RAS")
    for name in by_modality:
        check_name(name, "modality", where=where, error=WeightError)
    place = Path(folder)
    found = Plan(settings["plans"], settings["dataset_json"], settings["configuration"], place, by_modality, turned)
    for name in dict.fromkeys([found.configuration, *found.by_modality.values()]):
        plan_managers(found.plans, name, channels=len(found.channels), where=where)
    return found


def _axis(code: str) -> int:
    return next((n for n, pair in enumerate(("RL", "AP", "SI")) if code in pair), -1)


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
            return plan_of_settings(known, path.parent, where=path)
        return read_plan(path.parent)
    if isinstance(fallback, Mapping):
        return plan_of_settings(fallback, path.parent, where=path)
    return read_plan(fallback)


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
    if orientation not in READERS:
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
        cases = {c.id: {"images": [*map(str, c.images)], "label": str(c.label)} for c in dataset.cases("training")}
        known = {**description, **for_planner(dataset.channels, dataset.dim)}
        plans = run_planner(cases, known, found, knobs, where=dataset.root)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "dataset_fingerprint.json", found)
        write_json(folder / "dataset.json", description)
        write_json(folder / "plans.json", {**plans, "configuration": configuration, "settings_sha256": key})
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
        "overwrite_image_reader_writer": READERS[orientation] if dataset.dim == 3 else "NaturalImage2DIO",
    }


def for_planner(channels: Sequence[str], dim: int) -> dict[str, Any]:
    """Channel names that nnU-Net's planner knows: to it, CTA is no CT."""
    names = {
        str(i): "CT" if dim != PLANAR and is_ct(read) else c
        for i, (c, read) in enumerate(zip(channels, meant_together(channels), strict=True))
    }
    return {"channel_names": names}
