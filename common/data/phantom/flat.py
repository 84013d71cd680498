"""The phantom's 2-D images: CT and MR slices (grey, multi-class) and skin lesions (colour, binary)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ...errors import ConfigError
from .anatomy import Subject, sample
from .contrast import acquire
from .files import write_json, write_png
from .layout import FOLDERS, Entries, numbered, paths, write_dataset
from .shapes import Points, Waves
from .tasks import label_values

__all__ = ["FLAT", "PIXELS", "Flat", "picture"]

PIXELS = {"tiny": 64, "small": 128, "medium": 256}
SLICES = 3
# Pictures of one subject.


@dataclass(frozen=True)
class Flat:
    """One 2-D dataset; ``contrast`` is a scan's, or ``skin`` for colour photographs."""

    name: str
    description: str
    contrast: str
    channels: tuple[str, ...]
    labels: tuple[str, ...]


FLAT = (
    Flat(
        "phantom_2d_ct",
        "synthetic abdominal CT slices, windowed to 8 bits",
        "CT",
        ("CT slice",),
        ("liver", "spleen", "left kidney", "right kidney", "aorta", "liver tumour"),
    ),
    Flat(
        "phantom_2d_mr",
        "synthetic T2-weighted abdominal MR slices, 8 bits",
        "T2",
        ("T2 MR slice",),
        ("spleen", "liver", "right kidney", "left kidney", "gallbladder"),
    ),
    Flat("phantom_2d_skin", "synthetic dermoscopy with hairs and freckles", "skin", ("R", "G", "B"), ("lesion",)),
)


def picture(
    flat: Flat, *, subject: int, index: int, size: str = "small", seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image ``[H, W]`` or ``[H, W, 3]`` and label values ``[H, W]`` of a subject's ``index``-th picture.

    Raises:
        ConfigError: for an unknown size.
    """
    if size not in PIXELS:
        raise ConfigError("no such size", where="size", got=size, expected=", ".join(PIXELS))
    key = (seed, zlib.crc32(flat.name.encode()), subject)
    make = _skin if flat.contrast == "skin" else _slice
    image, label = make(flat, key, index, PIXELS[size])
    return image, label


def _slice(flat: Flat, key: tuple[int, ...], index: int, pixels: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng((*key, 1, index))
    z = (-22.0, 6.0, 34.0)[index % SLICES] + rng.uniform(-10, 10)
    width = rng.uniform(248, 262)
    side = np.linspace(-width / 2, width / 2, pixels)
    x, y = np.meshgrid(side, side, indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), np.full(x.size, z)]).astype(np.float32)
    tissue, structure = sample(Subject("abdomen", (*key, 2)), points)
    scanned = acquire(
        tissue.reshape(pixels, pixels, 1), points=points, contrast=flat.contrast, rng=rng, blur=(0.7, 0.7, 0.0)
    )[..., 0]
    low, high = (-160.0, 280.0) if flat.contrast == "CT" else np.percentile(scanned, (0.5, 98.5))
    image = np.clip((scanned - low) / max(high - low, 1.0) * 255, 0, 255).astype(np.uint8)
    label = label_values(structure, flat.labels).reshape(pixels, pixels)
    return _displayed(image), _displayed(label)


def _displayed(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``[X, Y]`` to rows from anterior to posterior and columns from the patient's right to left."""
    return np.ascontiguousarray(array.T[::-1, ::-1])


def _skin(flat: Flat, key: tuple[int, ...], index: int, pixels: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng((*key, index))
    side = np.linspace(-1, 1, pixels)
    y, x = np.meshgrid(side, side, indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)]).astype(np.float32) * 100
    base = np.array([222, 168, 146]) + rng.normal(0, 7, 3) + rng.normal(0, 14)
    shade = Waves.draw(rng, count=5, wavelength=(80, 260), amplitude=0.05)(points).reshape(x.shape)
    image = base * (1 + shade[..., None]) * (1 - rng.uniform(0.05, 0.25) * (x**2 + y**2))[..., None]
    for _ in range(int(rng.integers(3, 9))):
        image = _spot(image, points, rng, centre=rng.uniform(-0.9, 0.9, 2), radius=float(rng.uniform(0.02, 0.07)))[0]
    centre, radius = rng.uniform(-0.3, 0.3, 2), float(rng.uniform(0.22, 0.52))
    image, field = _spot(image, points, rng, centre=centre, radius=radius)
    for _ in range(int(rng.integers(2, 9))):
        image = _hair(image, x, y, rng)
    image = gaussian_filter(image, (0.6, 0.6, 0)) + rng.normal(0, 5, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), (field < 0).astype(np.uint8)


def _spot(
    image: NDArray[Any], points: Points, rng: np.random.Generator, *, centre: NDArray[Any], radius: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A pigmented spot with an irregular, soft border; returns the picture and the spot's field."""
    shape = image.shape[:2]
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(0.65, 1.0)
    dx, dy = points[0] / 100 - centre[0], points[1] / 100 - centre[1]
    u, v = dx * np.cos(turn) + dy * np.sin(turn), (dy * np.cos(turn) - dx * np.sin(turn)) / stretch
    border = Waves.draw(rng, count=6, wavelength=(60 * radius + 6, 240 * radius + 10), amplitude=0.10 * radius)
    field = (np.hypot(u, v) - radius + border(points)).reshape(shape)
    colour = np.array([128, 78, 58]) + rng.normal(0, 16) + rng.normal(0, 8, 3)
    inner = Waves.draw(rng, count=6, wavelength=(15, 70), amplitude=0.16)(points).reshape(shape)
    strength = float(rng.uniform(0.45, 0.95)) / (1 + np.exp(field / rng.uniform(0.012, 0.035)))
    weight = strength[..., None]
    return image * (1 - weight) + colour * (1 + inner[..., None]) * weight, field


def _hair(image: NDArray[Any], x: NDArray[Any], y: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """One thin dark curve across the picture."""
    turn, offset, bend = rng.uniform(0, np.pi), rng.uniform(-0.8, 0.8), rng.uniform(-0.4, 0.4)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    distance = np.abs(across - offset - bend * along**2)
    weight = (0.75 * np.exp(-((distance / 0.012) ** 2)) * (np.abs(along) < rng.uniform(0.4, 1.2)))[..., None]
    drawn: NDArray[Any] = image * (1 - weight) + np.array([60, 44, 40]) * weight
    return drawn


def write_flat(folder: Path, *, size: str, seed: int, cases: int, progress: Callable[[str], None]) -> None:
    """Write the 2-D datasets: ``cases`` training subjects each with :data:`SLICES` pictures.

    ``collection.json`` unites the grey ones; the colour one has other channels and is used on its own.
    """
    grey = [flat.name for flat in FLAT if len(flat.channels) == 1]
    write_json(folder / "collection.json", {"name": "phantom_2d", "datasets": grey})
    for flat in FLAT:
        root = folder / flat.name
        entries: Entries = {split: [] for split in FOLDERS}
        for split, number, subject in numbered(flat.name.removeprefix("phantom_2d_"), cases):
            for index in range(SLICES):
                image, label = picture(flat, subject=number, index=index, size=size, seed=seed)
                entry = paths(root, f"{subject}_{index}", split, ".png")
                for kind, path in entry.items():
                    write_png(root / path, image if kind == "image" else label)
                entries[split].append({**entry, "id": f"{subject}_{index}", "subject": subject})
            progress(subject)
        write_dataset(
            root,
            entries,
            name=flat.name,
            description=flat.description,
            channels=flat.channels,
            labels=flat.labels,
            dim=2,
        )
