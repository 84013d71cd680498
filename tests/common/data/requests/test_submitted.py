"""Label maps that a server kept: values by segment names, on the grid of the preprocessed image."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, Orientationd, Resized
from PIL import Image

from common.data.requests.submitted import ServerLabeld, segment_names
from common.data.transforms.loading import LoadCased
from common.data.transforms.transforms import SafeSpacingd
from common.errors import GeometryError, LabelError
from common.labels import LabelSpace

LABELS = LabelSpace(("liver", "spleen", "left kidney"))
AFFINE = np.array([[-2.4, 0.3, 0, 12], [0.3, 2.4, 0, -30], [0, 0, 4.0, 7], [0, 0, 0, 1]])


@pytest.fixture
def study(tmp_path):
    """An image and its label map (1 and 2), as a server keeps them."""
    values = np.zeros((12, 10, 8), np.uint8)
    values[2:6, 2:7, 2:6] = 1
    values[7:10, 3:8, 2:6] = 2
    label = tmp_path / "labels" / "final" / "a.nii.gz"
    label.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(values, AFFINE), label)
    nib.save(nib.Nifti1Image(values.astype(np.float32) * 100, AFFINE), tmp_path / "a.nii.gz")

    def named(*names):
        info = {"label_info": [{"name": n} for n in names]}
        record = {"objects": {"a": {"labels": {"final": {"info": info, "ext": ".nii.gz"}}}}}
        (tmp_path / "datastore_v2.json").write_text(json.dumps(record))

    return {"image": str(tmp_path / "a.nii.gz"), "label": str(label)}, named


def load(data, **options):
    return ServerLabeld(LABELS, **options)(LoadCased("image")(data))


def test_values_are_the_networks_where_nobody_named_them(study):
    found = load(study[0])
    assert segment_names(study[0]["label"]) == []
    assert set(found["label"].unique().tolist()) == {0, 1, 2} and found["annotated"].all() and found["case"] == "a"
    assert torch.equal(found["label"] > 0, found["image"] > 0)


def test_values_go_by_the_names_of_the_segments(study):
    study[1]("Left_Kidney", "liver")
    found = load(study[0])
    assert segment_names(study[0]["label"]) == ["Left_Kidney", "liver"]
    assert torch.equal(found["label"] == 3, found["image"] == 100)
    assert torch.equal(found["label"] == 1, found["image"] == 200)


def test_segments_of_a_study_that_ends_in_four_digits(tmp_path):
    """MONAI Label records it by its whole name."""
    for name in ("amos_0001", "amos_0000"):
        info = {"label_info": [{"name": f"spleen of {name}"}]}
        record = {"objects": {name: {"labels": {"final": {"info": info}}}}}
        (tmp_path / "datastore_v2.json").write_text(json.dumps(record))
        assert segment_names(tmp_path / "labels" / "final" / f"{name}.nii.gz") == [f"spleen of {name}"]


def test_unknown_or_not_annotated_segments_are_refused(study):
    study[1]("liver", "cyst")
    with pytest.raises(LabelError, match="does not learn here"):
        load(study[0])
    study[1]("liver", "spleen")
    with pytest.raises(LabelError, match=r"a\.nii\.gz"):
        load(study[0], annotated=["liver"])
    assert load(study[0], annotated=["liver", "spleen"])["annotated"].tolist() == [True, True, True, False]


def test_the_label_map_follows_the_image_through_its_chain(study):
    ras = Orientationd("image", axcodes="RAS", labels=None)
    chain = Compose([LoadCased("image"), ras, SafeSpacingd("image", (2.0, 2.0, 2.0))])
    found = ServerLabeld(LABELS)(chain(study[0]))
    label, image = found["label"][0] > 0, found["image"][0] > 50
    assert label.shape == image.shape
    assert 2 * (label & image).sum() / (label.sum() + image.sum()) > 0.9
    assert load(study[0], match=False)["label"].shape == (1, 12, 10, 8)


def test_pictures(tmp_path):
    values = np.zeros((20, 30), np.uint8)
    values[4:12, 5:20] = 1
    (tmp_path / "labels").mkdir()
    Image.fromarray(values).save(tmp_path / "labels" / "p.png")
    Image.fromarray(values * 200).save(tmp_path / "p.png")
    chain = Compose([LoadCased("image", dim=2), Resized("image", (60, 40))])
    data = {"image": str(tmp_path / "p.png"), "label": str(tmp_path / "labels" / "p.png")}
    found = ServerLabeld(LABELS)(chain(data))
    label, image = found["label"][0] > 0, found["image"][0] > 100
    assert label.shape == image.shape == (60, 40)
    assert 2 * (label & image).sum() / (label.sum() + image.sum()) > 0.9
    Image.fromarray(values[:10]).save(tmp_path / "labels" / "p.png")
    with pytest.raises(GeometryError, match="differ in size"):
        ServerLabeld(LABELS)(chain(data))


def test_another_grid_and_fractions_are_refused(study):
    data, _ = study
    label = nib.load(data["label"])
    values, moved = np.asarray(label.dataobj), AFFINE.copy()
    moved[0, 3] += 20
    nib.save(nib.Nifti1Image(values, moved), data["label"])
    with pytest.raises(GeometryError, match="one grid"):
        load(data)
    nib.save(nib.Nifti1Image(values * np.float32(0.5), AFFINE), data["label"])
    with pytest.raises(LabelError, match="fractional"):
        load(data)
