"""Every data failure that the stock stack lets through silently or without a file name, found by one check."""

import gzip
import json
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from common.data.datasets.verify import KINDS, check

SHAPE = (6, 7, 8)
RNG = np.random.default_rng(0)
IMAGE = RNG.normal(0, 200, SHAPE).astype(np.float32)
LABEL = RNG.choice([0, 1, 5], SHAPE).astype(np.uint8)


def save(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


@pytest.fixture
def folder(tmp_path):
    """A clean dataset of four cases ``c0`` ... ``c3``."""
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    entries = []
    for i in range(4):
        save(root / "images" / f"c{i}.nii.gz", IMAGE + i)
        save(root / "labels" / f"c{i}.nii.gz", LABEL)
        entries.append({"image": f"images/c{i}.nii.gz", "label": f"labels/c{i}.nii.gz"})
    data = {"name": "set", "modality": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "spleen": 5}}
    (root / "dataset.json").write_text(json.dumps({**data, "training": entries[:3], "validation": entries[3:]}))
    return root


def edit(folder, change):
    data = json.loads((folder / "dataset.json").read_text())
    change(data)
    (folder / "dataset.json").write_text(json.dumps(data))


def the_problem(folder, kind, severity="error", case="set/c1"):
    """The one problem that is expected, checked for being complete; nothing else may be reported."""
    found = check(folder)
    assert [(p.kind, p.severity) for p in found] == [(kind, severity)], found
    assert found[0].kind in KINDS and found[0].case == case and found[0].got
    return found[0]


def test_clean(folder):
    assert check(folder) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_voxels(folder, bad):
    image = IMAGE.copy()
    image[2, 3, 4] = bad
    save(folder / "images" / "c1.nii.gz", image)
    assert "1 of 336" in the_problem(folder, "non-finite").got


@pytest.mark.parametrize(
    ("label", "affine", "word"),
    [
        (LABEL[:-1], np.eye(4), "shape"),
        (LABEL, np.diag([1, 1, 2.0, 1]), "spacing"),
        (LABEL, np.eye(4) + np.outer([1, 0, 0, 0], [0, 0, 0, 50.0]), "origin"),
        (LABEL, np.diag([-1.0, 1, 1, 1]) + np.outer([1, 0, 0, 0], [0, 0, 0, 5.0]), "orientation"),
    ],
)
def test_label_on_another_grid(folder, label, affine, word):
    save(folder / "labels" / "c1.nii.gz", label, affine)
    problem = the_problem(folder, "grid")
    assert word in problem.got and "voxels" in problem.expected and problem.hint


@pytest.mark.parametrize("bad", [255, -1, 2])
def test_undeclared_values(folder, bad):
    label = LABEL.astype(np.int16)
    label[0, 0, 0] = bad
    save(folder / "labels" / "c1.nii.gz", label)
    problem = the_problem(folder, "labels")
    assert str(bad) in problem.got and "liver" in problem.expected and problem.file.endswith("c1.nii.gz")


@pytest.mark.parametrize("bad", [0.25, 0.75, 1.7, np.nan])
def test_fractional_values(folder, bad):
    label = LABEL.astype(np.float32)
    label[0, 0, 0] = bad
    save(folder / "labels" / "c1.nii.gz", label)
    assert "fractional" in the_problem(folder, "labels").got


def test_empty_mask_is_a_warning(folder):
    save(folder / "labels" / "c1.nii.gz", LABEL * 0)
    the_problem(folder, "empty mask", "warning")


def test_constant_image_is_a_warning(folder):
    save(folder / "images" / "c1.nii.gz", IMAGE * 0 + 7)
    assert "7" in the_problem(folder, "constant image", "warning").got


@pytest.mark.parametrize("shape", [(*SHAPE, 3), (*SHAPE, 1, 3), (6, 7)])
def test_wrong_dimensions(folder, shape):
    save(folder / "images" / "c1.nii.gz", np.ones(shape, np.float32))
    problem = the_problem(folder, "dimensions")
    assert "expected a 3-D volume" in problem.got


def test_single_slice_is_a_warning(folder):
    save(folder / "images" / "c1.nii.gz", IMAGE[..., :1])
    save(folder / "labels" / "c1.nii.gz", LABEL[..., :1])
    the_problem(folder, "dimensions", "warning")


def with_sform(path, matrix):
    """Rewrite an uncompressed copy of the file with another sform beside its valid qform and voxel size."""
    image = nib.load(path)
    header, data = image.header.copy(), image.get_fdata().astype(np.float32)
    header.set_data_dtype(np.float32)
    header["sform_code"], header["qform_code"] = 1, 1
    header["srow_x"], header["srow_y"], header["srow_z"] = matrix[:3]
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path.write_bytes(gzip.compress(header.binaryblock + b"\0" * 4 + data.tobytes(order="F")))


