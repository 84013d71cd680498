"""One box per picture, from the label map or from a user."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.data.prompts.picture_boxes import PictureBoxd, box_of
from common.errors import ConfigError, PromptError


def case(size=(20, 40), **more):
    image = MetaTensor(torch.zeros(3, 10, 10), meta={"spatial_shape": np.array(size)})
    label = torch.zeros(1, *size)
    label[0, 4:10, 12:20] = 1
    return {"image": image, "label": label, "case": "x", **more}


def test_the_box_around_a_mask():
    torch.manual_seed(0)
    for _ in range(5):
        mask = torch.rand(7, 9) > 0.9
        mask[3, 4] = True
        places = torch.nonzero(mask).float()
        assert torch.equal(box_of(mask), torch.stack([places.amin(0), places.amax(0)]))
    assert box_of(torch.zeros(7, 9, dtype=torch.bool)).tolist() == [[0, 0], [6, 8]]


def test_boxes_in_pixels_of_the_resized_picture():
    found = PictureBoxd("gt")(case())["box"]
    assert found.tolist() == [[2, 3], [4, 4]]  # a half of 4..9, a quarter of 12..19
    assert torch.equal(PictureBoxd("user")(case(box=[[4, 12], [9, 19]]))["box"], found)
    assert torch.equal(PictureBoxd("user", [[4, 12], [9, 19]])(case())["box"], found)
    assert "box" not in PictureBoxd("none")(case(box=[[0, 0], [1, 1]]))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (None, "trained with boxes"),
        ([[1, 2, 3], [4, 5, 6]], "two corners"),
        ([[5, 5], [5, 9]], "no extent"),
        ([[9, 9], [5, 12]], "no extent, or swapped"),
        ([[0, 0], [20, 10]], "leaves the picture"),
        ([[-1, 0], [5, 10]], "leaves the picture"),
        ([[float("nan"), 0], [5, 10]], "two corners"),
    ],
)
def test_boxes_that_cannot_be_meant(box, message):
    with pytest.raises(PromptError, match=rf"(?s)case x.*{message}"):
        PictureBoxd("user", box)(case())


def test_an_unknown_source():
    with pytest.raises(ConfigError, match="box_source"):
        PictureBoxd("oracle")
