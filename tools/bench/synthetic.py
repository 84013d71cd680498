"""Synthetic scans of real sizes: noise with smooth structures, as hard to compress as real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import zoom

__all__ = ["CT", "MR", "PICTURE", "TINY", "Scan", "write_synthetic"]


class Scan(NamedTuple):
    """A kind of scan.

    Args:
        shape: voxels.
        spacing: mm.
        modality: name.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    modality: str


CT = Scan((512, 512, 150), (0.8, 0.8, 3.0), "CT")
MR = Scan((320, 320, 60), (1.2, 1.2, 4.0), "T2 MR")
TINY = Scan((72, 64, 40), (5.0, 5.0, 5.0), "CT")
PICTURE = Scan((600, 450), (1.0, 1.0), "dermoscopy")
STRUCTURES = {"liver": 1, "spleen": 2}


def write_synthetic(
    folder: Path, count: int, scans: Sequence[Scan], *, flat: bool = False, like: Path | None = None
) -> Path:
    """Write a data set of training cases.

    Args:
        folder: of the data set.
        count: cases.
        scans: their kinds, in turns.
        flat: pictures.
        like: a data set whose files are used again, by links.
    """
    entries = []
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    ending = ".png" if flat else ".nii.gz"
    for number in range(count):
        scan, name = scans[number % len(scans)], f"case_{number:03d}{ending}"
        if like is None:
            _write(folder, name, scan, number, flat=flat)
        else:
            for part in ("images", "labels"):
                (folder / part / name).symlink_to(like / part / f"case_{number % len(scans):03d}{ending}")
        entries.append({"image": f"images/{name}", "label": f"labels/{name}", "id": f"case_{number:03d}",
                        "modality": scan.modality})  # fmt: skip
    held = f"held_000{ending}"  # without a validation case of its own, a data set gives a part of its training cases
    for part in ("images", "labels"):
        (folder / part / held).symlink_to((folder / part / f"case_000{ending}").resolve())
    kept = {**entries[0], "image": f"images/{held}", "label": f"labels/{held}", "id": "held_000"}
    content: dict[str, Any] = {"name": "synthetic", "labels": {"background": 0, **STRUCTURES}, "training": entries,
                               "validation": [kept], "channel_names": {"0": "image"}}  # fmt: skip
    if flat:
        content |= {"dim": 2, "channel_names": {"0": "red", "1": "green", "2": "blue"}, "modality": scans[0].modality}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def _write(folder: Path, name: str, scan: Scan, seed: int, *, flat: bool) -> None:
    random = np.random.default_rng(seed)
    coarse = random.standard_normal([max(4, n // 24) for n in scan.shape])
    smooth = zoom(coarse, [n / c for n, c in zip(scan.shape, coarse.shape, strict=True)], order=1)
    label = ((smooth > 1.2) + 2 * (smooth < -1.4)).astype(np.uint8)
    noise = random.standard_normal(scan.shape, dtype=np.float32)
    if flat:
        picture = np.clip(128 + 40 * smooth[..., None] + 8 * noise[..., None], 0, 255).astype(np.uint8)
        Image.fromarray(np.repeat(picture, 3, axis=2).transpose(1, 0, 2)).save(folder / "images" / name)
        Image.fromarray(label.T.copy()).save(folder / "labels" / name)
        return
    image = (40 + 150 * smooth + 25 * noise + (300 if scan.modality != "CT" else 0)).astype(np.int16)
    _nifti(image, scan.spacing, folder / "images" / name)
    _nifti(label, scan.spacing, folder / "labels" / name)


def _nifti(values: NDArray[Any], spacing: Sequence[float], path: Path) -> None:
    image = nib.Nifti1Image(values, np.diag([*spacing, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.openers.Opener.default_compresslevel = 1
    nib.save(image, path)
