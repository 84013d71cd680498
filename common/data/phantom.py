"""The phantom collection: synthetic scans with known anatomy in several modalities, so that every command runs at once.

Three tasks with partial labels (``phantom_ct``, ``phantom_mr``, ``phantom_lge``) form the collection; beside it lie a
mixed-modality dataset for a task-agnostic expert (``<root>_general``) and 2-D images (``<root>_2d``).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..labels import LabelSpace
from .phantom_anatomy import STRUCTURES, Subject, sample
from .phantom_contrast import acquire
from .phantom_files import publish, write_json, write_nifti

__all__ = ["GENERAL", "SIZES", "TASKS", "Scan", "Task", "counts", "scan", "write_phantom"]

FORMAT = 1
SIZES = {"tiny": 2.1, "small": 1.0, "medium": 0.55}
"""Voxel size relative to ``small``."""
CASES = {"tiny": 4, "small": 6, "medium": 12}
PARTS = ("tasks", "general", "2d")
FOLDERS = {"training": "Tr", "validation": "Va", "test": "Ts", "unlabelled": "Un"}
CONTAINS = {"liver": ("liver", "liver tumour"), "myocardium": ("myocardium", "scar")}
"""A structure that is annotated without its lesion includes the lesion."""
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Task:
    """How one dataset of the phantom is scanned and annotated.

    Args:
        name: the dataset's name.
        description: one sentence.
        modality: the channel's name.
        looks: ``(region, contrast)`` of the cases in turn.
        labels: annotated structures; the position gives the label value.
        axcodes: axes on disk.
        spacing: mm at size ``small``, along right, anterior, superior.
        extent: field of view in mm, same axes.
    """

    name: str
    description: str
    modality: str
    looks: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]
    axcodes: str
    spacing: Vector
    extent: Vector


TASKS = (
    Task(
        name="phantom_ct",
        description="synthetic portal-venous abdominal CT; gallbladder and pancreas are visible but not annotated",
        modality="CT",
        looks=(("abdomen", "CT"),),
        labels=("liver", "spleen", "left kidney", "right kidney", "aorta", "liver tumour"),
        axcodes="LPS",
        spacing=(4.0, 4.0, 4.0),
        extent=(256.0, 192.0, 200.0),
    ),
    Task(
        name="phantom_mr",
        description="synthetic T2-weighted abdominal MR with thick slices; aorta and tumours are visible, not annotated",
        modality="T2 MR",
        looks=(("abdomen", "T2"),),
        labels=("spleen", "liver", "right kidney", "left kidney", "gallbladder"),
        axcodes="RAS",
        spacing=(3.8, 3.8, 6.4),
        extent=(256.0, 196.0, 204.0),
    ),
    Task(
        name="phantom_lge",
        description="synthetic late gadolinium enhancement MR of the heart; ventricles and liver are not annotated",
        modality="LGE MR",
        looks=(("thorax", "LGE"),),
        labels=("left atrium", "myocardium", "scar", "aorta"),
        axcodes="LIA",
        spacing=(3.4, 3.4, 3.8),
        extent=(200.0, 190.0, 160.0),
    ),
)
GENERAL = Task(
    name="phantom_general",
    description="synthetic CT and MR of abdomen and chest, annotated with what several tasks share",
    modality="CT or MR",
    looks=(("abdomen", "CT"), ("abdomen", "T2"), ("thorax", "LGE"), ("abdomen", "T1"), ("thorax", "CT"), ("thorax", "T2")),
    labels=("liver", "spleen", "left kidney", "right kidney", "aorta"),
    axcodes="RAS",
    spacing=(4.4, 4.4, 4.4),
    extent=(250.0, 194.0, 200.0),
)


@dataclass(frozen=True)
class Scan:
    """One acquired case: ``[X, Y, Z]`` image and label values along right, anterior, superior; mm."""

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    spacing: Vector
    origin: Vector


def counts(cases: int) -> dict[str, int]:
    """Cases per split for ``cases`` training cases; test and validation are smaller, at least one each."""
    if cases < 1:
        raise ConfigError("a phantom needs at least one training case", where="cases", got=cases, expected=">= 1")
    part = max(1, cases // 3)
    return {"training": cases, "validation": part, "test": max(1, cases // 2), "unlabelled": part}


def scan(task: Task, *, index: int, size: str = "small", seed: int = 0) -> Scan:
    """The ``index``-th case of a task; the same arguments give the same arrays.

    Every sixth subject is healthy (no tumour, no scar). Voxel size and number differ a little between subjects.

    Raises:
        ConfigError: for an unknown size.
    """
    if size not in SIZES:
        raise ConfigError("no such size", where="size", got=size, expected=", ".join(SIZES))
    key = (FORMAT, seed, zlib.crc32(task.name.encode()), index)
    region, contrast = task.looks[index % len(task.looks)]
    rng = np.random.default_rng((*key, 1))
    spacing = np.round(np.array(task.spacing) * SIZES[size] * rng.uniform(0.96, 1.04), 2)
    shape = np.maximum(np.rint(np.array(task.extent) * rng.uniform(0.97, 1.03, 3) / spacing), 16).astype(int)
    offset = np.round(rng.uniform(-6, 6, 3), 1)
    corner = offset - spacing * (shape - 1) / 2
    axes = [corner[i] + spacing[i] * np.arange(shape[i]) for i in range(3)]
    points = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")]).astype(np.float32)
    subject = Subject(region, (*key, 2), pathology=index % 6 != 5)
    tissue, structure = sample(subject, points)
    image = acquire(tissue.reshape(shape), points=points, contrast=contrast, rng=np.random.default_rng((*key, 3)))
    label = label_values(structure, task.labels).reshape(shape)
    table = np.round(rng.uniform(-80, 80, 3), 1)  # where the scanner's origin lies says nothing about the patient
    x, y, z = (float(v) for v in spacing)
    ox, oy, oz = (float(v) for v in np.round(corner + table, 3))
    return Scan(image, label, (x, y, z), (ox, oy, oz))


def label_values(structure: NDArray[np.uint8], labels: tuple[str, ...]) -> NDArray[np.uint8]:
    """Structure codes as the label values of a task; what it does not annotate becomes 0."""
    values = np.zeros(len(STRUCTURES) + 1, dtype=np.uint8)
    for value, name in enumerate(labels, start=1):
        parts = CONTAINS.get(name, (name,))
        values[[STRUCTURES.index(p) + 1 for p in parts if p == name or p not in labels]] = value
    return values[structure]


def write_phantom(
    root: str | Path,
    size: str = "small",
    seed: int = 0,
    cases: int | None = None,
    *,
    parts: tuple[str, ...] = PARTS,
    preview: bool | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write the collection at ``root`` and its neighbours ``<root>_general`` and ``<root>_2d``.

    What is complete already is left alone; what was interrupted is written again. The same arguments give the same
    bytes.

    Args:
        root: the collection's folder.
        size: ``tiny`` (about 24-32 voxels per axis), ``small`` (48-64) or ``medium`` (96-128).
        seed: another seed gives other subjects.
        cases: training cases per dataset; 4, 6 or 12 by size when omitted. Others follow, see :func:`counts`.
        parts: which of ``tasks``, ``general``, ``2d`` to write.
        preview: also draw ``preview.png`` into each folder; by default not at size ``tiny``.
        overwrite: replace a phantom of other parameters.
        progress: called with each case's id.

    Returns:
        The collection's folder.

    Raises:
        ConfigError: for an unknown size or part or no cases.
        DataError: when a folder holds something else.
    """
    from .phantom_flat import write_flat  # late: it needs this module's tasks

    root = Path(root)
    if size not in SIZES:
        raise ConfigError("no such size", where="size", got=size, expected=", ".join(SIZES))
    if not parts or set(parts) - set(PARTS):
        raise ConfigError("no such part of the phantom", where="parts", got=parts, expected=", ".join(PARTS))
    number = CASES[size] if cases is None else int(cases)
    draw = size != "tiny" if preview is None else preview
    common = {"format": FORMAT, "size": size, "seed": int(seed), "cases": counts(number), "preview": draw}
    report = progress or _silent

    def collection(folder: Path) -> None:
        for task in TASKS:
            write_task(folder / task.name, task, size=size, seed=seed, cases=number, progress=report)
        _draw(folder, [folder / t.name for t in TASKS], draw)

    def general(folder: Path) -> None:
        write_task(folder, GENERAL, size=size, seed=seed, cases=number, progress=report)
        _draw(folder, [folder], draw)

    def flat(folder: Path) -> None:
        write_flat(folder, size=size, seed=seed, cases=number, progress=report)
        _draw(folder, sorted(p.parent for p in folder.glob("*/dataset.json")), draw)

    writers = {"tasks": (root, collection), "general": (beside(root, "general"), general), "2d": (beside(root, "2d"), flat)}
    for part in parts:
        folder, write = writers[part]
        publish(folder, {"part": part, **common}, write, overwrite=overwrite)
    return root


