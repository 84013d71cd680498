import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage
from PIL import Image

from common.data.io import check_volume, read_volume, write_label_map, write_volume
from common.errors import DataError, GeometryError
from common.geometry import Grid

NIBABEL = Path(nib.__file__).parent / "tests" / "data"
AFFINE = np.array([[0, -2.0, 0, 9], [1.5, 0, 0, -4], [0, 0, 3, 2], [0, 0, 0, 1]])


@pytest.fixture
def volume(nifti, tmp_path):
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    return nifti(tmp_path / "scan.nii.gz", array, AFFINE), array


class TestReading:
    def test_nifti_equals_monai(self, volume):
        image = read_volume(volume[0])
        stock = LoadImage(ensure_channel_first=True)(volume[0])
        assert torch.equal(image, stock) and torch.equal(image.affine, stock.affine)
        assert image.dtype == torch.float32 and np.array_equal(image.numpy()[0], volume[1])
        assert image.meta["filename_or_obj"] == str(volume[0])

    @pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
    def test_itk_formats_equal_nifti(self, volume, tmp_path, suffix):
        path = tmp_path / f"scan{suffix}"
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(volume[0])), str(path))
        image = read_volume(path)
        assert np.allclose(image.numpy()[0], volume[1])
        assert Grid.of(image).same_as(Grid.of(read_volume(volume[0])))

    def test_png(self, tmp_path):
        array = np.arange(12, dtype=np.uint8).reshape(3, 4)
        Image.fromarray(array).save(tmp_path / "a.png")
        image = read_volume(tmp_path / "a.png", dim=2)
        assert image.shape == (1, 4, 3) and np.array_equal(image.numpy()[0].T, array)

    def test_channels_in_order(self, nifti, tmp_path):
        files = [nifti(tmp_path / f"x_000{i}.nii.gz", np.full((2, 3, 4), i, np.float32)) for i in range(3)]
        image = read_volume(files, channels=("a", "b", "c"))
        assert image[:, 0, 0, 0].tolist() == [0, 1, 2]
        with pytest.raises(DataError, match="missing channel c"):
            read_volume(files[:2], channels=("a", "b", "c"))

    def test_each_file_of_several_is_one_channel(self, tmp_path):
        pictures = [np.full((4, 3), value, np.uint8) for value in (7, 9)]
        for name, picture in zip("ab", pictures, strict=True):
            Image.fromarray(picture).save(tmp_path / f"{name}.png")
        files = [tmp_path / "a.png", tmp_path / "b.png"]
        assert read_volume(files, dim=2, channels=("a", "b")).shape == read_volume(files, dim=2).shape == (2, 3, 4)
        assert read_volume(files[0], dim=2, channels=("R", "G", "B")).shape == (3, 3, 4)

    def test_channels_on_other_grids(self, nifti, tmp_path):
        files = [nifti(tmp_path / "a.nii", np.zeros((2, 3, 4), np.float32)),
                 nifti(tmp_path / "b.nii", np.zeros((2, 3, 4), np.float32), AFFINE)]  # fmt: skip
        with pytest.raises(GeometryError, match="one grid"):
            read_volume(files)

    def test_4d_file_of_channels(self, nifti, tmp_path):
        path = nifti(tmp_path / "x.nii", np.arange(48, dtype=np.float32).reshape(2, 3, 4, 2))
        image = read_volume(path, channels=("T1", "T2"))
        assert image.shape == (2, 2, 3, 4) and image[:, 0, 0, 0].tolist() == [0, 1]
        with pytest.raises(DataError, match="missing channel T3"):
            read_volume(path, channels=("T1", "T2", "T3"))

    def test_choosing_a_volume(self, nifti, tmp_path):
        path = nifti(tmp_path / "x.nii", np.arange(72, dtype=np.float32).reshape(2, 3, 4, 3))
        assert read_volume(path, volume=2)[0, 0, 0, 0] == 2
        with pytest.raises(DataError, match="no such volume"):
            read_volume(path, volume=3)

    @pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6, 3), (4, 5, 6, 1, 3), (4, 5, 6, 2, 3)])
    def test_wrong_dimensions_say_so(self, nifti, tmp_path, shape):
        path = nifti(tmp_path / "odd.nii", np.zeros(shape, np.float32))
        with pytest.raises(DataError, match=r"expected a 3-D volume, got \dD?") as error:
            read_volume(path)
        assert "odd.nii" in str(error.value)
        assert "choose volume k" in str(error.value) or len(shape) == 2

    def test_single_slice_and_trailing_axis_pass(self, nifti, tmp_path):
        assert read_volume(nifti(tmp_path / "a.nii", np.zeros((4, 5, 1), np.float32))).shape == (1, 4, 5, 1)
        assert read_volume(nifti(tmp_path / "b.nii", np.zeros((4, 5, 6, 1), np.float32))).shape == (1, 4, 5, 6)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_non_finite(self, nifti, tmp_path, bad):
        array = np.zeros((3, 3, 3), np.float32)
        array[1, 1] = bad
        path = nifti(tmp_path / "n.nii.gz", array)
        with pytest.raises(DataError, match="3 of 27"):
            read_volume(path)
        assert not torch.isfinite(read_volume(path, finite=False)).all()

    @pytest.mark.parametrize("size", [0, 1, 30, 200, 400])
    @pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
    def test_cut_off_files_are_named(self, volume, tmp_path, size, suffix):
        whole = tmp_path / f"whole{suffix}"
        if suffix == ".nii.gz":
            whole = volume[0]
        else:
            SimpleITK.WriteImage(SimpleITK.ReadImage(str(volume[0])), str(whole))
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(whole.read_bytes()[:size])
        with pytest.raises(DataError, match="cut off"):
            read_volume(path)

    @pytest.mark.parametrize("content", [b"this is no gzip file" * 30, gzip.compress(b"neither is this" * 50, mtime=0)])
    def test_not_what_the_name_says(self, tmp_path, content):
        path = tmp_path / "fake.nii.gz"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"fake\.nii\.gz"):
            read_volume(path)

    def test_missing(self, tmp_path):
        with pytest.raises(DataError, match="does not exist"):
            read_volume(tmp_path / "none.nii.gz")

    def sform(self, tmp_path, matrix):
        image = nib.Nifti1Image(np.zeros((3, 3, 3), np.float32), np.diag([2.0, 2, 2, 1]))
        image.set_qform(np.diag([2.0, 2, 2, 1]), 1)
        for i, name in enumerate(("srow_x", "srow_y", "srow_z")):
            image.header[name] = matrix[i]
        image.header["sform_code"] = 1
        path = tmp_path / "s.nii"
        with path.open("wb") as handle:
            image.header.set_data_offset(352)
            image.header.write_to(handle)
            handle.write(b"\0" * (352 - handle.tell()) + b"\0" * 4 * 27)
        return path

    @pytest.mark.parametrize(
        ("matrix", "word"),
        [
            (np.zeros((3, 4)), "zero"),
            (np.full((3, 4), np.nan), "NaN"),
            (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0.0]]), "singular"),
            (np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.0]]), "sheared"),
            (np.diag([1e-3, 1e-3, 1e-3, 1])[:3], "implausible"),
            (np.diag([100.0, 100, 100, 1])[:3], "implausible"),
        ],
    )
    def test_impossible_sform_beside_a_valid_qform(self, tmp_path, matrix, word):
        with pytest.raises(GeometryError, match=word) as error:
            read_volume(self.sform(tmp_path, matrix))
        assert "s.nii" in str(error.value)

    def test_sform_that_contradicts_the_voxel_size(self, tmp_path):
        with pytest.raises(GeometryError, match="disagree about the spacing"):
            read_volume(self.sform(tmp_path, np.diag([3.0, 2, 2, 1])[:3]))

    def test_overrides(self, nifti, tmp_path):
        shear = np.eye(4)
        shear[0, 1] = 0.5
        sheared = nifti(tmp_path / "a.nii", np.zeros((3, 3, 3), np.float32), shear)
        image = read_volume(sheared, allow_shear=True)
        assert np.allclose(image.affine, shear)
        with pytest.raises(GeometryError, match="sheared"):
            read_volume(sheared)
        coarse = nifti(tmp_path / "b.nii", np.zeros((3, 3, 3), np.float32), np.diag([100.0, 100, 100, 1]))
        assert read_volume(coarse, plausible_mm=(1, 200)).shape == (1, 3, 3, 3)

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("anatomical.nii", None),
            ("standard.nii.gz", None),
            ("reoriented_anat_moved.nii", None),
            ("example4d.nii.gz", "choose volume k of 2"),
            ("functional.nii", "choose volume k of 20"),
            ("resampled_anat_moved.nii", "NaN"),
        ],
    )
    def test_real_files_of_nibabel(self, name, error):
        if error is None:
            stored = nib.load(NIBABEL / name)
            image = read_volume(NIBABEL / name)
            assert np.allclose(image.numpy()[0], stored.get_fdata(), rtol=1e-5)
            assert np.allclose(image.affine, stored.affine)
        else:
            with pytest.raises(DataError, match=error):
                read_volume(NIBABEL / name)

    def test_channels_in_one_file_have_a_way_to_go(self, nifti, tmp_path):
        """MSD's Task01 and Task05: the fourth axis is no time, and the first volume alone would be no answer."""
        file = nifti(tmp_path / "BRATS_001.nii.gz", np.zeros((4, 4, 4, 4), np.float32), np.eye(4))
        with pytest.raises(DataError, match="choose volume k of 4") as error:
            read_volume(file)
        assert "the channels of one scan" in error.value.hint and "OUT_0000.nii.gz, OUT_0001.nii.gz" in error.value.hint
        with pytest.raises(DataError) as flat:
            read_volume(nifti(tmp_path / "flat.nii.gz", np.zeros((4, 4), np.float32), np.eye(4)))
        assert "channels" not in flat.value.hint

    def test_check_volume_names_the_channels(self):
        with pytest.raises(DataError, match="too many channels"):
            check_volume(MetaTensor(torch.zeros(3, 2, 2, 2)), "c", channels=("a", "b"))


