"""The phantom's 3-D datasets: how each is scanned and annotated, and its cases."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from .anatomy import Subject, sample
from .body import STRUCTURES
from .contrast import acquire

__all__ = ["GENERAL", "SIZES", "TASKS", "Scan", "Task", "label_values", "scan"]

FORMAT = 3
# Goes up when the same arguments give other files, so that older phantoms are written again.
SERIES = 1
# Part of every subject's seed.
SIZES = {"tiny": 2.1, "small": 1.0, "medium": 0.55}
# Voxel size relative to ``small``.
CONTAINS = {"liver": ("liver", "liver tumour"), "myocardium": ("myocardium", "scar")}
# A structure that is annotated without its lesion includes the lesion.
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
        description="synthetic T2-weighted abdominal MR with thick slices; aorta and tumours are not annotated",
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
        extent=(200.0, 190.0, 172.0),
    ),
)
GENERAL = Task(
    name="phantom_general",
    description="synthetic CT and MR of abdomen and chest, annotated with what several tasks share",
    modality="CT or MR",
    looks=(
        ("abdomen", "CT"),
        ("abdomen", "T2"),
        ("thorax", "LGE"),
        ("abdomen", "T1"),
        ("thorax", "CT"),
        ("thorax", "T2"),
    ),
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


def scan(task: Task, *, index: int, size: str = "small", seed: int = 0) -> Scan:
    """The ``index``-th case of a task; the same arguments give the same arrays.

    Every sixth subject is healthy (no tumour, no scar). Voxel size and number differ a little between subjects.

    Raises:
        ConfigError: for an unknown size.
    """
    if size not in SIZES:
        raise ConfigError("no such size", where="size", got=size, expected=", ".join(SIZES))
    key = (SERIES, seed, zlib.crc32(task.name.encode()), index)
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
