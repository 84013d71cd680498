"""Where the voxels of nnU-Net's arrays lie: an image of world coordinates is read back at its own places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation

from common.backbones.nnunet.data import NNUNetPreprocessd
from common.backbones.nnunet.grid import array_axcodes
from common.backbones.nnunet.plan import Plan
from common.geometry import Grid
from tests.nnunet_folders import tiny_plans

JSON = {"channel_names": {"0": "T1", "1": "x", "2": "x"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".gz"}


@pytest.mark.parametrize(("transpose", "axcodes"), [((0, 1, 2), "SAR"), ((1, 0, 2), "ASR"), ((2, 1, 0), "RAS")])
@pytest.mark.parametrize("spacing", [(1.0, 2.0, 1.0), (2.0, 2.0, 2.0)])
def test_the_affine_says_where_voxels_lie(
    transpose: tuple[int, int, int], axcodes: str, spacing: tuple[float, float, float]
) -> None:
    plan = Plan(tiny_plans(transpose=transpose, spacing=spacing, channels=3, norm="NoNormalization"), JSON,
                "3d_fullres", Path())  # fmt: skip
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = [5, -20, 30]
    shape = (12, 20, 16)
    index = np.stack([*np.meshgrid(*map(np.arange, shape), indexing="ij"), np.ones(shape)])
    world = np.einsum("ij,jxyz->ixyz", affine, index)[:3]
    world[:, :3] = world[:, :, -4:] = 0  # nnU-Net cuts it off
    image = Orientation(axcodes="RAS", labels=None)(MetaTensor(torch.from_numpy(world), affine=affine))
    done = NNUNetPreprocessd(plan=plan, label=None)({"image": image, "case": "c"})["image"]
    assert plan.axcodes == axcodes
    assert plan.spacing == pytest.approx([spacing[transpose.index(a)] for a in (2, 1, 0)])
    grid = Grid.of(done)
    assert grid.spacing == pytest.approx(spacing, rel=0.1)
    inner = np.stack([*np.meshgrid(*(np.arange(3, n - 3) for n in done.shape[1:]), indexing="ij")])
    places = np.einsum("ij,jxyz->ixyz", grid.affine[:3, :3], inner) + grid.affine[:3, 3, None, None, None]
    np.testing.assert_allclose(done.numpy()[:, inner[0], inner[1], inner[2]], places, atol=0.15)


def test_axes_of_scans_as_they_are_stay_unknown() -> None:
    assert array_axcodes(None, (0, 1, 2)) is None and array_axcodes("LPS", (2, 0, 1)) == "LSP"
