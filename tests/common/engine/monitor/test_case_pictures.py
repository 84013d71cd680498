"""Pictures of flat cases: in the label map's size, in colour, the right way up."""

from types import SimpleNamespace

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image

from common.engine.monitor.case_pictures import Plane, _outlines, draw_planes, three_planes
from common.engine.monitor.overlays import draw_overlay
from common.labels import LabelSpace


def case():
    """The upper half of the picture is bright, the label is at its upper right."""
    image, label = torch.zeros(3, 8, 8), np.zeros((16, 24), int)
    image[:, :, :4] = torch.tensor([1.0, 0.5, 0.2])[:, None, None]
    label[10:14, 3:9] = 1
    return image, label


def test_what_networks_get_is_brought_to_the_label_map_s_size():
    image, label = case()
    (plane,) = three_planes(label, label, np.eye(4), MetaTensor(image), 1)
    assert plane.name == "picture" and plane.image.shape == (16, 24, 3) and plane.pixel == (1.0, 1.0)
    assert plane.image.max() == 1 and plane.image.min() == 0
    (grey,) = three_planes(label, label, np.eye(4), image[:1], 1)
    assert grey.image.shape == (16, 24)
    (bare,) = three_planes(label, label, np.eye(4), None, 1)
    assert bare.image is None


def brightness(path):
    array = np.asarray(Image.open(path).convert("L")).astype(float)
    height = len(array)
    return array[height // 4 : height // 2].mean(), array[height // 2 : 3 * height // 4].mean()


def test_up_is_up(tmp_path):
    image, label = case()
    (plane,) = three_planes(label, label, np.eye(4), image, 1)
    draw_planes([plane], LabelSpace(("lesion",)), "x", tmp_path / "planes.png")
    upper, lower = brightness(tmp_path / "planes.png")
    assert upper > lower + 30
    draw_overlay(
        tmp_path / "overlay.png", image=image[0].numpy(), label=None, pred=None, labels=LabelSpace(("lesion",))
    )
    upper, lower = brightness(tmp_path / "overlay.png")
    assert upper > lower + 30


def test_outlines_go_through_the_middles_of_pixels():
    """In mm of a grid with unlike sides, the label drawn out and the prediction dashed."""
    label = np.zeros((4, 3), int)
    label[1:3, 1] = 2
    drawn = []
    axis = SimpleNamespace(contour=lambda *a, **options: drawn.append((a, options)))
    assert _outlines(axis, Plane("x", None, label, label, (2.0, 3.0)), (0, 0, 1, 1)) == {2}
    assert [options["linestyles"] for _, options in drawn] == ["solid", "dashed"]
    for (across, up, mask), _ in drawn:
        assert across.tolist() == [1, 3, 5, 7] and up.tolist() == [1.5, 4.5, 7.5]
        assert np.array_equal(mask, (label == 2).T)
