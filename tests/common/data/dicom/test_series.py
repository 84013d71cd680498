"""Series as files hold them: order, geometry, pixels, and what is refused.

Also the test of ``common.data.dicom.pixels``.
"""

import random
import shutil
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.data import ITKReader
from monai.transforms import LoadImage
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from common.command_words import shown_place
from common.data.dicom.series import list_series, read_series
from common.data.dicom.slices import is_dicom
from common.data.io import read_volume
from common.errors import AmalgamationError, DataError, GeometryError
from common.geometry import Grid

TURN = np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]])


@pytest.fixture
def series(tmp_path):
    """``series(count=5, step=2.0, ...)`` writes CT_small copies as a series; file order is not spatial order."""

    def make(folder="s", count=5, step=2.0, turn=None, uid=None, change=None, order=7):
        template = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
        turn = np.eye(3) if turn is None else turn
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        uid = uid or generate_uid()
        for i in range(count):
            data = template.copy()
            data.SeriesInstanceUID, data.SOPInstanceUID = uid, generate_uid()
            data.ImageOrientationPatient = [*turn[:, 0], *turn[:, 1]]
            data.ImagePositionPatient = list(turn @ [-10.0, 5.0, 30 + i * step])
            data.PixelSpacing = [0.5, 0.75]
            data.RescaleSlope, data.RescaleIntercept = 2, -1000
            data.PixelData = np.full((128, 128), i + 1, np.int16).tobytes()
            if change:
                change(i, data)
            data.save_as(target / f"{folder}{(i * order) % 101:03d}.dcm")
        return target

    return make


@pytest.mark.parametrize("turn", [None, TURN])
def test_slices_in_spatial_order_rescaled_with_the_grid_of_itk(series, turn):
    folder = series(turn=turn)
    image = read_volume(folder)
    assert image.shape == (1, 128, 128, 5)
    assert image[0, 3, 4].tolist() == [2.0 * (i + 1) - 1000 for i in range(5)]
    stock = LoadImage(reader=ITKReader(), ensure_channel_first=True)(folder)
    assert Grid.of(image).same_as(Grid.of(stock), tol_mm=1e-3)
    assert torch.equal(image.as_tensor(), stock.as_tensor())
    assert np.allclose(Grid.of(image).spacing, (0.75, 0.5, 2.0))


def test_one_file_is_one_slice(series):
    file = next(series().iterdir())
    assert is_dicom(file)
    assert read_volume(file).shape == (1, 128, 128, 1)


def test_missing_slice_is_refused_with_the_gap(series):
    folder = series(count=6, order=1)
    (folder / "s003.dcm").unlink()
    with pytest.raises(GeometryError, match=r"slices are missing \(about 1\)") as error:
        read_series(folder)
    assert "4 mm between s002.dcm and s004.dcm" in str(error.value)


def test_uneven_slices(series):
    def move(i, data):
        data.ImagePositionPatient = [0, 0, (0, 2, 4.4, 6, 8)[i]]

    with pytest.raises(GeometryError, match="unevenly spaced"):
        read_series(series(change=move))


def test_two_series_are_listed_and_one_can_be_chosen(series):
    first, second = generate_uid(), generate_uid()
    folder = series(uid=first)
    for file in series("t", uid=second, count=3).iterdir():
        shutil.move(file, folder)
    with pytest.raises(DataError, match="2 series") as error:
        read_series(folder)
    assert first in str(error.value) and f"{second} (3 slices" in str(error.value)
    assert read_volume(folder, series=second).shape[-1] == 3
    with pytest.raises(DataError, match="no such series"):
        read_series(folder, "1.2.3")
    assert {u: len(s) for u, s in list_series(folder).items()} == {first: 5, second: 3}


def test_truncated_slice(series):
    folder = series()
    file = sorted(folder.iterdir())[2]
    file.write_bytes(file.read_bytes()[:-9000])
    with pytest.raises(DataError, match=file.name):
        read_series(folder)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda i, d: setattr(d, "ImagePositionPatient", [0, 0, 30]), "one position"),
        (lambda i, d: setattr(d, "ImagePositionPatient", [0, i * 1.0, i * 2.0]), "sheared"),
        (lambda i, d: setattr(d, "PixelSpacing", [0.5 + (i == 2), 0.75]), "mixes slices"),
        (lambda i, d: setattr(d, "ImageOrientationPatient", [1, 0, 0, 0, 0, 1] if i == 2 else [1, 0, 0, 0, 1, 0]),
         "mixes slices"),
        (lambda i, d: d.__delattr__("ImagePositionPatient"), "no ImagePositionPatient"),
        (lambda i, d: setattr(d, "NumberOfFrames", 2), "multi-frame"),
        (lambda i, d: setattr(d, "SamplesPerPixel", 3), "colour"),
        (lambda i, d: setattr(d, "Modality", "SR"), "no DICOM image series"),
        (lambda i, d: (setattr(d, "Rows", 64), setattr(d, "PixelData", b"\0" * 16384)) if i == 2 else None,
         "mixes slices"),
        (lambda i, d: setattr(d, "PixelSpacing", [0, 0]), "singular|implausible"),
    ],
)  # fmt: skip
def test_refusals(series, change, word):
    with pytest.raises(AmalgamationError, match=word):
        read_series(series(change=change))


