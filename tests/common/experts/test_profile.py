"""Home profiles: strictly read, and a scan is handed to nnU-Net as the program does."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import zoom

from common.errors import ExpertError
from common.experts.profile import HomeProfile
from common.geometry import Grid

PROFILE: dict[str, Any] = {"program": "p", "version": "2", "orientation": "RAS", "spacing": [1.5, 1.5, 1.5]}


@pytest.mark.parametrize(
    "wrong",
    [{"program": "$x"}, {"version": 2}, {"version": "../2"}, {"orientation": "ras"}, {"orientation": "RRS"},
     {"spacing": [1, 1]}, {"spacing": [1, 1, 0]}, {"spacing": [1, 1, float("nan")]}, {"spacing": "123"},
     {"order": 6}, {"order": 1.0}, {"order": True}, {"whole_numbers": 1}, {"tile_step": 0}, {"tile_step": 1.1},
     {"tile_step": 0.049}, {"spacing": [0.009, 1, 1]},
     {"spacing": [10**400, 1, 1]}, {"tile_step": 10**400}, {"tile_step": float("inf")},
     {"mirroring": "false"}, {"resampler": "os.system"}],
)  # fmt: skip
def test_wrong_entries_are_refused(wrong: dict[str, Any]) -> None:
    assert HomeProfile.from_dict(PROFILE).to_dict() == HomeProfile(**PROFILE).to_dict()
    with pytest.raises(ExpertError, match=r"home profile|not a valid|profile's"):
        HomeProfile.from_dict({**PROFILE, **wrong})
    for missing in ("program", "version", "orientation"):
        with pytest.raises(ExpertError, match=f"missing: {missing}"):
            HomeProfile.from_dict({k: v for k, v in PROFILE.items() if k != missing})


def test_a_scan_is_resampled_as_the_program_does_and_stays_in_its_place() -> None:
    """A ramp in world coordinates is the same ramp afterwards, at the places that the new grid names."""
    affine = np.diag([0.8, 1.1, 4.0, 1.0])
    affine[:3, 3] = [-7, 3, 20]
    grid = Grid((31, 24, 12), affine)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
    ramp = (index @ affine[:3, :3].T + affine[:3, 3]) @ np.array([2.0, -1.0, 0.5])
    profile = HomeProfile(**PROFILE)
    volume, there, spacing = profile.resampled(ramp[None].astype(np.float32), grid)
    assert spacing == (1.5, 1.5, 1.5) and volume.shape[1:] == there.shape == (17, 18, 32)
    assert np.allclose(volume[0], zoom(ramp, [0.8 / 1.5, 1.1 / 1.5, 4 / 1.5], order=3), atol=1e-2)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in there.shape), indexing="ij"), -1)
    told = (index @ there.affine[:3, :3].T + there.affine[:3, 3]) @ np.array([2.0, -1.0, 0.5])
    assert np.abs(volume[0] - told)[3:-3, 3:-3, 3:-3].max() < 0.2
    assert np.allclose(there.corners(), grid.corners(), atol=1e-6)  # from first to last centre


def test_whole_numbers_are_cut_towards_zero_and_without_a_spacing_nothing_is_done() -> None:
    grid = Grid((8, 8, 8), np.eye(4))
    noise = 50 * np.random.default_rng(0).standard_normal((1, 8, 8, 8)).astype(np.float32)
    plain, *_ = HomeProfile(**PROFILE).resampled(noise, grid)
    cut, *_ = HomeProfile(**PROFILE, whole_numbers=True).resampled(noise, grid)
    assert np.array_equal(cut, np.trunc(plain)) and not np.array_equal(cut, plain)
    same, there, spacing = HomeProfile(**{**PROFILE, "spacing": None}).resampled(noise, grid)
    assert same is noise and there is grid and spacing == grid.spacing


@pytest.mark.parametrize("spacing", [(100.0, 1.0, 1.0), (0.01, 0.01, 0.01)])
def test_a_scan_is_not_resampled_to_nothing_nor_without_end(spacing):
    profile = HomeProfile("p", "1", "RAS", spacing)
    grid = Grid((20, 20, 20), np.eye(4))
    with pytest.raises(ExpertError, match="resampled as") as caught:
        profile.resampled(np.zeros((1, 20, 20, 20), np.float32), grid, where="expert a, scan b")
    assert caught.value.where == "expert a, scan b"


def test_what_a_machine_does_not_hold_is_refused(monkeypatch):
    volume = np.zeros((3, 20, 20, 20), np.float32)
    monkeypatch.setattr(os, "sysconf", lambda _: 400)  # a machine of 160,000 bytes
    with pytest.raises(ExpertError, match="this machine holds"):
        HomeProfile("p", "1", "RAS", (1.0, 1.0, 1.0)).resampled(volume, Grid((20, 20, 20), np.eye(4)))
    assert HomeProfile("p", "1", "RAS", (2.0, 2.0, 2.0)).resampled(volume, Grid((20, 20, 20), np.eye(4)))[0].any() == 0
