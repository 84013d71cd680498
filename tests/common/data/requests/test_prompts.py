"""Requests become prompts; everything else passes."""

import json

import pytest
import torch
from monai.data import MetaTensor

from common.data.requests.prompts import RequestPromptsd
from common.errors import PromptError


def image():
    return MetaTensor(torch.zeros(1, 6, 5, 4))


def test_a_request_is_about_one_object():
    given = {"image": image(), "image_path": "a.nii.gz", "label": "Left Kidney", "foreground": [(1, 2, 3)],
             "background": [[0, 0, 0]], "roi": [4, 1, -2, 3, 0, 9]}  # fmt: skip
    meta = RequestPromptsd()(given)["image"].meta
    own = {"inside": [[1, 2, 3]], "outside": [[0, 0, 0]], "box": [[1, 0, 0], [4, 3, 3]]}
    assert json.loads(meta["prompts"]) == {"Left Kidney": own} and meta["answer"] == "mask"


def test_an_object_without_a_name_and_one_that_is_not_begun():
    assert list(
        json.loads(RequestPromptsd()({"image": image(), "foreground": [[1, 1, 1]]})["image"].meta["prompts"])
    ) == ["object"]
    meta = RequestPromptsd()({"image": image(), "label": "x", "background": [[1, 1, 1]]})["image"].meta
    assert meta["prompts"] == "{}" and meta["answer"] == "mask"


def test_other_cases_pass():
    case = {"image": image(), "label": "labels/a.nii.gz", "case": "a"}
    assert "answer" not in RequestPromptsd()(case)["image"].meta


@pytest.mark.parametrize("request_", [{"foreground": [[1, 2]]}, {"roi": [1, 2, 3]}])
def test_what_is_no_prompt_is_refused(request_):
    with pytest.raises(PromptError):
        RequestPromptsd()({"image": image(), **request_})
    with pytest.raises(PromptError, match="MetaTensor"):
        RequestPromptsd()({"image": torch.zeros(1, 2, 2, 2), "foreground": [[1, 1, 1]]})
