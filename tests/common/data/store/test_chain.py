import json

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd, RandFlipd, ScaleIntensityRanged, SpatialPadd

from common.data.intensity.volume import NormalizePercentiled, VolumeStatsd
from common.data.store.chain import chain_json, digest, names
from common.data.transforms.loading import LoadCased


def chain(**options):
    return Compose([LoadCased(("image", "label")), Orientationd(("image", "label"), "RAS", labels=None),
                    VolumeStatsd(), NormalizePercentiled("image", **options)])  # fmt: skip


def key(value):
    return digest(chain_json(value))


def test_equal_chains_are_equal_and_any_setting_counts():
    assert key(chain()) == key(chain())
    others = [chain(lower=1.0), Compose(chain().transforms[:3]), Compose(list(reversed(chain().transforms)))]
    assert len({key(c) for c in [chain(), *others]}) == 4


def test_random_states_do_not_count_and_arrays_do():
    flip = RandFlipd("image", prob=0.5)
    before = key(flip)
    flip.set_random_state(7)
    assert key(flip) == before
    scales = [ScaleIntensityRanged("image", 0, 1, 0, b) for b in (1.0, 2.0)]
    assert key(scales[0]) != key(scales[1])
    holder = [type("Table", (), {})() for _ in range(3)]
    for h, v in zip(holder, (torch.zeros(3), torch.ones(3), np.zeros(3, np.float32))):
        h.table = v
    assert len({key(h) for h in holder[:2]}) == 2


def test_using_a_chain_does_not_change_it():
    used = Compose([Orientationd("image", "LPS", labels=None), SpatialPadd("image", (9, 9, 9))])
    before = key(used)
    used({"image": MetaTensor(torch.rand(1, 4, 5, 6))})
    assert key(used) == before


def test_versions_and_our_own_code_count():
    found = chain_json(chain())
    assert {"monai", "torch", "numpy", "nibabel", "SimpleITK", "pydicom", "pillow"} <= found["libraries"].keys()
    assert "common.data.intensity.volume" in found["code"]
    readers = {"io", "pictures", "volumes.nifti", "volumes.simple_itk", "dicom.series", "dicom.slices", "dicom.pixels"}
    assert {f"common.data.{name}" for name in readers} <= found["code"].keys()
    changed = json.loads(json.dumps(found))
    changed["libraries"]["monai"] = "0.0"
    assert digest(changed) != digest(found)
    assert names(found) == ["LoadCased", "Orientationd", "VolumeStatsd", "NormalizePercentiled"]


def test_objects_that_hold_themselves_end():
    first, second = [], {}
    first.append(second)
    second["first"] = first
    assert digest(chain_json(first))


def test_the_order_of_sets_and_mappings_does_not_count():
    one, other = set([0, 8]), set([8, 0])  # noqa: C405
    assert list(one) != list(other)
    assert key({"a": one, "b": 1}) == key({"b": 1, "a": other})
