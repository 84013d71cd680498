"""One command from a scan to a label map on its grid; nothing that looks done after an error."""

import json

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from common.card import ModelCard, save_weights
from common.errors import AmalgamationError, ConfigError, DataError, GeometryError
from common.labels import LabelSpace
from tools.predict.command import predict, segment
from tools.predict.scans import find_scans

OBLIQUE = np.array([[-1.4, 0.3, 0, 12], [0.28, 1.5, 0, -30], [0, 0, 3.0, 7], [0, 0, 0, 1]])


def scan(path, affine=None, shape=(20, 18, 10)):
    voxels = np.zeros(shape, np.float32)
    voxels[4:12, 5:14, 3:8] = 100
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2, 2, 1]) if affine is None else affine), path)
    return voxels > 50


def dicom(folder, voxels, spacing=(1.5, 1.5, 3.0), modality="CT"):
    """A series whose slices run along the last axis."""
    folder.mkdir(parents=True)
    series, study = generate_uid(), generate_uid()
    for k in range(voxels.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.SeriesInstanceUID, data.StudyInstanceUID = series, study
        data.FrameOfReferenceUID, data.Modality, data.PatientID, data.InstanceNumber = study, modality, "p", k + 1
        data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, k * spacing[2]]
        data.PixelSpacing, data.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        data.Rows, data.Columns, data.SamplesPerPixel = voxels.shape[1], voxels.shape[0], 1
        data.PhotometricInterpretation, data.BitsAllocated, data.BitsStored, data.HighBit = "MONOCHROME2", 16, 16, 15
        data.PixelRepresentation, data.RescaleSlope, data.RescaleIntercept = 1, 1, 0
        data.PixelData = np.ascontiguousarray(voxels[:, :, k].T.astype(np.int16)).tobytes()
        data.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("affine", [None, np.diag([-2.0, -2, 2, 1]), OBLIQUE])
def test_result_lies_on_the_scans_grid(toy_bundle, tmp_path, affine):
    truth = scan(tmp_path / "in" / "a b.nii.gz", affine)
    result = segment(toy_bundle, tmp_path / "in" / "a b.nii.gz", tmp_path / "out")
    assert files(tmp_path / "out") == ["a b.nii.gz"]
    image = nib.load(result["a b"])
    np.testing.assert_allclose(image.affine, nib.load(tmp_path / "in" / "a b.nii.gz").affine, atol=1e-4)
    found = np.asarray(image.dataobj) > 0
    assert found.shape == truth.shape and 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.8
    assert image.get_data_dtype() == np.uint8


