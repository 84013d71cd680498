"""What a server answers without prompts is what ``tools predict`` writes, voxel by voxel.

Also the test of ``tools.label.app``.
"""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tests.label.client import SLICER
from tests.label.conftest import GIVEN
from tests.label.toys import AFFINES, STRUCTURES
from tools.predict.command import segment

pytestmark = pytest.mark.label
VOLUMES = ("ka2er", "m4oe", "samora")


def predicted(served, bundle, file, out, **options):
    result = segment(bundle, file, out, weights=served.weights[bundle], overwrite=True,
                     overrides=GIVEN.get(bundle, {}), **options)  # fmt: skip
    return next(iter(result.values()))


def test_every_model_is_offered_as_what_it_is(served):
    models = served.info["models"]
    assert {n: m["type"] for n, m in models.items()} == {
        "ka2er_segmentation": "segmentation", "ka2er_deepgrow": "deepgrow", "ka2er_deepedit": "deepedit",
        "ka2er_deepedit_seg": "segmentation", "m4oe_segmentation": "segmentation",
        "samora_segmentation": "segmentation",
        "sam_med3d_moe_deepgrow": "deepgrow", "sam_med3d_moe_deepedit": "deepedit",
        "sam_med3d_moe_deepedit_seg": "segmentation", "ic_moe_segmentation": "segmentation",
    }  # fmt: skip
    assert {m["dimension"] for n, m in models.items() if n != "ic_moe_segmentation"} == {3}
    assert models["ic_moe_segmentation"]["dimension"] == 2
    numbers = {name: i for i, name in enumerate(STRUCTURES, start=1)}
    assert all(m["labels"] == numbers | ({"background": 0} if m["type"] == "deepedit" else {}) for m in models.values())
    assert models["m4oe_segmentation"]["config"]["modality"] == ["CT", "T2 MR"]
    assert all(m["config"]["model_filename"] == ["model.pt"] for m in models.values())
    assert set(served.info["trainers"]) == {f.name for f in served.folders}


@pytest.mark.parametrize("bundle", VOLUMES)
@pytest.mark.parametrize("name", AFFINES)
def test_scans_of_any_orientation(served, bundle, name, tmp_path):
    answer = served.client.infer(f"{bundle}_segmentation", name, **SLICER)
    file = predicted(served, bundle, served.studies / f"{name}.nii.gz", tmp_path)
    wanted = np.asarray(nib.load(file).dataobj)
    assert answer.values.dtype == np.uint8 and np.array_equal(answer.values, wanted)
    assert len(np.unique(wanted)) > 2  # or the comparison would say little
    millilitres = abs(np.linalg.det(AFFINES[name][:3, :3])) / 1000
    counts = {s: int((wanted == i).sum()) for i, s in enumerate(STRUCTURES, start=1)}
    expected = {s: n * millilitres for s, n in counts.items() if n}
    assert answer.params["volumes_ml"] == pytest.approx(expected, abs=0.01)


def test_without_wishes_the_file_is_nifti_on_the_scans_grid(served):
    answer = served.client.infer("ka2er_segmentation", "oblique")
    image = nib.load(answer.file)
    assert image.get_data_dtype() == np.uint8 and image.shape == nib.load(served.studies / "oblique.nii.gz").shape
    np.testing.assert_allclose(image.affine, AFFINES["oblique"], atol=1e-4)


def test_a_user_chooses_modality_and_head_and_wrong_ones_are_refused(served, tmp_path):
    answer = served.client.infer("m4oe_segmentation", "lps", modality="T2 MR", head="kidneys", **SLICER)
    result = segment("m4oe", served.studies / "lps.nii.gz", tmp_path, weights=served.weights["m4oe"],
                     overrides={"modality": "T2 MR", "head": "kidneys"})  # fmt: skip
    assert np.array_equal(answer.values, np.asarray(nib.load(result["lps"]).dataobj))
    usual = served.client.infer("m4oe_segmentation", "lps", **SLICER)
    assert not np.array_equal(answer.values, usual.values)
    status, words = served.client.refusal("m4oe_segmentation", "lps", modality="PET")
    assert status == 422 and "T2 MR" in words


@pytest.mark.parametrize("name", ["picture0.png", "photo.jpg"])
def test_pictures(served, name, tmp_path):
    file = served.pictures / name
    wanted = np.asarray(Image.open(predicted(served, "ic_moe", file, tmp_path)))
    answer = served.client.infer("ic_moe_segmentation", str(file))
    assert answer.file.suffix == ".png" and np.array_equal(np.asarray(Image.open(answer.file)), wanted)
    assert wanted.shape == (70, 90) and len(np.unique(wanted)) > 1
    assert sum(answer.params["areas_px"].values()) == (wanted > 0).sum()
    slicer = served.client.infer("ic_moe_segmentation", str(file), **SLICER)
    assert np.array_equal(slicer.values.T, wanted)


def test_a_dicom_series_as_input(served, tmp_path):
    from tests.tools.predict.test_command import dicom

    voxels = np.random.default_rng(0).integers(0, 200, (24, 20, 12))
    dicom(served.studies / "series", voxels)
    answer = served.client.infer("ka2er_segmentation", str(served.studies / "series"))
    result = segment(
        "ka2er", served.studies / "series", tmp_path / "out", weights=served.weights["ka2er"], result="nifti"
    )
    wanted = nib.load(next(iter(result.values())))
    found = nib.load(answer.file)
    assert np.array_equal(np.asarray(found.dataobj), np.asarray(wanted.dataobj))
    np.testing.assert_allclose(found.affine, wanted.affine, atol=1e-4)


def test_what_cannot_be_read_is_refused_with_the_reason(served):
    affine = AFFINES["ras"].copy()
    affine[0, 1] = 1.5
    sheared = served.studies / "pictures" / "sheared.nii.gz"  # below the folder: not listed
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), np.float32), affine), sheared)
    status, words = served.client.refusal("ka2er_segmentation", str(sheared))
    assert status == 422 and "sheared" in words


def test_several_answers_at_once_as_the_batch_does_it(served):
    request = {"device": "cpu", "multi_gpu": False, "save_label": True, "label_tag": "original", "images": "all"}
    served.client.json("POST", "/batch/infer/samora_segmentation", request)
    status = served.client.wait("/batch/infer/")
    assert status == "DONE"
    assert {p.name for p in (served.studies / "labels" / "original").glob("*.nii.gz")} >= {
        f"{n}.nii.gz" for n in AFFINES
    }
