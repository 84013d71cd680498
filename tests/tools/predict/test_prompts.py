"""From points and boxes on the command line to a label map on the scan's grid and a page of the session."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from common.backbones.sam3d.network import sam3d_network
from common.card import save_weights
from common.engine.inference.windows import WindowInferer
from common.engine.run.settings import model_card
from common.errors import ConfigError, DataError, PromptError
from common.labels import LabelSpace
from common.methods.sam_med3d_moe.start import DecoderExpert, General, mixture
from tools.__main__ import main
from tools.predict.command import segment
from tools.predict.prompt_options import given_prompts

OBLIQUE = np.array([[-2.4, 0.3, 0, 12], [0.28, 2.5, 0, -30], [0, 0, 3.0, 7], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A mixture with one expert and random weights, of which a decoder marks whatever is asked for."""
    shape = {"variant": "tiny", "image_size": 32, "rel_pos": "intended", "boxes": True}
    base = sam3d_network("tiny", seed=0, boxes=True)
    expert = DecoderExpert("tumour", ("tumour",), sam3d_network("tiny", seed=1).mask_decoder, "")
    network = mixture(General(base, shape), {"tumour": expert}, hidden=16)
    settings = {
        "network": network.settings,
        "expert_structures": [["tumour"]],
        "gate_at": "every",
        "spacing": 3.0,
        "modalities": [],
    }
    card = model_card("sam_med3d_moe", LabelSpace(("liver", "tumour")), ("image",),
                      {**settings, "clip": {"CT": [-1000, 1000]}})  # fmt: skip
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    save_weights(path, network.state_dict(), card)
    return path


def scan(path, affine=OBLIQUE):
    values = np.random.default_rng(0).random((24, 20, 16)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def read(path):
    return np.asarray(nib.load(path).dataobj)


def test_the_same_points_in_voxels_and_in_mm(weights, tmp_path):
    path = scan(tmp_path / "in" / "a.nii.gz")
    affine = nib.load(path).affine
    voxels = {"liver": [[12, 9, 7]], "tumour": [[5, 6, 7], [6, 6, 7]]}
    world = {name: nib.affines.apply_affine(affine, np.array(p)).tolist() for name, p in voxels.items()}
    found = [
        read(segment("sam_med3d_moe", path, tmp_path / f"out_{space}", weights=weights,
                     prompts=given_prompts(points=points, outside={"liver": out}, space=space))["a"])
        for space, points, out in (
            ("voxel", voxels, [[1, 2, 3]]), ("world", world, nib.affines.apply_affine(affine, [[1, 2, 3]]).tolist())
        )
    ]  # fmt: skip
    assert found[0].shape == (24, 20, 16) and set(np.unique(found[0])) <= {0, 1, 2} and found[0].any()
    np.testing.assert_array_equal(*found)


def test_the_command_line_prompts_by_scan_and_pages(weights, tmp_path, capsys):
    for name in ("a", "b"):
        scan(tmp_path / "in" / f"{name}.nii.gz")
    own = {"a": {"liver": {"inside": [[12, 9, 7]]}}, "b": {"cyst": {"inside": [[5, 5, 5]]}}}
    (tmp_path / "p.json").write_text(json.dumps(own))
    command = ["predict", "--bundle", "sam_med3d_moe", "--input", str(tmp_path / "in"), "--weights", str(weights)]
    given = ["--prompts", str(tmp_path / "p.json"), "--box", "{'tumour': [[2, 2, 2], [9, 9, 9]]}"]
    out = ["--output", str(tmp_path / "out"), "--page", str(tmp_path / "pages")]
    assert main([*command, *given, *out]) == 0
    assert str(tmp_path / "pages") in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.nii.gz", "b.nii.gz"]
    assert {p.name for p in (tmp_path / "pages").iterdir()} == {"a.html", "b.html"}
    pages = {p.stem: p.read_text() for p in (tmp_path / "pages").iterdir()}
    assert "liver" in pages["a"] and "cyst" not in pages["a"] and "cyst" in pages["b"]
    assert set(np.unique(read(tmp_path / "out" / "b.nii.gz"))) <= {0, 2, 3}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs prompts"),
        ({"points": {"liver": [24, 9, 7]}}, r"(?s)a, object .liver.*outside the volume"),
        ({"box": {"liver": [[2, 2, 2], [2, 9, 9]]}}, r"(?s)a, object .liver.*no extent"),
        ({"outside": {"liver": [2, 2, 2]}}, "begins with a click inside"),
    ],
)
def test_prompts_that_cannot_be_meant_leave_nothing(weights, tmp_path, options, words):
    path = scan(tmp_path / "in" / "a.nii.gz")
    with pytest.raises(PromptError, match=words):
        segment("sam_med3d_moe", path, tmp_path / "out", weights=weights, prompts=given_prompts(**options))
    assert not list((tmp_path / "out").rglob("*"))


def test_bundles_without_prompts_or_sessions_say_so(toy_bundle, tmp_path):
    path = scan(tmp_path / "in" / "a.nii.gz")
    with pytest.raises(PromptError, match="reads no prompts"):
        segment(toy_bundle, path, tmp_path / "out", prompts=given_prompts(points={"liver": [1, 1, 1]}))
    with pytest.raises(ConfigError, match="no session to show"):
        segment(toy_bundle, path, tmp_path / "out", page=tmp_path / "page.html")
    scan(tmp_path / "in" / "b.nii.gz")
    with pytest.raises(DataError, match="folder for their pages"):
        segment("sam_med3d_moe", tmp_path / "in", tmp_path / "out", page=tmp_path / "page.html")


def test_a_box_for_the_student_is_a_box_of_the_image_that_it_sees(toy_bundle, tmp_path, monkeypatch):
    """Through the data loader to the inferer, whatever the network makes of it."""
    config = toy_bundle / "configs" / "inference.json"
    content = json.loads(config.read_text())
    boxes = {"_target_": "common.data.prompts.targets.BoxPromptsd", "source": "user", "structures": "@names"}
    content["dataset"]["transform"] = {"_target_": "Compose", "transforms": ["@preprocessing", boxes]}
    content["inferer"]["with_prompts"] = True
    config.write_text(json.dumps(content))
    seen = []

    def record(self, inputs, checked, network, *args, **kwargs):
        seen.append(checked)
        return super(WindowInferer, self).__call__(inputs, network, *args, **kwargs)

    monkeypatch.setattr(WindowInferer, "_prompted", record)
    path = scan(tmp_path / "in" / "a.nii.gz", np.diag([2.0, 2, 2, 1]))
    segment(toy_bundle, path, tmp_path / "out", prompts=given_prompts(box={"bright": [[1, 2, 3], [9, 8, 7]]}))
    torch.testing.assert_close(seen[0], torch.tensor([[[[1.0, 2, 3], [9, 8, 7]]]]))
    with pytest.raises(PromptError, match="no structure of that name"):
        segment(toy_bundle, path, tmp_path / "no", prompts=given_prompts(box={"dark": [[1, 2, 3], [9, 8, 7]]}))