def test_a_folder_a_named_file_and_the_printed_paths(toy_bundle, tmp_path, capsys):
    for name in ("x.nii.gz", "y.nii"):
        scan(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no scan")
    predict(str(toy_bundle), str(tmp_path / "in"), str(tmp_path / "out"))
    assert files(tmp_path / "out") == ["x.nii.gz", "y.nii.gz"]
    assert capsys.readouterr().out.count(".nii.gz") == 2
    predict(str(toy_bundle), str(tmp_path / "in" / "y.nii"), str(tmp_path / "one" / "named.nii.gz"))
    assert files(tmp_path / "one") == ["named.nii.gz"]
    with pytest.raises(DataError, match="need a folder"):
        segment(toy_bundle, tmp_path / "in", tmp_path / "named.nii.gz")


def test_dicom_series(toy_bundle, tmp_path):
    voxels = np.zeros((20, 18, 10))
    voxels[4:12, 5:14, 3:8] = 100
    dicom(tmp_path / "study" / "series1", voxels)
    result = segment(toy_bundle, tmp_path / "study" / "series1", tmp_path / "out", result="nifti")
    found = np.asarray(nib.load(result["series1"]).dataobj) > 0
    assert abs(int(found.sum()) - int((voxels > 50).sum())) < 0.35 * (voxels > 50).sum()
    assert nib.affines.voxel_sizes(nib.load(result["series1"]).affine) == pytest.approx((1.5, 1.5, 3.0))
    assert [s.name for s in find_scans(tmp_path / "study")] == ["series1"]


def test_dicom_series_with_a_gap_is_refused(toy_bundle, tmp_path):
    dicom(tmp_path / "series", np.zeros((8, 8, 8)))
    (tmp_path / "series" / "004.dcm").unlink()
    with pytest.raises(AmalgamationError):
        segment(toy_bundle, tmp_path / "series", tmp_path / "out")
    assert files(tmp_path / "out") == []
    assert pydicom.dcmread(tmp_path / "series" / "000.dcm").Rows == 8


def test_channels_of_one_scan_and_names_that_clash(tmp_path):
    for name in ("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz"):
        scan(tmp_path / "in" / name)
    found = {s.name: len(s.files) for s in find_scans(tmp_path / "in")}
    assert found == {"a": 2, "b_0000": 1}
    for name in ("c.nii.gz", "c.nrrd"):
        (tmp_path / "twins").mkdir(exist_ok=True)
        (tmp_path / "twins" / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"one base name"):
        find_scans(tmp_path / "twins")
    (tmp_path / "empty").mkdir()
    for path, words in ((tmp_path / "empty", "no scan"), (tmp_path / "nowhere", "no such file")):
        with pytest.raises(DataError, match=words):
            find_scans(path)
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(DataError, match="not an image"):
        find_scans(tmp_path / "x.txt")


def test_scans_that_end_in_four_digits(toy_bundle, tmp_path, capsys):
    """They are channels only when the network reads as many."""
    for name in ("amos_0001.nii.gz", "amos_0002.nii.gz"):
        scan(tmp_path / "amos" / name)
    assert [s.name for s in find_scans(tmp_path / "amos")] == ["amos_0001", "amos_0002"]
    for name in ("b_0000.nii.gz", "b_0001.nii.gz"):
        scan(tmp_path / "two" / name)
    assert [len(s.files) for s in find_scans(tmp_path / "two", 2)] == [2]
    assert [s.name for s in find_scans(tmp_path / "two", 1)] == ["b_0000", "b_0001"]
    file = toy_bundle / "models" / "model.pt"
    save_weights(file, torch.load(file, weights_only=True), ModelCard(LabelSpace(("bright",)), ("CT",), "toy"))
    predict(str(toy_bundle), str(tmp_path / "two"), str(tmp_path / "out"))
    assert files(tmp_path / "out") == ["b_0000.nii.gz", "b_0001.nii.gz"]
    assert capsys.readouterr().out.splitlines()[0] == "1 bright"


def test_the_numbers_of_the_structures_are_said_where_numbers_are_written(toy_bundle, tmp_path, capsys):
    voxels = np.zeros((20, 18, 10))
    voxels[4:12, 5:14, 3:8] = 100
    dicom(tmp_path / "series", voxels)
    for result, lines in (("nifti", 1), ("dicom_seg", 0), ("both", 1)):
        predict(str(toy_bundle), str(tmp_path / "series"), str(tmp_path / result), result=result)
        assert capsys.readouterr().out.count("1 bright\n") == lines
    network = json.loads((toy_bundle / "configs" / "inference.json").read_text())["network_def"]
    rewrite(toy_bundle, network_def={**network, "out_channels": 2}, names=None)
    predict(str(toy_bundle), str(tmp_path / "series"), str(tmp_path / "unnamed"), result="nifti")
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "unnamed" / "series.nii.gz")]


def test_existing_results_are_refused_unless_told(toy_bundle, tmp_path):
    scan(tmp_path / "in" / "a.nii.gz")
    segment(toy_bundle, tmp_path / "in", tmp_path / "out")
    first = (tmp_path / "out" / "a.nii.gz").read_bytes()
    with pytest.raises(DataError, match="already"):
        segment(toy_bundle, tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "a.nii.gz").read_bytes() == first
    segment(toy_bundle, tmp_path / "in", tmp_path / "out", overwrite=True)
    with pytest.raises(DataError, match="overwrite its scan"):
        segment(toy_bundle, tmp_path / "in", tmp_path / "in", overwrite=True)
    assert files(tmp_path / "in") == ["a.nii.gz"]


def test_nothing_looks_done_after_an_error(toy_bundle, tmp_path):
    scan(tmp_path / "in" / "a.nii.gz")
    scan(tmp_path / "in" / "b.nii.gz")
    broken = tmp_path / "in" / "b.nii.gz"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(AmalgamationError, match=r"b\.nii\.gz"):
        segment(toy_bundle, tmp_path / "in", tmp_path / "out")
    assert files(tmp_path / "out") == []


