"""Segmentations of other hands as labels: exact on the series' voxels or refused."""

import os
import random
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

from common.data.dicom.seg import Algorithm, write_seg
from common.data.dicom.seg_masks import is_seg, read_seg
from common.data.dicom.series import read_dicom
from common.data.io import read_volume
from common.errors import AmalgamationError, DataError, GeometryError, LabelError
from common.geometry import Grid
from common.labels import LabelSpace

hd = pytest.importorskip("highdicom", exc_type=ImportError)
TURN = np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]])
LABELS = LabelSpace(("liver", "spleen"))
SAMPLES = Path(os.environ.get("AMALGAM_DATA", "missing")) / "dicom_samples"


def make(dicom_series, tmp_path, name="s", label=None, **options):
    volume = read_dicom(dicom_series(tmp_path / name, np.zeros((12, 10, 8)), **options))
    if label is None:
        label = np.random.default_rng(0).choice([0, 0, 1, 2], (12, 10, 8))
    path = tmp_path / f"{name}.dcm"
    write_seg(label, LABELS, Grid.of(volume.image), volume.slices, path, algorithm=Algorithm("t", "1"),
              colors=["#ff0000", "#00ff00"])  # fmt: skip
    return volume, label, path


@pytest.mark.parametrize("turn", [None, TURN])
def test_label_maps_come_back(dicom_series, tmp_path, turn):
    volume, label, path = make(dicom_series, tmp_path, turn=turn)
    found = read_seg(path, volume.slices)
    assert found.names == ("liver", "spleen") and found.grid.same_as(Grid.of(volume.image))
    assert np.array_equal(found.label_map(), label)
    swapped = found.label_map(LabelSpace(("spleen", "aorta", "liver")))
    assert np.array_equal(swapped, np.choose(label, [0, 3, 1]))
    with pytest.raises(LabelError, match="no structure"):
        found.label_map(LabelSpace(("spleen",)))


def test_a_structure_on_few_slices(dicom_series, tmp_path):
    label = np.zeros((12, 10, 8), int)
    label[2:5, 3:7, 2] = label[2:5, 3:7, 5] = 1
    label[0, 0, 7] = 2
    volume, label, path = make(dicom_series, tmp_path, label=label)
    assert np.array_equal(read_seg(path, volume.slices).label_map(), label)


def test_one_slice(dicom_series, tmp_path):
    volume = read_dicom(dicom_series(tmp_path / "s", np.zeros((12, 10, 1))))
    label = np.zeros((12, 10, 1), int)
    label[2:5, 3:7] = 2
    write_seg(label, LABELS, Grid.of(volume.image), volume.slices, tmp_path / "s.dcm", algorithm=Algorithm("t", "1"),
              colors=["#ff0000", "#00ff00"])  # fmt: skip
    found = read_seg(tmp_path / "s.dcm", volume.slices)
    assert found.names == ("spleen",) and np.array_equal(found.masks[0], label == 2)


def test_overlaps_are_masks_but_no_label_map(dicom_series, tmp_path):
    masks = np.random.default_rng(0).random((2, 12, 10, 8)) < 0.4
    volume, _, path = make(dicom_series, tmp_path, label=masks)
    found = read_seg(path, volume.slices)
    assert np.array_equal(found.masks, masks)
    with pytest.raises(LabelError, match="spleen and liver share"):
        found.label_map(where=path)


def test_refusals(dicom_series, tmp_path):
    volume, _, path = make(dicom_series, tmp_path)
    assert is_seg(path) and not is_seg(volume.slices[0].path) and not is_seg(tmp_path / "nothing")
    with pytest.raises(DataError, match="not a DICOM segmentation"):
        read_seg(volume.slices[0].path, volume.slices)
    other, _, _ = make(dicom_series, tmp_path, "other")
    with pytest.raises(GeometryError, match="another frame of reference"):
        read_seg(path, other.slices)
    frame = str(pydicom.dcmread(path).FrameOfReferenceUID)
    finer, _, _ = make(dicom_series, tmp_path, "finer", frame=frame, spacing=(1.5, 1.25, 2.0))
    with pytest.raises(GeometryError, match="does not lie on"):
        read_seg(path, finer.slices)
    with pytest.raises(GeometryError, match="beyond the series"):
        read_seg(path, volume.slices[:4])
    data = pydicom.dcmread(path)
    data.SegmentationType = "FRACTIONAL"
    data.save_as(tmp_path / "f.dcm")
    with pytest.raises(DataError, match="fractional"):
        read_seg(tmp_path / "f.dcm", volume.slices)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"s\.dcm"):
        read_seg(path, volume.slices)


@pytest.mark.filterwarnings("ignore")
def test_mutated_segmentations(dicom_series, tmp_path):
    volume, label, path = make(dicom_series, tmp_path)
    original, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(100):
        data = bytearray(original)
        for _ in range(rng.choice((1, 3, 20))):
            data[rng.randrange(128, len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)
        begin = time.process_time()
        try:
            assert read_seg(path, volume.slices).grid.shape == label.shape
        except AmalgamationError as error:
            refused += 1
            assert "s.dcm" in str(error)
        assert time.process_time() - begin < 5
    assert refused > 10


@pytest.mark.data
@pytest.mark.skipif(not SAMPLES.is_dir(), reason="AMALGAM_DATA is not set")
def test_a_segmentation_with_partial_overlaps_made_by_dcmqi():
    volume = read_dicom(SAMPLES / "ct_3slice_liver")
    found = read_seg(SAMPLES / "partial_overlaps.dcm", volume.slices)
    assert found.names == ("GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE")
    data = pydicom.dcmread(SAMPLES / "partial_overlaps.dcm")
    total = np.zeros((5, 512, 512, 3), bool)
    for frame, group in zip(data.pixel_array, data.PerFrameFunctionalGroupsSequence, strict=True):
        z = float(group.PlanePositionSequence[0].ImagePositionPatient[2])
        (k,) = [i for i, s in enumerate(volume.slices) if abs(s.position[2] - z) < 1e-3]
        total[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1, ..., k] = frame.T > 0
    assert np.array_equal(found.masks, total)
    with pytest.raises(LabelError, match="share voxels"):
        found.label_map()
    assert read_volume(SAMPLES / "liver_spine_seg.nrrd").shape[-1] == 3
