import itertools
import os

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing

from common.errors import GeometryError
from common.geometry import _SHEAR_TOLERANCE as SHEAR
from common.geometry import PLAUSIBLE_SPACING_MM, Grid, most_voxels


def oblique(spacing=(1.0, 2.0, 3.0), origin=(5.0, -7.0, 11.0), degrees=20.0) -> np.ndarray:
    a = np.radians(degrees)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def test_reads_spacing_origin_and_orientation():
    grid = Grid((4, 5, 6), np.diag([-1.0, 2.0, -3.0, 1.0]))
    assert grid.spacing == (1, 2, 3)
    assert grid.axcodes == "LAI"
    assert grid.origin == (0, 0, 0)
    assert np.allclose(grid.direction, np.diag([-1, 1, -1]))
    assert np.allclose(Grid((4, 5, 6), oblique()).spacing, (1, 2, 3))


def test_of_nibabel_and_metatensor_agree():
    affine = oblique()
    image = nib.Nifti1Image(np.zeros((3, 4, 5), np.float32), affine)
    tensor = MetaTensor(torch.zeros(2, 3, 4, 5), affine=torch.from_numpy(affine))
    assert Grid.of(image).difference(Grid.of(tensor)) is None
    assert Grid.of(image).shape == (3, 4, 5)


def test_2d_affine_is_embedded():
    grid = Grid((7, 8), np.array([[2.0, 0, 5], [0, 3, 6], [0, 0, 1]]))
    assert grid.spacing == (2, 3)
    assert grid.origin == (5, 6, 0)
    assert grid.axcodes == "RA"


def test_is_a_value_that_cannot_be_changed():
    given = oblique()
    grid = Grid((2, 2, 2), given)
    given[0, 0] = 99
    assert grid.affine[0, 0] != 99
    with pytest.raises(ValueError):
        grid.affine[0, 0] = 1


def test_corners_equal_naive_loop():
    grid = Grid((3, 4, 5), oblique())
    naive = [(oblique() @ [i, j, k, 1])[:3] for i, j, k in itertools.product((0, 2), (0, 3), (0, 4))]
    assert np.allclose(grid.corners(), naive)


@pytest.mark.parametrize(
    ("affine", "shape", "word"),
    [
        (oblique(), (3, 4, 6), "shape"),
        (oblique(spacing=(1, 2, 3.5)), (3, 4, 5), "spacing"),
        (oblique(origin=(55, -7, 11)), (3, 4, 5), "origin"),
        (oblique() @ np.array([[-1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), (3, 4, 5), "orientation"),
        (oblique(degrees=25), (3, 4, 5), "rotation"),
    ],
)
def test_difference_names_what_differs(affine, shape, word):
    assert word in Grid((3, 4, 5), oblique()).difference(Grid(shape, affine))
    assert not Grid((3, 4, 5), oblique()).same_as(Grid(shape, affine))


def test_difference_tolerates_float32_headers_and_honours_the_tolerance():
    grid = Grid((512, 512, 300), oblique())
    assert grid.same_as(Grid(grid.shape, grid.affine.astype(np.float32)))
    moved = Grid(grid.shape, oblique(origin=(5.2, -7, 11)))
    assert not grid.same_as(moved)
    assert grid.same_as(moved, tol_mm=0.3)


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (0.7, 1.1, 4.0), (9.0, 9.0, 99.0)])
def test_resampled_shape_is_what_monai_makes(spacing):
    shape = (10, 20, 31)
    grid = Grid(shape, oblique(degrees=0))
    made = Spacing(spacing)(MetaTensor(torch.zeros(1, *shape), affine=torch.from_numpy(grid.affine.copy())))
    assert grid.resampled_shape(spacing) == tuple(made.shape[1:])


def test_resampled_shape_keeps_axes_and_one_voxel():
    assert Grid((10, 20, 30), oblique()).resampled_shape((-1, 0, 3)) == (10, 20, 30)
    assert Grid((1, 1, 1), oblique()).resampled_shape((9, 9, 9)) == (1, 1, 1)


SHEARED = np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    ("affine", "word"),
    [
        (np.full((4, 4), np.nan), "NaN"),
        (np.zeros((4, 4)), "zero"),
        (np.diag([1.0, 1, 0, 1]), "singular"),
        (np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
        (SHEARED, "sheared"),
        (np.diag([1e-3, 1e-3, 1e-3, 1]), "implausible"),
        (np.diag([100.0, 100, 100, 1]), "implausible"),
    ],
)
def test_check_refuses(affine, word):
    with pytest.raises(GeometryError, match=word) as error:
        Grid((3, 3, 3), affine).check(where="scan.nii.gz")
    assert "scan.nii.gz" in str(error.value)


def test_check_overrides():
    Grid((3, 3, 3), SHEARED).check(allow_shear=True)
    Grid((3, 3, 3), np.diag([100.0, 100, 100, 1])).check(plausible_mm=None)
    Grid((3, 3, 3), np.diag([100.0, 100, 100, 1])).check(plausible_mm=(1, 200))
    assert str(Grid((3, 3, 3), oblique()).check()).startswith("(3, 3, 3) voxels")