def test_an_error_in_the_middle_of_the_run_loses_nothing(toy_bundle, tmp_path, capsys):
    scan(tmp_path / "in" / "a.nii.gz")
    scan(tmp_path / "in" / "b.nii.gz")
    segment(toy_bundle, tmp_path / "in", tmp_path / "out")
    first = (tmp_path / "out" / "a.nii.gz").read_bytes()
    for name in ("a.png", "a.dcm", "b.nii"):
        (tmp_path / "out" / name).write_text("the user's own")
    (tmp_path / "out" / "a.mha").symlink_to("nowhere")
    there = sorted(p.name for p in (tmp_path / "out").iterdir())
    whole = (tmp_path / "in" / "b.nii.gz").read_bytes()
    (tmp_path / "in" / "b.nii.gz").write_bytes(whole[:200])
    weights = (toy_bundle / "models" / "model.pt").read_bytes()
    for _ in range(2):
        with pytest.raises(AmalgamationError):
            segment(toy_bundle, tmp_path / "in", tmp_path / "out", overwrite=True)
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == there
        assert (tmp_path / "out" / "a.nii.gz").read_bytes() == first
        (tmp_path / "in" / "b.nii.gz").write_bytes(whole)
        (toy_bundle / "models" / "model.pt").write_bytes(b"no weights")
    (toy_bundle / "models" / "model.pt").write_bytes(weights)
    capsys.readouterr()
    (tmp_path / "out" / "a.nii.gz").write_text("old")
    segment(toy_bundle, tmp_path / "in", tmp_path / "out", overwrite=True)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == there
    assert (tmp_path / "out" / "a.nii.gz").read_bytes() == first
    assert (tmp_path / "out" / "b.nii").read_text() == "the user's own"
    said = capsys.readouterr().err
    assert all(f"{name}: stays, but is not of this run" in said for name in ("a.png", "a.dcm", "a.mha", "b.nii"))
    assert "nii.gz: stays" not in said


def test_without_a_model_nothing_is_touched(toy_bundle, tmp_path):
    scan(tmp_path / "in" / "a.nii.gz")
    segment(toy_bundle, tmp_path / "in", tmp_path / "out")
    (toy_bundle / "models" / "model.pt").unlink()
    with pytest.raises(AmalgamationError, match="no trained model"):
        segment(toy_bundle, tmp_path / "in", tmp_path / "out", overwrite=True)
    assert files(tmp_path / "out") == ["a.nii.gz"]


def rewrite(bundle, **changes):
    path = bundle / "configs" / "inference.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_result_on_another_grid_or_none_is_refused(toy_bundle, tmp_path):
    scan(tmp_path / "in" / "a.nii.gz", np.diag([1.0, 1, 1, 1]))
    save = {"_target_": "common.data.transforms.restore.SavePredictiond", "keys": "pred", "output_dir": "@output_dir"}
    discrete = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    rewrite(toy_bundle, restore=[discrete, save])
    with pytest.raises(GeometryError, match="scan's grid"):
        segment(toy_bundle, tmp_path / "in", tmp_path / "out")
    rewrite(toy_bundle, restore=[discrete])
    with pytest.raises(DataError, match="did not write one result"):
        segment(toy_bundle, tmp_path / "in", tmp_path / "out")
    assert files(tmp_path / "out") == []


def test_other_weights_and_settings(toy_bundle, tmp_path, make_weights):
    scan(tmp_path / "in" / "a.nii.gz")
    make_weights(tmp_path / "w" / "model.pt", at=1000.0)
    result = segment(
        toy_bundle,
        tmp_path / "in",
        tmp_path / "out",
        weights=tmp_path / "w" / "model.pt",
        overrides={"inferer::roi_size": [8, 8, 8]},
    )
    assert not np.asarray(nib.load(result["a"]).dataobj).any()
    with pytest.raises(ConfigError, match=r"did you mean --inferer::roi_size"):
        segment(toy_bundle, tmp_path / "in", tmp_path / "no", overrides={"inferer::roi_siz": 1})


def test_unknown_bundle(tmp_path):
    scan(tmp_path / "a.nii.gz")
    with pytest.raises(ConfigError, match="no bundle"):
        segment("ka3er", tmp_path / "a.nii.gz", tmp_path / "out")
    (tmp_path / "b" / "configs").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"no inference\.json"):
        segment(tmp_path / "b", tmp_path / "a.nii.gz", tmp_path / "out")


def test_scans_whose_names_end_like_files_or_results(toy_bundle, tmp_path):
    """A name is a name: ``case7_seg`` is a scan of its own, and ``IM1.dcm`` becomes ``IM1.dcm.nii.gz``."""
    names = ["case7", "case7_seg", "case7_pred", "IM1.dcm", "a.nii", "b.png", "c.nrrd"]
    for name in names:
        scan(tmp_path / "in" / f"{name}.nii.gz")
    found = segment(toy_bundle, tmp_path / "in", tmp_path / "~")
    assert files(tmp_path / "~") == sorted(f"{name}.nii.gz" for name in names)
    assert {n: p.name for n, p in found.items()} == {name: f"{name}.nii.gz" for name in names}


def test_series_whose_folders_end_like_files(toy_bundle, dicom_series, tmp_path):
    voxels = np.zeros((20, 18, 10))
    voxels[4:12, 5:14, 3:8] = 100
    names = ["case.dcm", "case.nii", "1.2.840.png", "case"]
    for name in names:
        dicom_series(tmp_path / "in" / name, voxels)
    segment(toy_bundle, tmp_path / "in", tmp_path / "out", result="both")
    assert files(tmp_path / "out") == sorted(f"{name}{suffix}" for name in names for suffix in (".nii.gz", ".dcm"))
