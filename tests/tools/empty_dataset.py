"""Datasets that a plan can be made for: a scan per split, with nothing on it."""

import json
from pathlib import Path

import nibabel
import numpy as np


def empty_dataset(folder: Path, labels: dict[str, int]) -> Path:
    """A dataset called as its folder, on CT, with one labelled case in each split."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    entries = []
    for number in range(3):
        name = f"{folder.name}_{number}.nii.gz"
        for part in ("imagesTr", "labelsTr"):
            nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), folder / part / name)
        entries.append({"image": f"imagesTr/{name}", "label": f"labelsTr/{name}", "id": f"{folder.name}_{number}"})
    description = {"name": folder.name, "channel_names": {"0": "CT"}, "labels": {"background": 0, **labels}}
    description |= {"training": entries[:1], "validation": entries[1:2], "test": entries[2:]}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder
