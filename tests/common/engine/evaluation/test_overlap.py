"""Overlaps from counts equal those counted voxel by voxel; empty masks say that there is nothing to say."""

import math
import random

import pytest

from common.engine.evaluation.overlap import dice, iou


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
