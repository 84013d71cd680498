import json
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from torchvision.transforms import v2

from common.data.slices.unlabelled import AsVolumed, ViewsOfd, unlabelled_images
from common.errors import ConfigError, DataError


def test_a_collections_images_without_their_labels(phantom_dir):
    found = unlabelled_images(phantom_dir)
    listed = [
        json.loads((phantom_dir / t / "dataset.json").read_text()) for t in ("phantom_ct", "phantom_lge", "phantom_mr")
    ]
    count = sum(len(d["training"]) + len(d.get("unlabelled", [])) for d in listed)
    assert len(found.items) == count and all("label" not in item for item in found.items)
    assert set(found.intensities) == {"CT", "LGE MR", "T2 MR"} and found.dim == 3 and found.channels
    everything = unlabelled_images(phantom_dir, ("training", "validation", "test", "unlabelled"))
    assert len(everything.items) > count
    only = unlabelled_images(phantom_dir, modality="CT", ct_window=(-100, 200))
    assert set(only.intensities) == {"CT"} and {i["modality"] for i in only.items} == {"CT"}
    assert only.intensities["CT"]["percentile_99_5"] == 200


def test_pictures_of_a_collection(phantom_2d_dir):
    one = next(p for p in phantom_2d_dir.iterdir() if p.name == "phantom_2d_mr")
    found = unlabelled_images(one)
    assert found.dim == 2 and found.items


def test_any_folder_of_volumes(tmp_path):
    (tmp_path / "a b").mkdir()
    for name in ("a b/x.nii.gz", "y.nii"):
        nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4)), tmp_path / name)
    found = unlabelled_images(tmp_path, modality="T1 MR")
    assert [i["case"] for i in found.items] == ["a b/x", "y"] and found.dim == 3
    assert found.intensities == {"T1 MR": {"scheme": "ZScoreNormalization"}} and found.channels == ("image",)
    with pytest.raises(DataError, match="--modality"):
        unlabelled_images(tmp_path)
    with pytest.raises(DataError, match="--ct_window"):
        unlabelled_images(tmp_path, modality="CT")
    assert unlabelled_images(tmp_path, modality="CT", ct_window=(-125, 275)).intensities["CT"]["std"] == 100


def test_any_folder_of_pictures(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "p.png")
    found = unlabelled_images(tmp_path, modality="rgb_to_0_1")
    assert found.channels == ("red", "green", "blue") and found.dim == 2
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4)), tmp_path / "v.nii")
    with pytest.raises(DataError, match="volumes and pictures"):
        unlabelled_images(tmp_path, modality="T1 MR")


def test_nothing_to_learn_from(tmp_path, phantom_dir):
    with pytest.raises(DataError, match="no images"):
        unlabelled_images(tmp_path, modality="CT")
    with pytest.raises(DataError, match="no images"):
        unlabelled_images(phantom_dir / "phantom_ct", ())
    with pytest.raises(DataError, match="does not exist"):
        unlabelled_images(tmp_path / "nowhere")


def test_a_picture_is_a_volume_of_one_slice():
    assert AsVolumed()({"image": MetaTensor(torch.rand(3, 4, 5))})["image"].shape == (3, 4, 5, 1)
    volume = torch.rand(1, 4, 5, 6)
    assert AsVolumed()({"image": volume})["image"] is volume


def test_views_differ_and_the_rest_is_chosen():
    transform = ViewsOfd(v2.RandomResizedCrop((8, 8), scale=(0.2, 0.5), antialias=True), views=3)
    item = transform({"image": torch.rand(1, 16, 16), "case": "c", "slice": 2, "spoils collation": object()})
    assert item["image"].shape == (3, 1, 8, 8) and not torch.equal(item["image"][0], item["image"][1])
    assert set(item) == {"image", "case", "slice"}
    torch.manual_seed(3)
    first = transform({"image": torch.ones(1, 4, 4).cumsum(1)})["image"]
    torch.manual_seed(3)
    assert torch.equal(first, transform({"image": torch.ones(1, 4, 4).cumsum(1)})["image"])
    same = ViewsOfd(partial(torch.mul, other=1.0), views=1)({"image": torch.ones(1, 2, 2)})["image"]
    assert torch.equal(same, torch.ones(1, 1, 2, 2))
    with pytest.raises(ConfigError):
        ViewsOfd(torch.nn.Identity(), views=0)