def test_empty_folder_and_stranger_files(series, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no DICOM image series"):
        read_volume(tmp_path / "empty")
    folder = series()
    (folder / "notes.txt").write_text("x")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert read_series(folder).shape[-1] == 5
    (folder / "broken.dcm").write_bytes(b"no dicom")
    with pytest.raises(DataError, match=r"broken\.dcm"):
        read_series(folder)


def test_deflated_is_refused():
    with pytest.raises(DataError, match="deflated"):
        read_series(Path(get_testdata_file("image_dfl.dcm")))


@pytest.mark.parametrize("kind", ["RLE", "bigendian", "implicit", "jp2klossless", "jpeg_ls_lossless"])
def test_transfer_syntaxes_decode_alike(kind):
    plain = read_series(Path(get_testdata_file("MR_small.dcm")))
    assert torch.equal(read_series(Path(get_testdata_file(f"MR_small_{kind}.dcm"))).as_tensor(), plain.as_tensor())


@pytest.mark.parametrize("kind", ["", "_RLE", "_jp2klossless", "_jpeg_ls_lossless"])
def test_inverted_display_changes_no_value_whatever_the_transfer_syntax(kind, tmp_path):
    plain = read_series(Path(get_testdata_file("MR_small.dcm")))
    data = pydicom.dcmread(get_testdata_file(f"MR_small{kind}.dcm"))
    data.PhotometricInterpretation = "MONOCHROME1"
    data.save_as(tmp_path / "a.dcm")
    assert torch.equal(read_series(tmp_path / "a.dcm").as_tensor(), plain.as_tensor())


@pytest.mark.parametrize("implicit", [True, False])
def test_a_data_set_without_preamble_is_told_from_a_damaged_file(implicit, tmp_path):
    data = pydicom.dcmread(get_testdata_file("MR_small.dcm"))
    path = tmp_path / "it's.dcm"
    with path.open("wb") as handle:
        stream = pydicom.filebase.DicomFileLike(handle)
        stream.is_little_endian, stream.is_implicit_VR = True, implicit
        pydicom.filewriter.write_dataset(stream, data)
    with pytest.raises(DataError, match="without the preamble") as refusal:
        read_series(path)
    assert f"dcmconv {shown_place(path)} NEW_FILE" in refusal.value.hint
    path.write_bytes(Path(get_testdata_file("MR_small.dcm")).read_bytes()[:100])
    with pytest.raises(DataError, match=r"(?s)not a readable DICOM file.*cut off"):
        read_series(path)


@pytest.mark.parametrize(
    ("modality", "words"),
    [("RTSTRUCT", r"contours.*dcmrtstruct2nii"), ("SEG", r"a segmentation.*data convert"), ("SR", "a report.*slices")],
)
def test_objects_that_are_no_scan_are_told_by_what_they_are(series, modality, words):
    folder = series(count=2, change=lambda _, data: setattr(data, "Modality", modality))
    with pytest.raises(DataError, match=rf"(?s)no DICOM image series here, but {words}"):
        read_series(folder)


@pytest.mark.parametrize("name", ["MR_truncated", "no_meta", "rtstruct", "rtplan_truncated", "test-SR", "liver_1frame"])
def test_real_files_that_are_no_slice(name):
    with pytest.raises(DataError):
        read_series(Path(get_testdata_file(f"{name}.dcm")))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(5))
def test_mutated_files_never_hang_nor_raise_anything_else(tmp_path, part):
    """500 mutants in all: only our errors, under 5 s each."""
    rng = random.Random(part)
    names = ["MR_small.dcm", "MR_small_RLE.dcm", "nested_priv_SQ.dcm", "MR_small_implicit.dcm"]
    originals = [Path(get_testdata_file(n)).read_bytes() for n in names]
    path = tmp_path / "mutant.dcm"
    read_series(Path(get_testdata_file("MR_small_jp2klossless.dcm")))  # loads the decoders
    for _ in range(100):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.choice((1, 3, 20))):
            data[rng.randrange(128, min(len(data), 2500))] = rng.randrange(256)
        path.write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)
        begin = time.process_time()
        try:
            read_series(path)
        except AmalgamationError as error:
            assert "mutant" in str(error)
        assert time.process_time() - begin < 5