class TestWriting:
    GRID = Grid((3, 4, 5), AFFINE)
    ARRAY = np.random.default_rng(0).integers(0, 5, (3, 4, 5))

    @pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
    def test_round_trip(self, tmp_path, suffix):
        path = write_label_map(self.ARRAY, self.GRID, tmp_path / "new folder" / f"p{suffix}")
        back = read_volume(path)
        assert np.array_equal(back.numpy()[0], self.ARRAY)
        assert Grid.of(back).same_as(self.GRID, tol_mm=1e-3)
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    def test_png(self, tmp_path):
        path = write_label_map(self.ARRAY[0], Grid((4, 5), np.eye(4)), tmp_path / "p.png")
        assert np.array_equal(read_volume(path, dim=2).numpy()[0], self.ARRAY[0])

    @pytest.mark.parametrize(
        ("array", "name", "dtype", "word"),
        [
            (ARRAY[:2], "a.nii", "uint8", "shape"),
            (ARRAY + 300, "a.nii", "uint8", "do not fit"),
            (ARRAY - 1, "a.nii", "uint8", "do not fit"),
            (ARRAY + 0.5, "a.nii", "uint8", "do not fit"),
            (np.full((3, 4, 5), np.nan), "a.nii", "uint8", "do not fit"),
            (ARRAY, "a.nii", "float32", "integer type"),
            (ARRAY, "a.txt", "uint8", "this kind"),
            (ARRAY, "a.png", "uint8", "this kind"),
        ],
    )
    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    def test_refuses_and_leaves_nothing(self, tmp_path, array, name, dtype, word):
        with pytest.raises(DataError, match=word):
            write_label_map(array, self.GRID, tmp_path / name, dtype)
        assert not list(tmp_path.iterdir())

    def test_failure_keeps_the_previous_file(self, tmp_path, monkeypatch):
        path = write_label_map(self.ARRAY, self.GRID, tmp_path / "p.nii")
        before = path.read_bytes()

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match=r"p\.nii: cannot write the file: No space"):
            write_label_map(self.ARRAY * 0, self.GRID, path)
        assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1

    def test_volume(self, tmp_path):
        image = MetaTensor(torch.rand(1, 3, 4, 5), affine=torch.from_numpy(AFFINE))
        assert torch.equal(read_volume(write_volume(image, tmp_path / "v.nii.gz")), image)
        for bad, name in ((image.repeat(2, 1, 1, 1), "v.nii"), (image, "v.png")):
            with pytest.raises(DataError, match="one channel"):
                write_volume(bad, tmp_path / name)
