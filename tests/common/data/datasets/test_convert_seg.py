"""DICOM series with DICOM SEGs become a dataset that passes its own check."""

import nibabel as nib
import numpy as np
import pytest

from common.data.datasets.convert import convert_pairs
from common.data.datasets.verify import check
from common.data.dicom.seg import Algorithm, write_seg
from common.data.dicom.series import read_dicom
from common.errors import DataError, LabelError
from common.geometry import Grid
from common.labels import LabelSpace

pytest.importorskip("highdicom", exc_type=ImportError)


def study(dicom_series, root, name, label, names):
    rng = np.random.default_rng(len(name))
    volume = read_dicom(dicom_series(root / "images" / name, rng.integers(0, 99, (12, 10, 8))))
    (root / "labels").mkdir(exist_ok=True)
    write_seg(label, LabelSpace(names), Grid.of(volume.image), volume.slices, root / "labels" / f"{name}_seg.dcm",
              algorithm=Algorithm("t", "1"), colors=["#ff0000", "#00ff00"])  # fmt: skip


def test_series_and_segs_to_a_dataset(dicom_series, tmp_path, caplog):
    label = np.random.default_rng(0).choice([0, 0, 1, 2], (12, 10, 8))
    study(dicom_series, tmp_path, "a", label, ("liver", "spleen"))
    study(dicom_series, tmp_path, "bb", label, ("spleen", "aorta"))
    data = convert_pairs(tmp_path / "images", tmp_path / "labels", tmp_path / "out", name="d", val=0)
    assert data.labels.to_json() == {"background": 0, "liver": 1, "spleen": 2, "aorta": 3}
    assert [p for p in check(tmp_path / "out") if p.severity == "error"] == []
    cases = {c.id: np.asarray(nib.load(c.label).dataobj) for c in data.cases()}
    assert np.array_equal(cases["a"], label) and np.array_equal(cases["bb"], np.choose(label, [0, 2, 3]))
    assert "left out" not in caplog.text
    chosen = convert_pairs(
        tmp_path / "images", tmp_path / "labels", tmp_path / "two", name="d", structures={"spleen": 7}
    )
    assert "a_seg.dcm: segments left out: liver\n" in caplog.text
    assert "bb_seg.dcm: segments left out: aorta\n" in caplog.text
    maps = {c.id: np.asarray(nib.load(c.label).dataobj) for c in chosen.cases()}
    assert np.array_equal(maps["a"], 7 * (label == 2)) and np.array_equal(maps["bb"], 7 * (label == 1))


def test_refusals(dicom_series, tmp_path):
    masks = np.random.default_rng(0).random((2, 12, 10, 8)) < 0.4
    study(dicom_series, tmp_path, "a", masks, ("liver", "tumour"))
    with pytest.raises(LabelError, match=r"(?s)a_seg\.dcm.*overlap"):
        convert_pairs(tmp_path / "images", tmp_path / "labels", tmp_path / "out", name="d")
    only = convert_pairs(tmp_path / "images", tmp_path / "labels", tmp_path / "out", name="d", structures={"liver": 1})
    assert only.labels.names == ("liver",)
    for file in (tmp_path / "images" / "a").iterdir():
        file.unlink()
    (tmp_path / "images" / "a").rmdir()
    nib.save(nib.Nifti1Image(np.zeros((12, 10, 8)), np.eye(4)), tmp_path / "images" / "a.nii.gz")
    with pytest.raises(DataError, match="label of a DICOM series"):
        convert_pairs(tmp_path / "images", tmp_path / "labels", tmp_path / "out", name="d", channels=["CT"])
