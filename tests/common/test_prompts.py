import itertools
import math

import pytest
import torch

from common.errors import PromptError
from common.prompts import (
    boxes_from_label,
    check_boxes,
    check_points,
    clip_boxes,
    drop_boxes,
    jitter_boxes,
    to_window,
)

NONE = torch.full((2, 3), torch.nan)


def box(*corners):
    return torch.tensor(corners, dtype=torch.float32).reshape(2, 3)


def naive(label, structures):
    boxes = []
    for k in range(1, structures + 1):
        found = [at for at in itertools.product(*map(range, label.shape[1:])) if int(label[(0, *at)]) == k]
        low, high = ([f(at[i] for at in found) for i in range(3)] if found else [math.nan] * 3 for f in (min, max))
        boxes.append([low, high])
    return torch.tensor(boxes, dtype=torch.float32)


@pytest.mark.parametrize("seed", range(4))
def test_boxes_equal_the_loop(seed):
    g = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 40, (2, 1, 5, 4, 6), generator=g)
    got = boxes_from_label(label, 6)
    for b in range(2):
        torch.testing.assert_close(got[b], naive(label[b], 6), equal_nan=True)
        torch.testing.assert_close(boxes_from_label(label[b], 6), got[b], equal_nan=True)


def test_a_single_voxel_has_equal_corners():
    label = torch.zeros(1, 3, 3, 3)
    label[0, 2, 0, 1] = 1
    assert torch.equal(boxes_from_label(label, 1)[0], box(2, 0, 1, 2, 0, 1))
    assert boxes_from_label(label, 2)[1].isnan().all()


@pytest.mark.parametrize("shape", [(3, 3, 3), (2, 3, 3, 3), (1, 2, 3, 3, 3)])
def test_only_index_label_maps(shape):
    with pytest.raises(PromptError, match="index label map"):
        boxes_from_label(torch.zeros(shape), 1)


def test_jitter_keeps_order_window_and_none():
    boxes = torch.stack([box(0, 0, 0, 7, 7, 7), box(3, 3, 3, 3, 3, 3), NONE]).expand(50, -1, -1, -1)
    moved = jitter_boxes(boxes, 3.0, (8, 8, 8))
    assert moved[:, 2].isnan().all()
    known = moved[:, :2]
    assert (known >= 0).all()
    assert (known <= 7).all()
    assert (known[..., 1, :] >= known[..., 0, :]).all()
    assert ((known - boxes[:, :2]).abs() <= 3).all()
    assert not torch.equal(known, boxes[:, :2])
    assert jitter_boxes(boxes, 0, (8, 8, 8)) is boxes
    with pytest.raises(PromptError):
        jitter_boxes(boxes, -1, (8, 8, 8))


def test_dropout_hides_whole_samples_and_single_boxes():
    torch.manual_seed(0)
    boxes = box(0, 0, 0, 1, 1, 1).expand(4000, 3, 2, 3)
    gone = drop_boxes(boxes, 0.2).isnan().all(-1).all(-1)
    assert float(gone.all(1).float().mean()) == pytest.approx(0.2 + 0.8 * 0.2**3, abs=0.02)
    assert float(gone.float().mean()) == pytest.approx(0.2 + 0.8 * 0.2, abs=0.02)
    assert torch.equal(drop_boxes(boxes, 0.0), boxes)
    assert drop_boxes(boxes, 1.0).isnan().all()
    with pytest.raises(PromptError):
        drop_boxes(boxes, 1.5)


def test_window_sees_its_part():
    boxes = torch.stack([box(10, 10, 10, 20, 20, 20), box(0, 0, 0, 4, 4, 4), NONE])
    got = to_window(boxes, (8, 12, 0), (8, 8, 32))
    torch.testing.assert_close(got[0], box(2, 0, 10, 7, 7, 20))
    assert got[1:].isnan().all()
    torch.testing.assert_close(to_window(boxes, (-2, 0, 0), (64, 64, 64))[1], box(2, 0, 0, 6, 4, 4))
    torch.testing.assert_close(clip_boxes(boxes, (15, 64, 64))[0], box(10, 10, 10, 14, 20, 20))


