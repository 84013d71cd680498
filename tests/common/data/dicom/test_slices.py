"""Enhanced (multi-frame) images are series like any other; damaged ones are refused, never guessed at."""

import random
import time

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from common.data.dicom import slices as module
from common.data.dicom.series import SeriesOptions, list_series, read_dicom, read_series
from common.data.dicom.slices import holds_dicom, predict_takes, scan_files
from common.errors import AmalgamationError, DataError, GeometryError
from common.geometry import Grid

TURN = np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]])


def voxels(shape=(12, 10, 6)):
    return np.random.default_rng(1).integers(-500, 500, shape)


def edited(path, change):
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path)
    return path


@pytest.mark.parametrize("turn", [None, TURN])
def test_an_enhanced_image_reads_like_its_slices(dicom_series, enhanced_series, tmp_path, turn):
    plain = read_series(dicom_series(tmp_path / "s", voxels(), turn=turn))
    file = enhanced_series(tmp_path / "s")
    for path in (file, file.parent):
        image = read_series(path)
        assert np.array_equal(image.numpy(), plain.numpy())
        assert Grid.of(image).same_as(Grid.of(plain), tol_mm=1e-3)
    assert [s.name for s in next(iter(list_series(file).values()))][:2] == ["all.dcm frame 1", "all.dcm frame 2"]


def test_frames_have_their_own_rescale(dicom_series, enhanced_series, tmp_path):
    def scale(data):
        for k, group in enumerate(data.PerFrameFunctionalGroupsSequence):
            value = pydicom.Dataset()
            value.RescaleSlope, value.RescaleIntercept, value.RescaleType = 2, k, "US"
            group.PixelValueTransformationSequence = [value]

    dicom_series(tmp_path / "s", np.ones((5, 4, 3), int))
    file = edited(enhanced_series(tmp_path / "s"), scale)
    assert sorted(read_series(file)[0, 0, 0].tolist()) == [2, 3, 4]


def test_run_length_frames(dicom_series, enhanced_series, tmp_path):
    plain = read_series(dicom_series(tmp_path / "s", voxels()))
    file = enhanced_series(tmp_path / "s")
    data = pydicom.dcmread(file)
    data.compress(RLELossless)
    data.save_as(file)
    assert np.array_equal(read_series(file).numpy(), plain.numpy())


