"""Faults that an option accepts: what is mended is right, said and bounded; what is not asked for stays refused."""

import shutil

import numpy as np
import pytest
from pydicom.uid import generate_uid

from common.data.dicom.grid import on_slices, stacks
from common.data.dicom.series import SeriesOptions, read_dicom, read_series
from common.errors import DataError, GeometryError
from common.geometry import Grid

TURN = np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]]) @ np.array(
    [[np.cos(0.2), -np.sin(0.2), 0], [np.sin(0.2), np.cos(0.2), 0], [0, 0, 1]]
)


def ramp(shape=(10, 8, 9)):
    """Intensities that are linear in the world, so that right interpolation is exact."""
    i, j, k = np.indices(shape)
    return (100 * k + 10 * i - 20 * j).astype(np.int16)


def drop(folder, *numbers):
    for k in numbers:
        (folder / f"{k * 7 % 101:03d}.dcm").unlink()
    return folder


@pytest.mark.parametrize("turn", [None, TURN])
def test_missing_slices_are_interpolated_and_named(dicom_series, tmp_path, caplog, turn):
    whole = read_series(dicom_series(tmp_path / "s", ramp(), turn=turn))
    folder = drop(tmp_path / "s", 3, 6, 7)
    with pytest.raises(GeometryError, match=r"missing \(about 3\)") as refusal:
        read_series(folder)
    assert "python -m tools predict takes --fill_gaps True; for everything else convert" in str(refusal.value)
    found = read_dicom(folder, SeriesOptions(fill_gaps=True))
    assert Grid.of(found.image).same_as(Grid.of(whole), tol_mm=1e-3)
    np.testing.assert_allclose(found.image.numpy(), whole.numpy(), atol=1e-3)
    (note,) = found.notes
    assert "3 of 9 slices are interpolated" in note and "slice 3 between 014.dcm and 028.dcm" in note
    assert note in caplog.text and len(found.slices) == 6


def test_uneven_slices_become_even(dicom_series, tmp_path):
    heights = [0, 3, 6, 10.5, 12, 15]

    def move(k, data):
        data.ImagePositionPatient = [0, 0, heights[k]]
        data.PixelData = np.full((8, 10), 10 * heights[k], np.int16).tobytes()

    folder = dicom_series(tmp_path / "s", ramp((10, 8, 6)), change=move)
    found = read_dicom(folder, SeriesOptions(fill_gaps=True))
    assert found.image[0, 0, 0].tolist() == pytest.approx([0, 30, 60, 90, 120, 150])
    assert "1 of 6 slices are interpolated" in found.notes[0]


def test_no_more_is_invented_than_there_is(dicom_series, tmp_path):
    folder = drop(dicom_series(tmp_path / "s", ramp((10, 8, 40))), *range(4, 39))
    with pytest.raises(GeometryError, match="more slices are missing than there are"):
        read_dicom(folder, SeriesOptions(fill_gaps=True))


@pytest.mark.parametrize("lean", [1.25, -2.0])
def test_gantry_tilt_is_straightened(dicom_series, tmp_path, lean):
    """A slab that is straight in the world is leaning in the tilted pixels, and straight again afterwards."""
    voxels = np.zeros((12, 40, 8), np.int16)
    for k in range(8):  # world rows from 25 to 35 mm above the first slice's first row
        rows = np.arange(40) * 1.25 + k * lean
        voxels[:, :, k] = np.where((rows >= 25) & (rows < 35), 1000, -1000)
    folder = dicom_series(tmp_path / "s", voxels, lean=lean)
    with pytest.raises(GeometryError, match="sheared") as refusal:
        read_series(folder)
    assert "--straighten True" in str(refusal.value)
    found = read_dicom(folder, SeriesOptions(straighten=True))
    grid = Grid.of(found.image).check()
    assert grid.spacing == pytest.approx((1.5, 1.25, 3.0))
    rows = (grid.origin[1] * -1 - 12.5) + np.arange(grid.shape[1]) * 1.25  # RAS to LPS
    inside = (found.image[0] > 0).numpy()
    assert (inside == ((rows >= 24.3) & (rows < 34.4))[None, :, None]).mean() > 0.97
    assert "shifted within their planes" in found.notes[0]
    back = on_slices(inside, grid, found.slices)  # the label returns to the tilted slices
    assert back.shape == (8, 40, 12)
    assert (back.transpose(2, 1, 0) == (voxels > 0)).mean() > 0.97


