import json
from pathlib import Path

import nibabel as nib
import numpy as np

from common.data.datasets.datalist import items
from tools.bench.synthetic import PICTURE, TINY, write_synthetic


def test_scans_have_their_sizes_and_links_share_them(tmp_path):
    few = write_synthetic(tmp_path / "few", 1, [TINY])
    many = write_synthetic(tmp_path / "many", 3, [TINY], like=few)
    found = items(many, "training")
    assert len(found) == 3 and len(items(many, "validation")) == 1 and len({i["case"] for i in found}) == 3
    used = [(Path(i["image"]).resolve(), Path(i["label"]).resolve()) for i in found]
    assert used == [tuple((few / part / "case_000.nii.gz").resolve() for part in ("images", "labels"))] * 3
    image, label = nib.load(found[2]["image"]), nib.load(found[2]["label"])
    assert image.shape == label.shape == TINY.shape and image.header.get_zooms() == TINY.spacing
    assert set(np.unique(np.asarray(label.dataobj))) == {0, 1, 2}


def test_pictures(tmp_path):
    data = write_synthetic(tmp_path / "p", 2, [PICTURE], flat=True)
    assert json.loads((data / "dataset.json").read_text())["dim"] == 2 and len(items(data, "training")) == 2