@pytest.mark.parametrize(
    ("matrix", "word"),
    [
        (np.zeros((4, 4)), "zero"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
        (np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "sheared"),
        (np.diag([3.0, 1, 1, 1]), "disagree"),
        (np.diag([1e-3, 1e-3, 1e-3, 1]), "implausible"),
        (np.diag([100.0, 100, 100, 1]), "implausible"),
    ],
)
def test_impossible_affines(folder, matrix, word):
    with_sform(folder / "images" / "c1.nii.gz", matrix)
    problem = the_problem(folder, "geometry")
    assert word in problem.got and problem.file.endswith("c1.nii.gz")


def test_metres_can_be_allowed(folder):
    for part in ("images", "labels"):
        save(folder / part / "c1.nii.gz", IMAGE + 1 if part == "images" else LABEL, np.diag([100.0, 100, 100, 1]))
    assert {p.kind for p in check(folder)} == {"geometry"}
    found = check(folder, plausible_mm=(0.01, 200), max_voxels=1e6)
    assert [(p.kind, p.severity) for p in found] == [("size", "warning")]


def test_no_stored_orientation_is_refused(folder):
    path = folder / "images" / "c1.nii.gz"
    image = nib.load(path)
    image.header["sform_code"] = image.header["qform_code"] = 0
    with_codes = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    nib.save(with_codes, path)
    save(folder / "labels" / "c1.nii.gz", LABEL, nib.load(path).affine)
    assert "which side is left" in the_problem(folder, "geometry", "error").got


def test_a_qform_alone_is_a_warning(folder):
    path = folder / "images" / "c1.nii.gz"
    image = nib.load(path)
    image.set_qform(image.affine, 1)
    image.set_sform(None, 0)
    nib.save(image, path)
    assert "no sform; the qform was used" in the_problem(folder, "header", "warning").got


@pytest.mark.parametrize("part", ["images", "labels"])
@pytest.mark.parametrize("cut", ["empty", "truncated", "not gzip", "missing"])
def test_broken_files(folder, part, cut):
    path = folder / part / "c1.nii.gz"
    content = path.read_bytes()
    if cut == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "truncated": content[:-200], "not gzip": b"x" * 900}[cut])
    problem = the_problem(folder, "missing file" if cut == "missing" else "unreadable")
    assert problem.file.endswith(f"{part}/c1.nii.gz") and problem.hint


def test_duplicate_ids(folder):
    edit(folder, lambda d: d["training"][1].update(id="c0"))
    assert "repeats" in the_problem(folder, "datalist", case="set/c0").got


def test_two_inputs_with_one_base_name(folder):
    (folder / "other").mkdir()
    shutil.move(folder / "images" / "c1.nii.gz", folder / "other" / "c0.nii.gz")
    edit(folder, lambda d: d["training"][1].update(image="other/c0.nii.gz"))
    assert "repeats" in the_problem(folder, "datalist", case="set/c0").got
    edit(folder, lambda d: d["training"][1].update(id="other_c0"))
    assert check(folder) == []


def test_subject_leakage(folder):
    edit(folder, lambda d: (d["training"][1].update(subject="p"), d["validation"][0].update(subject="p")))
    assert "subject p in training and validation" in the_problem(folder, "datalist", case="set/c3").got


@pytest.mark.parametrize(("copy", "severity"), [("c2", "warning"), ("c3", "error")])
def test_duplicate_images_by_content(folder, copy, severity):
    """Stored differently (uncompressed values, other compression), equal voxels."""
    nib.save(nib.Nifti1Image((IMAGE + 1).astype(np.float64), np.eye(4)), folder / "images" / f"{copy}.nii.gz")
    assert "set/c1" in the_problem(folder, "duplicate", severity, case=f"set/{copy}").got


def test_missing_and_swapped_channels(folder):
    edit(folder, lambda d: d.update(modality=["FLAIR", "T1"]))
    found = check(folder)
    assert {p.kind for p in found} == {"channels"} and len(found) == 4
    assert all("missing channel T1" in p.got for p in found)
    edit(folder, lambda d: [e.update(image=["x_0001.nii.gz", "x_0000.nii.gz"]) for e in d["training"]])
    assert any("not in the order" in p.got and p.kind == "datalist" for p in check(folder))


def test_several_problems_are_all_listed(folder):
    (folder / "images" / "c0.nii.gz").write_bytes(b"")
    save(folder / "labels" / "c1.nii.gz", LABEL + 9)
    save(folder / "labels" / "c2.nii.gz", LABEL[1:])
    edit(folder, lambda d: d["training"].append({"image": "images/c0.nii.gz"}))
    kinds = {p.kind for p in check(folder)}
    assert {"unreadable", "labels", "grid", "datalist"} <= kinds


def test_unreadable_datalist(folder):
    (folder / "dataset.json").write_text("{")
    assert [p.kind for p in check(folder)] == ["datalist"]


def dicom_series(target, count=5, uid=None):
    target.mkdir(exist_ok=True)
    template, uid = pydicom.dcmread(get_testdata_file("CT_small.dcm")), uid or generate_uid()
    for i in range(count):
        data = template.copy()
        data.SeriesInstanceUID, data.SOPInstanceUID = uid, generate_uid()
        data.ImagePositionPatient = [0, 0, 2.0 * i]
        data.save_as(target / f"{uid[-6:]}_{i}.dcm")
    return target


@pytest.mark.parametrize(
    ("damage", "kind", "word"),
    [
        (lambda f: sorted(f.iterdir())[2].unlink(), "geometry", "slices are missing"),
        (lambda f: dicom_series(f), "unreadable", "2 series"),
        (lambda f: (g := sorted(f.iterdir())[2]).write_bytes(g.read_bytes()[:-5000]), "unreadable", "truncated"),
    ],
)
def test_dicom_series(folder, damage, kind, word):
    series = dicom_series(folder / "images" / "c9")
    edit(folder, lambda d: d.update(unlabelled=[{"image": "images/c9", "id": "c9"}]))
    assert check(folder) == []
    damage(series)
    assert word in the_problem(folder, kind, case="set/c9").got
