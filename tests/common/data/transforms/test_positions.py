import pytest
import torch
from monai.data import MetaTensor

from common.data.transforms.positions import ForegroundPositionsd
from common.errors import ConfigError


def test_all_voxels_of_small_structures_and_a_part_of_large_ones():
    label = torch.zeros(1, 12, 11, 10)
    label[0, 2:5, 3:6, 4:7] = 1
    label[0, 8, 8, 8] = 3
    found = ForegroundPositionsd(most=50)({"label": MetaTensor(label)})["positions"]
    assert sorted(found) == [0, 1, 3] and {k: len(v) for k, v in found.items()} == {0: 50, 1: 27, 3: 1}
    for structure, places in found.items():
        assert all(label[0, x, y, z] == structure for x, y, z in places.tolist())
        assert len({tuple(p) for p in places.tolist()}) == len(places)
    again = ForegroundPositionsd(most=50)({"label": label.clone()})["positions"]
    assert all(torch.equal(found[k], again[k]) for k in found)
    with pytest.raises(ConfigError, match="at least one"):
        ForegroundPositionsd(most=0)


def test_a_part_is_spread_over_the_structure():
    label = torch.ones(1, 30, 30, 30)
    places = ForegroundPositionsd(most=500)({"label": label})["positions"][1].float()
    assert ((places.mean(0) - 14.5).abs() < 1.5).all() and (places.std(0) > 7).all()


def test_a_case_without_a_label_map_may_pass():
    assert ForegroundPositionsd(allow_missing_keys=True)({"image": 1}) == {"image": 1}
    with pytest.raises(KeyError, match="label"):
        ForegroundPositionsd()({"image": 1})
