"""Scans and tiny nnU-Nets for the tests of answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation

from common.backbones.nnunet.network import describe_results, read_results_folder
from common.experts.answers.at_home import HomeNNUNet
from common.experts.spec import ExpertSpec

SHAPE = (26, 22, 20)


def scan(
    axcodes: str = "RAS", spacing: tuple[float, ...] = (1.0, 1.0, 1.0), channels: int = 1, smooth: int = 3
) -> MetaTensor:
    """Noise with one knot in ``smooth`` voxels, in a box of zeros, stored in this orientation."""
    noise = torch.randn(channels, *(n // smooth + 1 for n in SHAPE), generator=torch.Generator().manual_seed(0))
    body = 20 + 15 * torch.nn.functional.interpolate(noise[None], SHAPE, mode="trilinear")[0]
    body[:, :3], body[:, :, -2:] = 0, 0
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-10, 5, 30]
    return Orientation(axcodes=axcodes, labels=None)(MetaTensor(body, affine=torch.from_numpy(affine)))


def spec_of(folder: Path, orientation: str = "RAS") -> ExpertSpec:
    told = describe_results(read_results_folder(folder))
    told.pop("checkpoint")
    return ExpertSpec(name="e", kind="nnunet", path=str(folder), task="t", **{**told, "orientation": orientation})


def decided(folder: Path, given: MetaTensor, trained: str) -> Path:
    """Let a network with random weights prefer each class somewhere: no class has the larger bias."""
    logits = HomeNNUNet(spec_of(folder, trained), mirroring=False).answer(given).logits
    file = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    for name, value in checkpoint["network_weights"].items():
        if "seg_layers" in name and name.endswith("bias"):
            value -= logits.flatten(1).median(1).values
    torch.save(checkpoint, file)
    return folder
