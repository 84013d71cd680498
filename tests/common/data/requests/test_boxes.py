"""A viewer's request as boxes of named structures."""

import pytest
import torch
from monai.data import MetaTensor

from common.data.requests.boxes import RequestBoxesd, structure_named
from common.errors import PromptError

NAMES = ("liver", "left kidney")


def asked(**request):
    image = MetaTensor(torch.zeros(1, 4, 4, 4), meta={"spatial_shape": [20, 10, 6]})
    return RequestBoxesd(NAMES)({"image": image, **request})


SAID = {"liver": "liver", "Left_Kidney": "left kidney", "cyst": None, None: None}


@pytest.mark.parametrize(("given", "found"), SAID.items())
def test_names_as_servers_write_them(given, found):
    assert structure_named(given, NAMES) == found


def test_a_region_is_sorted_and_cut_at_the_original_image():
    assert asked(label="liver", roi=[15, 4, -3, 12, 2, 99])["boxes"] == {"liver": [[4, 0, 2], [15, 9, 5]]}


def test_two_clicks_are_corners_and_a_region_goes_before_them():
    clicks = [[9, 2, 5], [3, 8, 1]]
    assert asked(label="liver", foreground=clicks)["boxes"] == {"liver": [[3, 2, 1], [9, 8, 5]]}
    both = asked(label="liver", foreground=clicks, roi=[0, 1, 0, 1, 0, 1])
    assert both["boxes"] == {"liver": [[0, 0, 0], [1, 1, 1]]}


def test_each_structure_has_its_clicks():
    found = asked(label="liver", **{"left kidney": [[1, 1, 1], [2, 2, 2]], "liver": [], "background": [[0, 0, 0]]})
    assert found["boxes"] == {"left kidney": [[1, 1, 1], [2, 2, 2]]} and "notes" not in found


@pytest.mark.parametrize("points", [[[3, 3, 3]], [[3, 3, 3], [5, 5, 3]]])
def test_what_spans_no_box_is_said(points):
    found = asked(label="liver", foreground=points)
    assert "boxes" not in found and "liver" in found["notes"][0]


def test_unknown_structures_and_wrong_points_are_refused():
    with pytest.raises(PromptError, match="no such structure"):
        asked(label="cyst", roi=[0, 1, 0, 1, 0, 1])
    with pytest.raises(PromptError, match="x, y, z"):
        asked(label="liver", foreground=[[1, 2]])
    with pytest.raises(PromptError, match="two numbers per axis"):
        asked(label="liver", roi=[1, 2])
    with pytest.raises(PromptError, match="grid"):
        RequestBoxesd(NAMES)({"image": torch.zeros(1, 4, 4, 4), "label": "liver", "roi": [0, 1, 0, 1, 0, 1]})
    image = MetaTensor(torch.zeros(1, 4, 4, 4))
    assert "boxes" not in RequestBoxesd(NAMES, need_name=False)({"image": image})