def test_one_slice_shifted_sideways(dicom_series, tmp_path):
    def move(k, data):
        if k == 4:
            x, y, z = data.ImagePositionPatient
            data.ImagePositionPatient = [x + 3.0, y, z]

    folder = dicom_series(tmp_path / "s", ramp(), change=move)
    with pytest.raises(GeometryError, match="shifted sideways") as refusal:
        read_series(folder)
    assert "028.dcm" in str(refusal.value)
    found = read_dicom(folder, SeriesOptions(straighten=True))
    assert found.image.shape == (1, 12, 8, 9)
    assert found.image[0, 2:, :, 4].numpy() == pytest.approx(ramp()[:, :, 4])
    with pytest.raises(GeometryError, match="too far beside"):
        far = dicom_series(tmp_path / "far", ramp(), lean=1000.0)
        read_dicom(far, SeriesOptions(straighten=True))


def test_phases_of_one_series_are_stacks(dicom_series, tmp_path):
    for phase in (1, 2):
        uid = "1.2.3"

        def tell(k, data, phase=phase, uid=uid):
            data.SeriesInstanceUID, data.TemporalPositionIdentifier, data.EchoNumbers = uid, phase, 1
            data.PixelData = np.full((8, 10), 100 * phase + k, np.int16).tobytes()

        part = dicom_series(tmp_path / f"p{phase}", ramp((10, 8, 5)), change=tell)
        (tmp_path / "all").mkdir(exist_ok=True)
        for file in part.iterdir():
            shutil.move(file, tmp_path / "all" / f"{phase}_{file.name}")
    with pytest.raises(GeometryError, match="one position") as refusal:
        read_series(tmp_path / "all")
    assert "2: 5 axial slices of 10 x 8 pixels, 1.25 mm, TemporalPositionIdentifier 2" in str(refusal.value)
    assert "--stack" in str(refusal.value)
    found = read_dicom(tmp_path / "all", SeriesOptions(stack=2))
    assert found.image[0, 0, 0].tolist() == [200, 201, 202, 203, 204]
    with pytest.raises(DataError, match="no such stack"):
        read_dicom(tmp_path / "all", SeriesOptions(stack=3))


def test_a_localizer_among_the_slices_is_a_stack(dicom_series, tmp_path):
    folder = dicom_series(tmp_path / "s", ramp())
    side = dicom_series(tmp_path / "t", ramp((6, 6, 2)), turn=[[0, 0, 1], [1, 0, 0], [0, 1, 0]],
                        change=lambda k, d: setattr(d, "SeriesInstanceUID", "1.2"))  # fmt: skip
    for file in folder.iterdir():
        shutil.copy(file, side / f"a{file.name}")
    import pydicom

    for file in side.glob("a*"):
        data = pydicom.dcmread(file)
        data.SeriesInstanceUID = "1.2"
        data.save_as(file)
    with pytest.raises(GeometryError, match="mixes slices") as refusal:
        read_series(side)
    assert "1: 2 sagittal slices of 6 x 6 pixels" in str(refusal.value)
    assert read_dicom(side, SeriesOptions(stack=2)).image.shape == (1, 10, 8, 9)


def test_repeated_slices(dicom_series, tmp_path):
    folder = dicom_series(tmp_path / "s", ramp())
    for name in ("014.dcm", "035.dcm"):
        shutil.copy(folder / name, folder / f"copy {name}")
    with pytest.raises(GeometryError, match="one position") as refusal:
        read_series(folder)
    assert "--skip_repeated True" in str(refusal.value)
    found = read_dicom(folder, SeriesOptions(skip_repeated=True))
    assert np.array_equal(found.image[0].numpy(), ramp())
    assert sorted(found.notes)[0] == "left out copy 014.dcm: the same slice as 014.dcm"

    def other(k, data):
        data.PixelData = np.zeros((8, 10), np.int16).tobytes()
        data.SeriesInstanceUID = found.slices[0].series

    for file in dicom_series(tmp_path / "other", ramp(), change=other).iterdir():
        shutil.move(file, folder / f"other {file.name}")
    with pytest.raises(GeometryError, match="one position"):
        read_dicom(folder, SeriesOptions(skip_repeated=True))


