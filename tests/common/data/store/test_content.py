import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd, SpatialPadd

from common.data.store.content import decoded, encoded
from common.errors import DataError


def through(value):
    arrays = []

    def keep(array):
        arrays.append(array)
        return len(arrays) - 1

    text = json.loads(json.dumps(encoded(value, keep)))
    return decoded(text, lambda number, found: arrays[number]), arrays


def test_plain_values_come_back_as_they_were():
    value = {"a": [1, 2.5, None, True, "ü"], "b": (1, ("x", {3: 4})), 7: np.float64(0.5), "none": float("inf")}
    found, arrays = through(value)
    assert found == value and isinstance(found["b"], tuple) and not arrays


def test_small_arrays_are_exact_and_large_ones_go_to_files():
    small, large = torch.randn(6, dtype=torch.float64), np.zeros((70, 70), np.int16)
    found, arrays = through({"small": small, "large": large, "bool": torch.tensor([True, False])})
    assert torch.equal(found["small"], small) and found["small"].dtype == torch.float64
    assert len(arrays) == 1 and found["large"].shape == large.shape and found["bool"].dtype == torch.bool


def test_metadata_and_history_come_back_and_can_be_undone():
    chain = Compose([Orientationd("image", "LPS", labels=None), SpatialPadd("image", (9, 9, 9))])
    image = MetaTensor(torch.rand(1, 4, 5, 6), affine=torch.eye(4), meta={"filename_or_obj": "a.nii", "odd": object()})
    done = chain({"image": image})
    found = through(done)[0]
    assert torch.equal(found["image"].affine, done["image"].affine)
    assert found["image"].meta["filename_or_obj"] == "a.nii" and "odd" not in found["image"].meta
    again = Compose([Orientationd("image", "LPS", labels=None), SpatialPadd("image", (9, 9, 9))])
    undone = again.inverse(found)["image"]
    assert torch.equal(undone.as_tensor(), image.as_tensor()) and torch.equal(undone.affine, image.affine)


def test_what_cannot_be_kept_is_refused_with_its_place():
    with pytest.raises(DataError, match=r"case c::image[\s\S]*got: +object"):
        encoded({"image": object()}, lambda array: 0, "case c")