@pytest.mark.parametrize("shape", [(3,), (0, 3, 3), (3, 3, 3, 3)])
def test_impossible_shape(shape):
    with pytest.raises(GeometryError, match="two or three axes"):
        Grid(shape, np.eye(4))


@pytest.mark.parametrize("affine", [np.eye(2), np.zeros((3, 4)), np.eye(5)])
def test_impossible_matrix(affine):
    with pytest.raises(GeometryError, match="4 x 4"):
        Grid((3, 3, 3), affine)


def test_a_grid_that_is_none_names_its_file(tmp_path):
    image = MetaTensor(torch.zeros(1, 0, 4, 4), meta={"filename_or_obj": "scan.nii.gz"})
    other = nib.Nifti1Image(np.zeros((4, 0, 4), np.int16), np.eye(4))
    other.set_filename(str(tmp_path / "other.nii"))
    for given, where, said in ((image, None, "scan.nii.gz"), (image, "case 5", "case 5"),
                               (other, None, str(tmp_path / "other.nii")),
                               (MetaTensor(torch.zeros(1, 0, 4, 4)), None, None)):  # fmt: skip
        with pytest.raises(GeometryError, match="at least one voxel") as caught:
            Grid.of(given, where=where)
        assert caught.value.where == said


def test_what_a_machine_holds(monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 1024, "SC_PHYS_PAGES": 100}[name])
    assert (most_voxels(1), most_voxels(24), most_voxels(10**9)) == (102400, 4266, 1)
    monkeypatch.setattr(os, "sysconf", lambda name: 2**40)
    assert most_voxels(1) == 2**31


def plain(spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return Grid((4, 5, 6), affine)


def test_a_twentieth_of_the_smallest_voxel_is_the_same_place():
    grid = plain((2.0, 1.0, 4.0))
    assert grid.same_as(plain((2.0, 1.0, 4.0), (0.0499, 0, 0))) and grid.same_as(plain((2.0, 1.0, 4.0), (0, 0, 0.0499)))
    assert grid.difference(plain((2.0, 1.0, 4.0), (0, 0.0501, 0))) == (
        "origin (0, 0, 0) and (0, 0.0501, 0) mm (corners 0.0501 mm apart)"
    )
    finer = plain((2.0, 0.5, 4.0))
    assert not finer.same_as(plain((2.0, 0.5, 4.0), (0.03, 0, 0))), "the smaller voxel counts"
    assert grid.same_as(plain((2.0, 1.0, 4.0), (1, 0, 0)), tol_mm=1.0)


def test_everything_that_differs_is_told():
    told = plain().difference(plain((1.0, 1.0, 2.0), (0.0, 3.0, 0.0)))
    assert told.startswith("spacing (1, 1, 1) and (1, 1, 2) mm; origin (0, 0, 0) and (0, 3, 0) mm (corners ")
    assert plain().difference(plain((1.01, 1, 1), (-0.015, 0, 0)), tol_mm=0.01).startswith("spacing")
    mirrored = Grid((4, 5, 6), np.diag([-1.0, 1, 1, 1]))
    assert plain().difference(mirrored) == "orientation RAS and LAS (corners 6 mm apart)"


def test_what_is_just_plausible():
    low, high = PLAUSIBLE_SPACING_MM
    for spacing in (low, high):
        assert plain((spacing, 1, 1)).check().spacing[0] == spacing
    for spacing in (low * 0.99, high * 1.01):
        with pytest.raises(GeometryError, match="implausible"):
            plain((spacing, 1, 1)).check()
    assert plain((1e-3, 1e5, 1)).check(plausible_mm=None) and plain((7, 7, 7)).check(plausible_mm=(7, 7))
    tilted = np.eye(4)
    tilted[0, 1] = np.tan(np.radians(30))
    with pytest.raises(GeometryError, match=r"an angle of 60\.0 degrees"):
        Grid((4, 5, 6), tilted).check()
    for tilt, fine in ((0.9 * SHEAR, True), (1.1 * SHEAR, False)):
        tilted[0, 1] = tilt
        if fine:
            assert Grid((4, 5, 6), tilted).check() and Grid((4, 5, 6), tilted).check(allow_shear=True)
        else:
            with pytest.raises(GeometryError, match="sheared"):
                Grid((4, 5, 6), tilted).check()
    flat = np.eye(4)
    flat[:3, 0] = flat[:3, 1] + np.array([0, 0, 1e-7])
    with pytest.raises(GeometryError, match="singular"):
        Grid((4, 5, 6), flat).check()


def test_a_picture_has_two_of_everything():
    flat = Grid((4, 5), np.diag([2.0, 3.0, 4.0, 1.0]))
    assert flat.spacing == (2.0, 3.0) and flat.axcodes == "RA"
    assert flat.corners().max(0).tolist() == [6, 12, 0] and len(flat.corners()) == 8
