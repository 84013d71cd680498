"""The volume behind a session: its own grid, crops, and the way back to the scan."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.engine.interactive.encoded_volume import NOTHING, Block, EncodedVolume
from common.engine.interactive.promptable import low_res_size
from common.errors import GeometryError

Build = Callable[..., Any]


def volume(
    growing: Build, shape: tuple[int, ...] = (20, 24, 18), spacing: float = 1.5, **options: Any
) -> EncodedVolume:
    affine = torch.diag(torch.tensor([spacing] * 3 + [1.0], dtype=torch.float64))
    image = MetaTensor(torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)), affine=affine)
    return EncodedVolume(network=growing(), image=image, **options)


def test_crops_leave_the_volume_as_zeros(growing: Build) -> None:
    one = volume(growing)
    one.embedding((-5, 2, 3))
    crop = torch.zeros(32, 32, 32)
    crop[5:25, :22, :15] = one.volume[0, :20, 2:, 3:]
    positive = crop[crop > 0]
    expected = (crop - positive.mean()) / positive.std()
    assert torch.allclose(one.network.encoded[0][0, 0], expected, atol=1e-5)


def test_least_recently_used_goes_first(growing: Build) -> None:
    one = volume(growing, cache=2)
    for start in ((0, 0, 0), (1, 0, 0), (0, 0, 0), (2, 0, 0)):
        one.embedding(start)
    assert one.encoded == ((0, 0, 0), (2, 0, 0)) and one.encodings == 3


def test_blocks_on_the_whole_grid(growing: Build) -> None:
    one = volume(growing)
    full = one.full(Block((-1, 20, 3), torch.ones(4, 8, 2)), -7.0)
    assert full.shape == one.shape and set(full.unique().tolist()) == {-7.0, 1.0}
    assert int((full > 0).sum()) == 3 * 4 * 2 and bool((full[:3, 20:, 3:5] == 1).all())


def test_a_grid_like_the_networks_is_copied(growing: Build) -> None:
    one = volume(growing)
    values = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(1)) + 0.5
    back = one.to_given(Block((3, 4, 5), values))
    assert back is not None
    whole = torch.full(one.shape, NOTHING)
    x, y, z = (slice(a, a + n) for a, n in zip(back.start, back.values.shape, strict=True))
    whole[x, y, z] = back.values
    assert torch.allclose(whole[3:9, 4:9, 5:9][values > 0], values[values > 0], atol=1e-5)
    whole[3:9, 4:9, 5:9] = NOTHING
    assert bool((whole <= 0).all())


def test_what_lies_beside_the_scan_does_not_come_back(growing: Build) -> None:
    one = volume(growing)
    assert one.to_given(Block((0, 0, 0), -torch.ones(4, 4, 4))) is None
    assert one.to_given(Block((40, 0, 0), torch.ones(4, 4, 4))) is None
    edge = one.to_given(Block((18, 0, 0), torch.ones(4, 4, 4)))
    assert edge is not None and edge.start[0] >= 17 and edge.start[0] + edge.values.shape[0] == 20


@pytest.mark.parametrize("shape", [(20, 24, 1), (1, 9, 9)])
def test_a_single_slice(growing: Build, shape: tuple[int, ...]) -> None:
    one = volume(growing, shape)
    assert one.shape == shape
    back = one.to_given(Block((0, 0, 0), torch.ones(shape)))
    assert back is not None and tuple(back.values.shape) == shape and bool((back.values > 0).all())


def test_points_move_by_the_affines(growing: Build) -> None:
    one = volume(growing, spacing=0.5)
    inner = one.to_inner(np.array([[3.0, 6.0, 9.0]]))
    np.testing.assert_allclose(inner, [[1.0, 2.0, 3.0]], atol=1e-6)
    assert low_res_size(torch.zeros(1, 2, 8, 8, 8)) == 32


def test_an_impossible_grid(growing: Build) -> None:
    image = MetaTensor(torch.rand(1, 5, 5, 5), affine=torch.zeros(4, 4))
    with pytest.raises(GeometryError, match="affine"):
        EncodedVolume(network=growing(), image=image)