def test_broken_files(dicom_series, tmp_path):
    folder = dicom_series(tmp_path / "s", ramp())
    last = folder / "056.dcm"
    last.write_bytes(last.read_bytes()[:-100])
    (folder / "zz.dcm").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"zz\.dcm"):
        read_series(folder)
    found = read_dicom(folder, SeriesOptions(skip_broken=True))
    assert np.array_equal(found.image[0].numpy(), ramp()[..., :8])
    assert "left out 056.dcm: its pixels are damaged" in found.notes and "zz.dcm" in found.notes[0]
    middle = folder / "021.dcm"
    middle.write_bytes(middle.read_bytes()[:-100])
    with pytest.raises(GeometryError, match="missing"):
        read_dicom(folder, SeriesOptions(skip_broken=True))
    both = read_dicom(folder, SeriesOptions(skip_broken=True, fill_gaps=True))
    np.testing.assert_allclose(both.image[0].numpy(), ramp()[..., :8], atol=1e-3)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="no slice of the series"):
        read_dicom(folder, SeriesOptions(skip_broken=True))


def test_a_series_is_chosen_by_uid_number_or_description(dicom_series, tmp_path):
    for i, name in enumerate(("Thorax", "Abdomen 3.0", "Abdomen 3.0"), start=1):

        def tell(k, data, i=i, name=name):
            data.SeriesNumber, data.SeriesDescription = i, name

        for file in dicom_series(tmp_path / str(i), ramp((10, 8, 2 + i)), change=tell).iterdir():
            (tmp_path / "all").mkdir(exist_ok=True)
            shutil.move(file, tmp_path / "all" / f"{i}{file.name}")
    with pytest.raises(DataError, match="3 series") as refusal:
        read_series(tmp_path / "all")
    assert "Thorax, number 1" in str(refusal.value) and "--series" in str(refusal.value)
    assert read_series(tmp_path / "all", "Thorax").shape[-1] == 3
    assert read_series(tmp_path / "all", "2").shape[-1] == 4
    with pytest.raises(DataError, match="several series are called so"):
        read_series(tmp_path / "all", "Abdomen 3.0")


def test_another_series_faults_do_not_matter_once_one_is_chosen(dicom_series, tmp_path):
    """A colour screenshot in the folder, as many exports have it."""

    def colour(k, data):
        data.SeriesInstanceUID, data.SamplesPerPixel = "1.2.9", 3

    folder = dicom_series(tmp_path / "s", ramp())
    for file in dicom_series(tmp_path / "c", ramp((4, 4, 1)), change=colour).iterdir():
        shutil.move(file, folder / "screen.dcm")
    with pytest.raises(DataError, match="colour"):
        read_series(folder)
    assert read_series(folder, "4").shape == (1, 10, 8, 9)
    with pytest.raises(DataError, match="colour"):
        read_series(folder, "1.2.9")


def test_labels_go_back_to_the_very_slices(dicom_series, tmp_path):
    found = read_dicom(dicom_series(tmp_path / "s", ramp(), turn=TURN))
    label = np.random.default_rng(0).integers(0, 4, (10, 8, 9))
    assert np.array_equal(on_slices(label, Grid.of(found.image), found.slices), label.transpose(2, 1, 0))
    masks = np.stack([label == 1, label == 2])
    assert np.array_equal(on_slices(masks, Grid.of(found.image), found.slices), masks.transpose(0, 3, 2, 1))
    with pytest.raises(GeometryError, match="axes"):
        on_slices(label, Grid((10, 8, 9), np.diag([1.0, 1, 1, 1])), found.slices)


def test_a_faultless_series_is_the_same_with_every_option(dicom_series, tmp_path):
    folder = dicom_series(tmp_path / "s", ramp(), turn=TURN)
    plain = read_dicom(folder)
    every = read_dicom(folder, SeriesOptions(plain.slices[0].series, 1, True, True, True, True))
    assert np.array_equal(plain.image.numpy(), every.image.numpy())
    assert Grid.of(plain.image).same_as(Grid.of(every.image), tol_mm=1e-4)
    assert len(stacks(plain.slices)) == 1 and generate_uid() != plain.slices[0].instance