def beside(root: Path, part: str) -> Path:
    """The neighbour folder of a collection: ``data/phantom`` and ``2d`` give ``data/phantom_2d``."""
    return root.with_name(f"{root.name}_{part}")


def _silent(_: str) -> None:
    """No progress."""


def _draw(folder: Path, datasets: list[Path], wanted: bool) -> None:
    if wanted:
        from .phantom_preview import contact_sheet

        contact_sheet(datasets, folder / "preview.png")


def numbered(name: str, cases: int) -> Iterator[tuple[str, int, str]]:
    """``(split, index, case id)`` over all splits of a dataset; the index runs through."""
    index = 0
    for split, number in counts(cases).items():
        for _ in range(number):
            yield split, index, f"{name}_{index:03d}"
            index += 1


def write_task(
    folder: Path, task: Task, *, size: str, seed: int, cases: int, progress: Callable[[str], None] = _silent
) -> None:
    """Write one dataset: ``dataset.json``, ``images{Tr,Va,Ts,Un}`` and ``labels{Tr,Va,Ts}``."""
    splits: dict[str, list[dict[str, str]]] = {split: [] for split in FOLDERS}
    for split, index, case in numbered(task.name.removeprefix("phantom_"), cases):
        one, end = scan(task, index=index, size=size, seed=seed), FOLDERS[split]
        entry = {"image": f"./images{end}/{case}_0000.nii.gz", "id": case, "subject": case}
        arrays: dict[str, NDArray[Any]] = {entry["image"]: one.image}
        if split != "unlabelled":
            entry["label"] = f"./labels{end}/{case}.nii.gz"
            arrays[entry["label"]] = one.label
        for path, array in arrays.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write_nifti(folder / path, array, spacing=one.spacing, origin=one.origin, axcodes=task.axcodes)
        splits[split].append(entry)
        progress(case)
    head = description(task.name, task.description, (task.modality,), task.labels, dim=3)
    write_json(folder / "dataset.json", {**head, **sizes(splits), **splits})


def sizes(splits: dict[str, list[dict[str, str]]]) -> dict[str, int]:
    """The ``numTraining``, ``numValidation``... entries."""
    return {f"num{split.capitalize()}": len(entries) for split, entries in splits.items()}


def description(name: str, text: str, channels: tuple[str, ...], labels: tuple[str, ...], *, dim: int) -> dict[str, Any]:
    """The head of a ``dataset.json``, readable as MSD's and as nnU-Net's."""
    named = {str(i): c for i, c in enumerate(channels)}
    return {
        "name": name,
        "description": text,
        "dim": dim,
        "tensorImageSize": f"{dim}D",
        "modality": named,
        "channel_names": named,
        "labels": LabelSpace(labels).to_json(),
        "file_ending": ".nii.gz" if dim == 3 else ".png",
        "licence": "CC0-1.0",
        "source": "computed by: python -m tools phantom",
        "release": f"{FORMAT}.0",
    }
