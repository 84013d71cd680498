import torch

from common.data.prompts.places import StructurePlacesd


def test_size_and_start_of_each_structure():
    label = torch.zeros(1, 40, 40, 40)
    label[0, 10:14, 20:26, 30:32] = 1
    label[0, 5, 5, 5] = 3
    found = StructurePlacesd(8)({"label": label, "case": "c"})
    # middle of the bounding box: 11.5, 22.5, 30.5; half a voxel is rounded up
    assert found["places"] == {1: (48, 8, 19, 27), 3: (1, 1, 1, 1)} and found["case"] == "c"


def test_a_ring_around_the_crop_gets_its_nearest_voxel():
    label = torch.zeros(1, 40, 40, 40)
    label[0, 4:36, 4:36, 20] = 2
    label[0, 8:32, 8:32, 20] = 0
    (count, x, y, z) = StructurePlacesd(8)({"label": label})["places"][2]
    crop = label[0, max(x, 0) : x + 8, max(y, 0) : y + 8, z : z + 8]
    assert count == 32 * 32 - 24 * 24 and bool((crop == 2).any())