def test_faults_of_enhanced_images(dicom_series, enhanced_series, tmp_path):
    dicom_series(tmp_path / "s", voxels())
    file = enhanced_series(tmp_path / "s")
    original = file.read_bytes()

    def no_places(data):
        for group in data.PerFrameFunctionalGroupsSequence:
            del group.PlanePositionSequence

    def gap(data):
        data.PerFrameFunctionalGroupsSequence[-1].PlanePositionSequence[0].ImagePositionPatient = [0, 0, 500]

    cases = [
        (no_places, "no ImagePositionPatient"),
        (lambda d: d.PerFrameFunctionalGroupsSequence.pop(), "where its frames lie"),
        (lambda d: delattr(d, "PerFrameFunctionalGroupsSequence"), "where its frames lie"),
        (gap, "missing|sideways|sheared"),
        (lambda d: setattr(d, "PixelData", d.PixelData[:-40]), "truncated"),
        (lambda d: setattr(d, "NumberOfFrames", 2**30), "impossible size"),
        (lambda d: setattr(d, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.3.1"), "multi-frame DICOM of this kind"),
    ]
    for change, words in cases:
        file.write_bytes(original)
        edited(file, change)
        with pytest.raises(DataError, match=words) as refusal:
            read_series(file)
        assert "all.dcm" in str(refusal.value) or "s_enhanced" in str(refusal.value)


def test_jpeg_frames_are_refused_with_the_way_out(dicom_series, enhanced_series, tmp_path):
    dicom_series(tmp_path / "s", voxels())
    file = enhanced_series(tmp_path / "s")

    def wrap(data):
        data.file_meta.TransferSyntaxUID = JPEG2000Lossless
        data.PixelData = pydicom.encaps.encapsulate([b"\0" * 20] * 6)
        data["PixelData"].is_undefined_length = True

    edited(file, wrap)
    with pytest.raises(DataError, match=r"compressed multi-frame(.|\n)*gdcmconv --raw"):
        read_series(file)


def test_phases_in_one_enhanced_image(dicom_series, enhanced_series, tmp_path):
    dicom_series(tmp_path / "s", voxels())
    file = enhanced_series(tmp_path / "s")

    def twice(data):
        groups = data.PerFrameFunctionalGroupsSequence
        for k, group in enumerate(groups):
            place = groups[k % 3].PlanePositionSequence[0].ImagePositionPatient
            group.PlanePositionSequence[0].ImagePositionPatient = list(place)
            group.FrameContentSequence[0].TemporalPositionIndex = 1 + k // 3

    edited(file, twice)
    with pytest.raises(GeometryError, match=r"(?s)one position.*TemporalPositionIndex 2"):
        read_series(file)
    assert read_dicom(file, SeriesOptions(stack=2)).image.shape == (1, 12, 10, 3)


def test_deflated_files_are_refused_with_the_way_out(dicom_series, tmp_path):
    folder = dicom_series(tmp_path / "s", voxels())
    file = sorted(folder.iterdir())[0]
    data = pydicom.dcmread(file)
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    data.save_as(file)
    with pytest.raises(DataError, match=r"(?s)deflated.*dcmconv"):
        read_series(folder)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(2))
def test_mutated_series_with_every_option(dicom_series, enhanced_series, tmp_path, part):
    """Whole series with one mutant each, read with every fault accepted: our errors or a bounded volume, in time."""
    rng = random.Random(part)
    folder = dicom_series(tmp_path / "s", voxels())
    file = enhanced_series(folder)
    every = SeriesOptions(fill_gaps=True, straighten=True, skip_broken=True, skip_repeated=True)
    targets = [*sorted(folder.iterdir())[:2], file]
    originals = {p: p.read_bytes() for p in targets}
    outcomes = set()
    for _ in range(80):
        path = rng.choice(targets)
        data = bytearray(originals[path])
        for _ in range(rng.choice((1, 3, 20))):
            data[rng.randrange(128, len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.15 else data)
        begin = time.process_time()
        try:
            outcomes.add(read_dicom(path.parent, every).image.numel() <= 4 * 2 * 720)
        except AmalgamationError:
            outcomes.add("refused")
        path.write_bytes(originals[path])
        assert time.process_time() - begin < 5
    assert outcomes == {True, "refused"}


def test_folders_that_hold_dicom(dicom_series, tmp_path):
    for name in ("labels", "disc", "study"):
        (tmp_path / name).mkdir()
    (tmp_path / "labels" / "a.nii.gz").write_bytes(b"x")
    (tmp_path / "labels" / "notes").write_text("short")
    (tmp_path / "disc" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    series = dicom_series(tmp_path / "study" / "series", np.zeros((4, 4, 3)))
    assert [holds_dicom(tmp_path / n) for n in ("labels", "disc", "study")] == [False, False, False]
    assert holds_dicom(series)
    (tmp_path / "labels" / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    assert holds_dicom(tmp_path / "labels")


def test_what_predict_alone_can_do_is_said_so():
    assert predict_takes("--stack 1").startswith("python -m tools predict takes --stack 1;")
    assert "dcm2niix" in predict_takes("--stack 1")


def test_a_file_that_goes_while_it_is_read_is_refused_by_name(dicom_series, tmp_path, monkeypatch):
    dicom_series(tmp_path / "s", voxels((5, 4, 3)))
    first = min((tmp_path / "s").iterdir())
    real = module.read_file_meta_info

    def gone(path):
        if path == first:
            path.unlink()
        return real(path)

    monkeypatch.setattr(module, "read_file_meta_info", gone)
    slices, refused = scan_files(tmp_path / "s")
    assert len(slices) == 2 and [r.path for r in refused] == [first]
    assert "FileNotFoundError" in refused[0].error.problem and refused[0].error.where == first
