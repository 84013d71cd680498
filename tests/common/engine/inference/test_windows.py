"""Sliding windows with prompts: boxes land where the structure is seen, and prompts change nothing else."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer

from common.engine.inference.windows import WindowInferer
from common.errors import ConfigError, PromptError

ROI = (16, 12, 8)


def network(window, boxes=None):
    del boxes
    return torch.cat([window.sin(), window.cos() * window], 1)


@pytest.mark.parametrize("shape", [(16, 12, 8), (33, 12, 20), (9, 30, 5), (5, 5, 5)])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("prompted", [False, True])
def test_equals_plain_sliding_window_when_prompts_are_ignored(shape, batch, prompted):
    image = torch.randn(batch, 1, *shape)
    plain = SlidingWindowInferer(ROI, sw_batch_size=3, overlap=0.5, mode="gaussian")(image, network)
    ours = WindowInferer(roi_size=ROI, sw_batch_size=3, with_prompts=prompted)
    boxes = torch.tensor([[[1.0, 1, 1], [3, 3, 3]]]) if prompted else None
    assert torch.equal(ours(image, network, **({"boxes": boxes} if prompted else {})), plain)


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
def test_one_window_equals_one_forward(mode):
    image = torch.randn(1, 1, *ROI)
    out = WindowInferer(roi_size=ROI, mode=mode)(image, network)
    torch.testing.assert_close(out, network(image), rtol=1e-6, atol=1e-6)


def box_of(mask):
    where = np.argwhere(mask)
    return [where.min(0).tolist(), where.max(0).tolist()] if len(where) else None


@pytest.mark.parametrize("shape", [(40, 25, 19), (10, 25, 19), (7, 5, 3), (16, 12, 8)])
@pytest.mark.parametrize("batch", [1, 2])
def test_boxes_follow_the_structure_into_every_window(shape, batch):
    """The image carries the mask, so that each window can measure its own box: the naive twin of the arithmetic."""
    rng = np.random.default_rng(sum(shape) + batch)
    volume = np.zeros((batch, 2, *shape), np.float32)
    boxes = np.full((batch, 2, 2, 3), np.nan, np.float32)
    for b in range(batch):
        for k in range(2):
            low = [int(rng.integers(0, n)) for n in shape]
            high = [int(rng.integers(a, n)) for a, n in zip(low, shape)]
            volume[b, k][tuple(slice(a, z + 1) for a, z in zip(low, high))] = 1
            boxes[b, k] = box_of(volume[b, k])
    seen = []

    def check(window, boxes):
        assert boxes.shape == (len(window), 2, 2, 3)
        for w, own in zip(window, boxes):
            for mask, box in zip(w, own):
                expected = box_of(mask.numpy() > 0)
                if expected is None:
                    assert torch.isnan(box).all()
                else:
                    assert box.tolist() == expected
                seen.append(expected)
        return window

    inferer = WindowInferer(roi_size=ROI, sw_batch_size=3, with_prompts=True)
    inferer(torch.from_numpy(volume), check, boxes=torch.from_numpy(boxes))
    assert any(s is not None for s in seen)


def test_absent_box_and_unsorted_corners():
    got = []

    def keep(window, boxes):
        got.append(boxes)
        return window

    boxes = torch.full((3, 2, 3), torch.nan)
    boxes[1] = torch.tensor([[9.0, 2, 7], [4, 8, 1]])
    WindowInferer(roi_size=ROI, with_prompts=True)(torch.zeros(1, 1, *ROI), keep, boxes=boxes)
    assert torch.isnan(got[0][0, [0, 2]]).all()
    assert got[0][0, 1].tolist() == [[4, 2, 1], [9, 8, 7]]


def test_boxes_travel_in_meta():
    got = []

    def keep(window, boxes=None):
        got.append(boxes)
        return window

    boxes = np.array([[[1, 2, 3], [4, 5, 6]]], np.float32)
    image = MetaTensor(torch.zeros(1, *ROI), meta={"boxes": boxes})[None]
    prompted = WindowInferer(roi_size=ROI, with_prompts=True)
    prompted(image, keep)
    assert got[-1].tolist() == [boxes.tolist()]
    WindowInferer(roi_size=ROI)(image, keep)
    assert got[-1] is None
    prompted(torch.zeros(1, 1, *ROI), keep)
    assert got[-1] is None


def test_other_arguments_reach_the_network():
    def scaled(window, factor, boxes=None, offset=0.0):
        return window * factor + offset

    image = torch.randn(1, 1, 20, 20, 20)
    for inferer in (WindowInferer(roi_size=ROI), WindowInferer(roi_size=ROI, with_prompts=True)):
        out = inferer(image, scaled, 2.0, offset=1.0)
        torch.testing.assert_close(out, image * 2 + 1, rtol=1e-5, atol=1e-5)


def test_refuses_bad_settings_and_boxes():
    with pytest.raises(ConfigError, match="overlap"):
        WindowInferer(roi_size=ROI, overlap=1.0)
    with pytest.raises(ConfigError, match="window"):
        WindowInferer(roi_size=ROI, sw_batch_size=0)
    inferer = WindowInferer(roi_size=ROI, with_prompts=True)
    image = torch.zeros(1, 1, *ROI)
    for boxes in (torch.zeros(2, 3), torch.zeros(1, 2, 2), torch.zeros(2, 1, 2, 3)):
        with pytest.raises(PromptError, match="shape"):
            inferer(image, network, boxes=boxes)
    with pytest.raises(PromptError, match="infinite"):
        inferer(image, network, boxes=torch.full((1, 2, 3), torch.inf))
