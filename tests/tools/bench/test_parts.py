"""The five nnU-Nets in TotalSegmentator's layout are read as its own, and one student knows all that they know."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from common.experts.answers.at_home import HomeNNUNet
from common.experts.profile import HomeProfile
from common.weights import read_card
from tests.common.experts.answers.nnunets import scan
from tools.amalgamate.described import Told, read_experts
from tools.bench.parts import PROFILE, Size, write_ct, write_one, write_parts

TINY = Size(4, 16, 3, 1)


def test_the_layout_is_totalsegmentators(tmp_path: Path) -> None:
    folders = write_parts(tmp_path, TINY)
    assert [f.parent.name[:10] for f in folders] == [f"Dataset{n}" for n in range(291, 296)]
    assert {f.name for f in folders} == {"nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres"}
    specs = read_experts(folders, told=Told(profile=PROFILE))
    assert [len(s.labels) for s in specs] == [24, 26, 18, 23, 26]
    profile = HomeProfile.of(specs[2])
    assert profile is not None and (profile.tile_step, profile.mirroring) == (0.8, False)
    given = scan(spacing=(1.5, 1.5, 1.5))
    found = HomeNNUNet(specs[2]).segmented(given)
    assert found.shape == (1, *given.shape[1:]) and int(found.max()) <= 18 and len(found.unique()) > 1
    assert np.allclose(found.affine, given.affine)
    judged = HomeNNUNet(specs[2]).judge(given).numpy().argmax(0)  # of the box that nnU-Net looked at
    inside = found.numpy()[0][3:, :-2]
    assert np.array_equal(inside, judged) and not found[0, :3].any() and not found[0, :, -2:].any()


def test_the_student_knows_all(tmp_path: Path) -> None:
    card = read_card(write_one(tmp_path / "model.pt", TINY))
    assert card is not None and len(card.labels) == 117 and card.extra["settings"]["turned"] == "RAS"
    assert len(card.extra["contract"]["taught"]["CT"]) == 117


def test_the_ct_has_a_body_in_air(tmp_path: Path) -> None:
    image = nib.load(write_ct(tmp_path / "a" / "ct.nii.gz", (40, 36, 32)))
    voxels = np.asarray(image.dataobj)  # type: ignore[attr-defined]
    assert voxels.shape == (40, 36, 32) and voxels.dtype == np.int16 and image.header.get_zooms() == (1.5, 1.5, 1.5)  # type: ignore[attr-defined]
    assert (voxels[0] == -1000).all() and -300 < voxels[20, 18].mean() < 300
