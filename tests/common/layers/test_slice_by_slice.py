"""Volumes go through a network slice by slice, whatever the number of slices in a pass."""

import pytest
import torch
from monai.data import MetaTensor

from common.errors import ConfigError
from common.layers.slice_by_slice import slice_by_slice


def _scaled(image, factor):
    return torch.cat([image, image * factor.view(-1, 1, 1, 1)], 1)


@pytest.mark.parametrize("slices", [1, 3, 100])
def test_every_slice_meets_its_own_volumes_id(slices):
    volume, factor = torch.randn(2, 1, 4, 5, 6), torch.tensor([2.0, -1.0])
    found = slice_by_slice(volume, slices, (factor,), _scaled)
    assert torch.equal(found, torch.cat([volume, volume * factor.view(2, 1, 1, 1, 1)], 1))


def test_metadata_of_a_volume_does_not_follow_its_slices():
    volume = MetaTensor(torch.randn(1, 1, 4, 5, 6))
    seen = []
    found = slice_by_slice(volume, 4, (), lambda image: seen.append(type(image)) or image)
    assert set(seen) == {torch.Tensor} and torch.equal(found, volume.as_tensor())


def test_a_slice_is_no_volume():
    with pytest.raises(ConfigError, match="cut from volumes"):
        slice_by_slice(torch.zeros(1, 1, 4, 4), 1, (), lambda image: image)
