"""Pictures and the viewer's volumes of a scan with two answers."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import torch
from monai.data import MetaTensor

from common.labels import LabelSpace
from tools.amalgamate.pictures import Layer, Shown, draw, fitting, for_viewer

LABELS = LabelSpace(("liver", "spleen"))


@pytest.fixture
def shown() -> Shown:
    affine = torch.diag(torch.tensor([2.0, 2, 3, 1]))
    image = MetaTensor(torch.rand(2, 20, 16, 8, generator=torch.Generator().manual_seed(0)), affine=affine)
    one = torch.zeros(20, 16, 8, dtype=torch.long)
    one[4:12, 4:12, 5], one[0, 0, 0] = 1, 2
    return Shown("ct", "../x $1", image, (Layer("Student", one), Layer("<b>", torch.zeros_like(one))))


def test_the_file_lies_in_the_folder_whatever_the_case_is_called(shown: Shown, tmp_path: Path) -> None:
    found = draw(tmp_path / "p", shown, LABELS)
    (file,) = (tmp_path / "p").iterdir()
    assert found == {"task": "ct", "case": "../x $1", "file": file.name}
    with PIL.Image.open(file) as picture:
        red, green, blue = np.asarray(picture.convert("RGB"), dtype=int).reshape(-1, 3).T
        assert picture.width > picture.height and ((red - blue > 60) & (red > green)).sum() > 50  # the liver's colour


def test_the_viewer_gets_what_was_answered(shown: Shown) -> None:
    found = for_viewer(shown, LABELS)
    assert [layer["name"] for layer in found["layers"]] == ["Student", "<b>"] and found["present"] == [1, 2]
    content = gzip.decompress(base64.b64decode(found["layers"][0]["data"]))
    voxels = np.asarray(nib.Nifti1Image.from_bytes(content).dataobj)
    assert voxels.shape == (20, 16, 8) and (voxels == 1).sum() == 64
    assert fitting([found] * 2) == [found] * 2 and fitting([]) == []


def test_a_page_takes_as_many_scans_as_fit() -> None:
    large, small = ({"image": "x" * size, "layers": [{"data": "y" * size}]} for size in (5_000_000, 1_000_000))
    assert fitting([small, large, large]) == [small, large] and fitting([large, large]) == [large]
    assert len(fitting([{**large, "image": "x" * 13_000_000}])) == 1
