"""Overlaps from counts equal those counted voxel by voxel; empty masks say that there is nothing to say."""

import math
import random

import pytest
import torch

from common.overlap import dice, dice_of_each, iou


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_sets_of_voxels(seed):
    draw = random.Random(seed)
    pred, label = ({n for n in range(50) if draw.random() < share} for share in (0.3, 0.6))
    counts = (len(pred & label), len(pred), len(label))
    single = [(v in pred) + (v in label) for v in pred | label]
    assert dice(*counts) == pytest.approx(2 * single.count(2) / sum(single))
    assert iou(*counts) == pytest.approx(len(pred & label) / len(pred | label))


def test_one_empty_mask_is_no_overlap_and_two_are_no_answer():
    assert dice(0, 7, 0) == dice(0, 0, 7) == iou(0, 7, 0) == 0
    assert math.isnan(dice(0, 0, 0)) and math.isnan(iou(0, 0, 0))
    assert dice(4, 4, 4) == iou(4, 4, 4) == 1


def test_of_a_batch_equals_sets_of_voxels() -> None:
    random = torch.Generator().manual_seed(0)
    a, b = (torch.rand(3, 1, 4, 4, 4, generator=random) > 0.6 for _ in range(2))
    for i, value in enumerate(dice_of_each(a, b)):
        x, y = ({tuple(v) for v in m[i].nonzero().tolist()} for m in (a, b))
        assert float(value) == pytest.approx(2 * len(x & y) / (len(x) + len(y)))


def test_of_a_batch_says_where_there_is_nothing() -> None:
    empty, full = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    values = dice_of_each(torch.cat([empty, empty, full]), torch.cat([empty, full, full]))
    assert math.isnan(values[0]) and values[1:].tolist() == [0, 1]
