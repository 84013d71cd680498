"""Whole scans answered by prompts leave a page of each session, and no warnings."""

import json
import warnings

import pytest
import torch
from monai.data import MetaTensor

from common.engine.interactive.volume import PromptedVolume

AFFINE = torch.diag(torch.tensor([-2.0, 2.0, 2.0, 1.0], dtype=torch.float64))


def batch(values):
    """``[1, 1, X, Y, Z]`` with the affine of a batch, as a data loader makes it."""
    image = MetaTensor(values[None, None].float(), affine=AFFINE)
    image.affine = AFFINE[None]
    return image


@pytest.fixture
def scene():
    label = torch.zeros(40, 36, 30)
    label[8:20, 8:20, 8:20] = 1
    label[24:34, 20:30, 12:22] = 2
    return batch(label + 1), batch(label)


def test_simulated_sessions_are_quiet_and_their_pages_tell_the_dice(growing, scene, tmp_path):
    image, label = scene
    volume = PromptedVolume(network=growing(experts=2), structures=["liver", "spleen", "cyst"], source="gt",
                            spacing=2.0, pages=tmp_path)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = volume(image, label=label, case=["a/b"])
    assert answer.shape == image.shape and set(answer.unique().tolist()) == {0, 1, 2}
    (page,) = tmp_path.iterdir()
    text = page.read_text()
    assert page.name == "a_b_c14cddc0.html" and "Dice" in text and "spleen" in text and "cyst" not in text


def test_experts_have_their_names_and_a_user_s_mm_are_mm(growing, scene, tmp_path):
    image, _ = scene
    network = growing(experts=2)
    network.names = ("tumours", "vessels")
    told = {"liver": {"inside": [[14, 14, 14]]}, "same": {"inside": [[-28, 28, 28]], "space": "world"}}
    image.meta["prompts"] = [json.dumps(told)]
    volume = PromptedVolume(network=network, structures=["liver"], spacing=2.0, pages=str(tmp_path))
    volume(image, case="a")
    assert "tumours" in (tmp_path / "a.html").read_text()
    liver, same = (volume.session.answer(n).mask.as_tensor() for n in ("liver", "same"))
    assert liver.any() and torch.equal(liver, same)