@pytest.mark.parametrize(
    "boxes, message",
    [
        (torch.zeros(2, 3), "two corners"),
        (torch.zeros(1, 3, 2), "two corners"),
        (box(0, 0, math.nan, 4, 4, 4)[None], "partly NaN"),
        (box(5, 0, 0, 4, 4, 4)[None], "swapped"),
        (box(4, 0, 0, 4, 4, 4)[None], "no extent"),
        (box(-1, 0, 0, 4, 4, 4)[None], "leaves the volume"),
        (box(0, 0, 0, 4, 4, 30)[None], "leaves the volume"),
    ],
)
def test_user_boxes_are_checked(boxes, message):
    with pytest.raises(PromptError, match=message) as error:
        check_boxes(boxes, (20, 20, 10), where="case_7")
    assert "case_7" in str(error.value)


def test_wrong_axis_order_is_guessed():
    with pytest.raises(PromptError, match="z, y, x"):
        check_boxes(box(0, 0, 0, 4, 4, 15)[None], (20, 20, 10))


def test_good_boxes_pass():
    boxes = torch.stack([box(0, 0, 0, 19, 19, 9), NONE])
    assert check_boxes(boxes, (20, 20, 10)) is boxes
    assert check_boxes(boxes[None], (20, 20, 10)).shape == (1, 2, 2, 3)


def test_points():
    good = torch.tensor([[0.0, 0, 0], [19, 19, 9]])
    assert check_points(good, (20, 20, 10)) is good
    for bad in (torch.zeros(3), torch.tensor([[20.0, 0, 0]]), torch.tensor([[-1.0, 0, 0]]), good * math.nan):
        with pytest.raises(PromptError):
            check_points(bad, (20, 20, 10), where="case_7")


def test_a_volume_goes_from_nothing_to_below_its_size():
    good = torch.tensor([[[0.0, 0, 0], [3.9, 4.9, 5.9]]])
    assert check_boxes(good, (4, 5, 6)) is good
    for axis in range(3):
        for corner, value in ((0, -0.1), (1, (4.0, 5.0, 6.0)[axis])):
            bad = good.clone()
            bad[0, corner, axis] = value
            with pytest.raises(PromptError, match="leaves the volume"):
                check_boxes(bad, (4, 5, 6))
        flat = good.clone()
        flat[0, 1, axis] = flat[0, 0, axis]
        with pytest.raises(PromptError, match="no extent"):
            check_boxes(flat, (4, 5, 6))
        assert check_points(good[0], (4, 5, 6)) is not None
        for value in (-0.1, (4.0, 5.0, 6.0)[axis], torch.nan, torch.inf):
            point = torch.zeros(2, 3)
            point[1, axis] = value
            with pytest.raises(PromptError, match="a point lies outside"):
                check_points(point, (4, 5, 6))


def test_the_other_order_of_axes_is_named_only_where_it_fits():
    for box, told in (
        ([[0, 0, 0], [5, 4, 3]], True),
        ([[0, 0, 0], [6, 4, 3]], False),
        ([[0, 0, -1], [5, 4, 3]], False),
    ):
        with pytest.raises(PromptError) as caught:
            check_boxes(torch.tensor([box], dtype=torch.float32), (4, 5, 6))
        assert ("z, y, x" in str(caught.value)) == told


def test_boxes_at_the_faces_of_a_window_are_seen():
    seen = torch.tensor([[[-3.0, 0, 0], [0, 0, 0]], [[3.0, 0, 0], [9, 4, 5]]])
    assert clip_boxes(seen, (4, 5, 6)).tolist() == [[[0, 0, 0], [0, 0, 0]], [[3, 0, 0], [3, 4, 5]]]
    gone = torch.tensor([[[-3.0, 0, 0], [-0.1, 4, 5]], [[3.1, 0, 0], [9, 4, 5]]])
    assert clip_boxes(gone, (4, 5, 6)).isnan().all()


def test_a_probability_is_no_more_than_one():
    boxes = torch.ones(2, 3, 2, 3)
    assert torch.equal(drop_boxes(boxes, 0), boxes) and drop_boxes(boxes, 1).isnan().all()
    for wrong in (-0.01, 1.01):
        with pytest.raises(PromptError, match=r"0\.\.1"):
            drop_boxes(boxes, wrong)
    assert jitter_boxes(boxes, 0, (4, 5, 6)) is boxes
    with pytest.raises(PromptError, match="negative"):
        jitter_boxes(boxes, -1e-3, (4, 5, 6))
    far = jitter_boxes(torch.tensor([[2.0, 2, 2], [2, 2, 2]]).expand(500, 2, 3), 1.0, (4, 4, 3))
    assert far[..., :2].min() < 1.05 and far[..., :2].max() > 2.95 and far[..., 2].max() == 2
