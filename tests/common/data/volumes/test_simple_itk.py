"""What SimpleITK writes we read, and what we write it reads, at one place in the world."""

import numpy as np
import pytest
import SimpleITK

from common.data.io import read_volume
from common.data.volumes.simple_itk import read_itk, write_itk
from common.errors import DataError
from common.geometry import Grid
from tests.common.data.volumes.conftest import judged, placed

AFFINE = np.array([[0, -2.0, 0, 9], [1.5, 0, 0, -4], [0, 0, 3, 2], [0, 0, 0, 1]])


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("kind", ["uint8", "int16", "int64", "float32"])
def test_there_and_back(tmp_path, suffix, kind):
    array = np.random.default_rng(0).integers(0, 99, (3, 4, 5)).astype(kind)
    path = tmp_path / f"ä b{suffix}"
    write_itk(array, Grid((3, 4, 5), AFFINE), path)
    image = read_itk(path)
    assert np.array_equal(image.numpy()[0], array) and np.allclose(image.affine, AFFINE)
    assert np.array_equal(judged(path, (2, 3, 4))[0], array)
    np.testing.assert_allclose(placed(image, (2, 3, 4)), judged(path, (2, 3, 4))[1])
    assert image.meta["filename_or_obj"] == str(path) and tuple(image.meta["spatial_shape"]) == (3, 4, 5)
    assert read_volume(path).dtype == image.dtype


def test_complex_voxels(tmp_path):
    image = SimpleITK.GetImageFromArray(np.ones((3, 3, 3), np.complex64))
    SimpleITK.WriteImage(image, str(tmp_path / "c.nrrd"))
    with pytest.raises(DataError, match="complex"):
        read_itk(tmp_path / "c.nrrd")


def test_what_only_simple_itk_can_tell(nrrd_file):
    flat = {"dimension": "2", "sizes": "4 6", "space directions": "(2,0,0) (0,1.5,0)", "kinds": "domain domain"}
    with pytest.raises(DataError, match=r"SimpleITK cannot read the file \(.*domain axes") as refusal:
        read_itk(nrrd_file(flat))
    assert "cut off" not in str(refusal.value)
