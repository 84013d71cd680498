"""What a user may write as prompts, and that nothing else passes."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.errors import ConfigError, PromptError
from tools.bundle_files import read_json
from tools.predict.prompt_options import GivenPrompts, given_prompts, prompt_entries, reads


def test_points_and_boxes_of_the_command_line():
    given = given_prompts(
        points={"liver": [[1, 2, 3], [4, 5, 6]], "spleen": (7, 8, 9)},
        outside={"liver": [[0, 0, 0]]},
        box={"spleen": [[1, 1, 1], [5, 6, 7]]},
    )
    assert given.of("any") == {
        "liver": {"inside": [[1, 2, 3], [4, 5, 6]], "outside": [[0, 0, 0]], "space": "voxel"},
        "spleen": {"inside": [[7, 8, 9]], "box": [[1, 1, 1], [5, 6, 7]], "space": "voxel"},
    }
    assert given and not given_prompts() and given_prompts().of("any") == {}


def test_a_file_for_all_scans_and_one_by_scan(tmp_path):
    own = {"inside": [[1, 2, 3]], "space": "world"}
    for content, a, b in (
        ({"liver": own}, {"liver": own}, {"liver": own}),
        ({"a": {"liver": own}}, {"liver": own}, {}),
        ({"a": {"liver": own}, "cyst": own}, {"liver": own, "cyst": own}, {"cyst": own}),
    ):
        (tmp_path / "p.json").write_text(json.dumps(content))
        given = given_prompts(prompts=str(tmp_path / "p.json"))
        assert given.of("a") == a and given.of("b") == b


def test_options_are_added_to_what_the_file_says():
    given = given_prompts(
        prompts={"a": {"liver": {"inside": [[1, 1, 1]], "box": [[0, 0, 0], [2, 2, 2]]}}},
        points={"liver": [[2, 2, 2]]},
        box={"liver": [[0, 0, 0], [3, 3, 3]]},
        space="world",
    )
    assert given.of("a")["liver"]["inside"] == [[1, 1, 1], [2, 2, 2]]
    assert given.of("a")["liver"]["box"][1] == [3, 3, 3] and given.of("b")["liver"]["space"] == "world"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"points": [[1, 2, 3]]}, "named after their objects"),
        ({"points": {"liver": [[1, 2]]}}, r'object "liver".*three numbers'),
        ({"points": {"liver": [["a", 2, 3]]}}, "three numbers"),
        ({"points": {"liver": 4}}, "three numbers"),
        ({"points": {"liver": [[1, 2, float("nan")]]}}, "three numbers"),
        ({"points": {"liver": []}}, "not understood"),
        ({"box": {"liver": [[1, 2, 3]]}}, "two corners"),
        ({"prompts": "nowhere.json"}, r"nowhere\.json.*cannot be read"),
        ({"prompts": {"liver": [[1, 2, 3]]}}, "objects by name"),
        ({"prompts": {"liver": {"into": [[1, 2, 3]]}}}, "into"),
        ({"prompts": {"a": {"liver": {"inside": [[1, 2, 3]], "space": "mm"}}}}, 'a, object "liver".*unknown space'),
    ],
)
def test_what_is_no_prompt_is_refused(options, words):
    with pytest.raises(PromptError, match=f"(?s){words}"):
        given_prompts(**options)


def test_another_space_is_refused():
    with pytest.raises(ConfigError, match="voxel, world"):
        given_prompts(points={"a": [1, 2, 3]}, space="mm")


def test_who_reads_what():
    for bundle, kind in (("sam_med3d_moe", "prompts"), ("sam_med3d_moe_expert", "prompts"), ("ka2er", "boxes")):
        assert reads(read_json(Path(f"bundles/{bundle}/configs/inference.json"))) == kind
    assert reads(read_json(Path("bundles/m4oe/configs/inference.json"))) is None
    assert reads({"_target_": "elsewhere.OtherUserPromptsd"}) is None


def scan(folder):
    path = folder / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((20, 18, 10), np.float32), np.diag([2.0, 2, 3, 1])), path)
    return {"a": [str(path)]}


def test_a_bundle_that_reads_prompts_gets_them_as_they_are(tmp_path):
    given = given_prompts(points={"$name": [1, 2, 3]})
    entries = prompt_entries(given, scan(tmp_path), "prompts", tmp_path / "p", "b")
    assert json.loads(Path(entries["a"]["prompts"]).read_text()) == given.of("a")
    assert prompt_entries(GivenPrompts(), {"a": []}, None, tmp_path, "b") == {"a": {}}
    with pytest.raises(PromptError, match=r"there are no prompts for this scan"):
        prompt_entries(given_prompts(prompts={"x": given.of("a")}), {"a": []}, "prompts", tmp_path, "b")


@pytest.mark.parametrize(
    ("space", "corners", "expected"),
    [
        ("voxel", [[1, 2, 3], [9, 8, 7]], [[1, 2, 3], [9, 8, 7]]),
        ("world", [[2, 4, 9], [18, 16, 21]], [[1, 2, 3], [9, 8, 7]]),
        ("world", [[-9, 4, 9], [18, 16, 2100]], [[0, 2, 3], [9, 8, 9]]),
    ],
)
def test_a_bundle_that_reads_boxes_gets_voxels(tmp_path, space, corners, expected):
    given = given_prompts(box={"liver": corners}, space=space)
    entries = prompt_entries(given, scan(tmp_path), "boxes", tmp_path / "p", "b")
    assert json.loads(Path(entries["a"]["boxes"]).read_text()) == {"liver": expected}


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"points": {"liver": [1, 2, 3]}}, "boxes", "reads boxes, not points"),
        ({"points": {"liver": [1, 2, 3]}}, None, "reads no prompts"),
        ({"box": {"liver": [[1, 2, 3], [30, 9, 9]]}}, "boxes", "leaves the volume"),
        ({"box": {"liver": [[1, 2, 3], [1, 9, 9]]}}, "boxes", "no extent"),
        ({"box": {"liver": [[-9, -9, -9], [-2, -2, -2]]}, "space": "world"}, "boxes", "outside the scan"),
    ],
)
def test_prompts_that_a_bundle_cannot_read(tmp_path, options, kind, words):
    with pytest.raises(PromptError, match=words):
        prompt_entries(given_prompts(**options), scan(tmp_path), kind, tmp_path / "p", "b")
