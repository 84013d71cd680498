"""Clicks and boxes as 3D Slicer and OHIF send them, answered as ``tools predict`` answers the same prompts."""

import nibabel as nib
import numpy as np
import pytest

from tests.label.client import SLICER
from tests.label.toys import AFFINES, scan
from tools.predict.command import segment
from tools.predict.prompt_options import given_prompts

pytestmark = pytest.mark.label
INSIDE, OUTSIDE = [[12, 9, 7], [10, 9, 7]], [[2, 2, 2]]
BOX, ROI = [[4, 3, 2], [15, 12, 11]], [15, 4, 3, 12, 11, 2]  # the viewer's region: interleaved, not sorted


def predicted(served, bundle, name, out, **prompts):
    own = {"reuse_margin": 0.5} if bundle == "sam_med3d_moe" else {}
    result = segment(bundle, served.studies / f"{name}.nii.gz", out, weights=served.weights[bundle], overwrite=True,
                     prompts=given_prompts(**prompts), overrides=own)  # fmt: skip
    return np.asarray(nib.load(result[name]).dataobj)


@pytest.mark.parametrize("name", AFFINES)
def test_one_object_by_clicks_and_by_a_region(served, name, tmp_path):
    ask = {"label": "liver", "foreground": INSIDE, "background": OUTSIDE}
    found = served.client.infer("sam_med3d_moe_deepgrow", name, **ask, **SLICER).values
    wanted = predicted(served, "sam_med3d_moe", name, tmp_path, points={"liver": INSIDE}, outside={"liver": OUTSIDE})
    assert np.array_equal(found, wanted == 1) and found.any() and not found.all()
    found = served.client.infer("sam_med3d_moe_deepgrow", name, label="spleen", roi=ROI, **SLICER).values
    wanted = predicted(served, "sam_med3d_moe", name, tmp_path, box={"spleen": BOX})
    assert np.array_equal(found, wanted == 2) and found.any()  # a mask is 1, whatever the structure's number


@pytest.mark.parametrize("name", AFFINES)
def test_several_structures_by_clicks(served, name, tmp_path):
    own = {"liver": INSIDE[:1], "spleen": [[20, 12, 9]]}
    found = served.client.infer(
        "sam_med3d_moe_deepedit", name, **own, background=OUTSIDE, label="liver", **SLICER
    ).values
    wanted = predicted(served, "sam_med3d_moe", name, tmp_path, points=own, outside=dict.fromkeys(own, OUTSIDE))
    assert np.array_equal(found, wanted) and {1, 2} <= set(np.unique(found))


@pytest.mark.parametrize("name", AFFINES)
def test_a_box_for_ka2er(served, name, tmp_path):
    wanted = predicted(served, "ka2er", name, tmp_path, box={"liver": BOX})
    found = served.client.infer("ka2er_deepgrow", name, label="liver", roi=ROI, **SLICER).values
    assert np.array_equal(found, wanted == 1) and found.any()
    corners = served.client.infer("ka2er_deepgrow", name, label="liver", foreground=BOX, background=[], **SLICER).values
    assert np.array_equal(corners, found)  # OHIF knows no boxes
    several = served.client.infer("ka2er_deepedit", name, label="liver", liver=BOX, background=OUTSIDE, **SLICER).values
    assert np.array_equal(several, wanted)
    plain = served.client.infer("ka2er_deepedit_seg", name, **SLICER).values
    assert np.array_equal(plain, predicted(served, "ka2er", name, tmp_path)) and not np.array_equal(plain, several)


def test_a_click_that_cannot_be_used_is_said(served):
    answer = served.client.infer("ka2er_deepgrow", "ras", label="Left_Kidney", foreground=[[3, 3, 3]], **SLICER)
    assert "left kidney" in answer.params["notes"][0] and "not used" in answer.params["notes"][0]
    status, words = served.client.refusal("ka2er_deepgrow", "ras", label="cyst", foreground=BOX)
    assert status == 422 and "left kidney" in words


@pytest.mark.parametrize("model", ["sam_med3d_moe_deepgrow", "sam_med3d_moe_deepedit", "sam_med3d_moe_deepedit_seg"])
def test_no_prompt_yet_is_an_empty_map(served, model):
    assert not served.client.infer(model, "lps", **SLICER).values.any()


def test_wrong_prompts_are_refused_with_the_reason(served):
    status, words = served.client.refusal("sam_med3d_moe_deepgrow", "ras", label="liver", foreground=[[99, 9, 7]])
    assert status == 422 and "outside the volume" in words
    status, words = served.client.refusal("sam_med3d_moe_deepgrow", "ras", label="liver", roi=[1, 2, 3, 4])
    assert status == 422 and "two numbers per axis" in words


@pytest.mark.parametrize(
    ("model", "ask", "words"),
    [
        ("sam_med3d_moe_deepgrow", {"label": "liver", "foreground": [[9, 8, 7]]}, "a crop was encoded"),
        ("ka2er_deepgrow", {"label": "spleen", "roi": ROI}, "windows were encoded"),
    ],
)
def test_the_image_is_encoded_once(served, model, ask, words):
    file = scan(served.studies / "pictures" / f"fresh_{model}.nii.gz", AFFINES["lps"], seed=11)
    counts, answers = [served.log.count(words)], []
    for more in ({}, {}, {"background": [[1, 1, 1]]}):
        answers.append(served.client.infer(model, str(file), **ask, **more, **SLICER).values)
        counts.append(served.log.count(words))
    served.client.infer(model.replace("deepgrow", "deepedit"), "ras", **SLICER)  # another model in between
    counts.append(served.log.count(words))
    again = served.client.infer(model, str(file), **ask, **SLICER).values
    assert counts[1] > counts[0] and counts[1] == counts[2] == counts[3] and served.log.count(words) == counts[-1]
    assert np.array_equal(answers[0], answers[1]) and np.array_equal(answers[0], again)
