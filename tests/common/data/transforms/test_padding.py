"""Padding repeats the darkest value, keeps what is large enough, and can be undone."""

import numpy as np
import torch
from monai.data import MetaTensor

from common.data.transforms.padding import PadMinimumd


def test_every_volume_is_padded_with_its_own_minimum() -> None:
    image = MetaTensor(torch.rand(1, 5, 9, 4) - 3)
    label = MetaTensor(torch.ones(1, 5, 9, 4))
    label[0, 0, 0, 0] = 0
    out = PadMinimumd(["image", "label"], (8, 8, 8))({"image": image, "label": label})
    twin = np.pad(image.numpy(), [(0, 0), (1, 2), (0, 0), (2, 2)], constant_values=image.numpy().min())
    np.testing.assert_array_equal(out["image"].numpy(), twin)
    assert out["label"].shape == (1, 8, 9, 8) and out["label"].sum() == label.sum()


def test_padding_is_undone() -> None:
    transform = PadMinimumd("image", 8)
    image = MetaTensor(torch.rand(1, 5, 6, 7))
    back = transform.inverse(transform({"image": image}))
    np.testing.assert_array_equal(back["image"].numpy(), image.numpy())


def test_the_grid_follows() -> None:
    image = MetaTensor(torch.rand(1, 4, 4, 4), affine=torch.diag(torch.tensor([2.0, 2, 2, 1])).double())
    padded = PadMinimumd("image", 8)({"image": image})["image"]
    assert padded.affine[:3, 3].tolist() == [-4.0, -4.0, -4.0]


def test_absent_keys_may_be_skipped() -> None:
    assert PadMinimumd(["image", "label"], 4, allow_missing_keys=True)({"image": torch.zeros(1, 2, 2, 2)})[
        "image"
    ].shape == (1, 4, 4, 4)
