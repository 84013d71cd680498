"""Windows anywhere over a volume, and the z-score of positive voxels."""

import numpy as np
import pytest
import torch

from common.data.prompts.crops import crop_at, start_around, z_score_positive
from common.errors import DataError


@pytest.mark.parametrize("start", [(0, 0, 0), (-3, 2, 4), (5, -7, 6), (9, 7, -1), (2, 1, 1)])
@pytest.mark.parametrize("size", [4, 8])
def test_a_window_holds_the_voxels_it_covers(start: tuple[int, int, int], size: int) -> None:
    volume = torch.arange(2 * 10 * 8 * 7.0).reshape(2, 10, 8, 7) + 1
    expected = np.full((2, size, size, size), -5.0)
    for i, j, k in np.ndindex(size, size, size):
        at = (i + start[0], j + start[1], k + start[2])
        if all(0 <= a < n for a, n in zip(at, (10, 8, 7), strict=True)):
            expected[:, i, j, k] = volume[(slice(None), *at)]
    if (expected == -5).all():
        with pytest.raises(DataError, match="outside the volume"):
            crop_at(volume, start, size, fill=-5)
        return
    assert np.array_equal(crop_at(volume, start, size, fill=-5).numpy(), expected)


def test_a_window_is_its_own_memory() -> None:
    volume = torch.ones(1, 4, 4, 4)
    crop_at(volume, (0, 0, 0), 4).zero_()
    assert volume.all()


def test_centre() -> None:
    assert start_around((10, 10.4, 9.5), 8) == (6, 6, 6)
    assert start_around(torch.tensor([0.0, -0.6, 3.0]), 7) == (-3, -4, 0)


def test_refusals() -> None:
    with pytest.raises(DataError, match="cut from volumes"):
        crop_at(torch.zeros(4, 4, 4), (0, 0, 0), 2)
    with pytest.raises(DataError, match="outside the volume"):
        crop_at(torch.zeros(1, 4, 4, 4), (4, 0, 0), 2)


def test_z_score_counts_positive_voxels_only() -> None:
    crop = torch.randn(2, 1, 5, 5, 5) * 40 + 10
    done = z_score_positive(crop)
    for b in range(2):
        x = crop[b, 0].double().numpy()
        positive = x[x > 0]
        expected = (x - positive.mean()) / positive.std(ddof=1)
        np.testing.assert_allclose(done[b, 0].numpy(), expected, atol=1e-4)


def test_z_score_without_contrast() -> None:
    negative = -torch.arange(27.0).reshape(1, 3, 3, 3)
    assert torch.allclose(z_score_positive(negative), (negative - negative.mean()) / negative.std())
    assert not z_score_positive(torch.zeros(1, 3, 3, 3)).any()
    assert not z_score_positive(torch.full((1, 3, 3, 3), 7.0)).any()
