"""Scans whose structures have an intensity of their own, and experts that know it: nobody has to train one."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor, nn

from common.experts.expert_set import hash_expert
from common.experts.spec import ExpertSpec
from common.labels import LabelSpace

VALUES = {"liver": 100.0, "spleen": 200.0, "aorta": 300.0}
SHAPE = (28, 24, 20)


class Thresholds(nn.Module):
    """Logits by distance from each structure's intensity; what is far from all of them is background."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.encoder = nn.Identity()
        self.register_buffer("values", torch.tensor(values).view(1, -1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        near = 6 - (self.encoder(x) - self.values).abs() / 4
        return torch.cat([torch.zeros_like(near[:, :1]), near], 1)


def expert(folder: Path, name: str, *names: str, value: float | None = None, **given) -> ExpertSpec:
    """A TorchScript expert of some structures; what it does not know is not near any of its intensities."""
    file = folder / f"{name}.ts"
    values = [VALUES[n] if value is None else value for n in names]
    torch.jit.script(Thresholds(values)).save(str(file))
    extra = {"divisor": 1, "normalise": {"scheme": "none"}}
    fields = {"role": "external", "channels": ("CT",), "extra": extra, "features": "encoder", "orientation": "RAS"}
    spec = ExpertSpec(name=name, kind="torchscript", path=file, labels=LabelSpace(names), **{**fields, **given})
    return ExpertSpec(**{**spec.__dict__, "sha256": hash_expert(spec)})


def dataset(root: Path, name: str = "easy", *, training: int = 2, unlabelled: int = 2, channel: str = "CT") -> Path:
    """A dataset of one task; ``spleen`` is in every scan, ``liver`` in all but the last."""
    folder, entries = root / name, {"training": [], "unlabelled": [], "validation": []}
    (folder / "images").mkdir(parents=True)
    for number in range(training + unlabelled):
        rng = np.random.default_rng(number)
        label = np.zeros(SHAPE, np.uint8)
        x, y = rng.integers(3, 9, 2)
        if number < training + unlabelled - 1 or unlabelled == 0:
            label[x : x + 9, y : y + 8, 4:10] = 1
        label[16:24, y : y + 7, 9:17] = 2
        image = np.array([0.0, *VALUES.values()])[label] + rng.normal(0, 4, SHAPE)
        affine = np.diag([-2.0, 2.0, 2.0, 1.0])  # stored as LAS
        for kind, values in (("image", image.astype(np.float32)), ("label", label)):
            nib.save(nib.Nifti1Image(values, affine), folder / "images" / f"{number}_{kind}.nii.gz")
        entry = {"image": f"images/{number}_image.nii.gz", "id": f"{name}_{number}"}
        if number < training:
            entry["label"] = f"images/{number}_label.nii.gz"
        entries["training" if number < training else "unlabelled"].append(entry)
    entries["validation"] = entries["training"][:1] if training else []
    if training > 1:
        entries["training"] = entries["training"][1:]
    labels = {"background": 0, **{n: i for i, n in enumerate(VALUES, 1)}}
    about = {"name": name, "channel_names": {"0": channel}, "labels": labels, **entries}
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder
