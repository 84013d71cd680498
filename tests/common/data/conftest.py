"""Small files for the data tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

SHAPE = (6, 7, 8)


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


@pytest.fixture
def nifti() -> Callable[..., Path]:
    return write_nifti


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """``make_dataset(name="d", cases=3, ...)`` writes a dataset of random scans with values 1 and 5."""

    def make(name: str = "d", cases: int = 3, labels: dict[str, int] | None = None, **changes: Any) -> Path:
        folder = tmp_path / name
        labels = {"background": 0, "liver": 1, "spleen": 5} if labels is None else labels
        rng = np.random.default_rng(len(name) + cases)
        data = {"name": name, "modality": {"0": "CT"}, "labels": labels, "training": [], "validation": []}
        for i in range(cases):
            image = rng.normal(0, 200, SHAPE).astype(np.float32)
            label = rng.choice([0, *labels.values()], SHAPE).astype(np.uint8)
            write_nifti(folder / "images" / f"c{i}_0000.nii.gz", image)
            write_nifti(folder / "labels" / f"c{i}.nii.gz", label)
            entry = {"image": f"images/c{i}_0000.nii.gz", "label": f"labels/c{i}.nii.gz"}
            data["validation" if i == cases - 1 else "training"].append(entry)
        data.update(changes)
        (folder / "dataset.json").write_text(json.dumps(data))
        return folder

    return make


@pytest.fixture
def edit_json() -> Callable[..., None]:
    """``edit_json(folder, change)`` applies ``change(data)`` to ``dataset.json``."""

    def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
        file = folder / "dataset.json"
        data = json.loads(file.read_text())
        change(data)
        file.write_text(json.dumps(data))

    return edit
