"""Batch Dice and cross-entropy against their formula, pixel by pixel."""

import math

import pytest
import torch

from common.errors import LabelError
from common.losses.batch_dice import batch_dice_ce


def naive(logits, label, annotated):
    batch, classes, height, width = logits.shape
    both, own, true, ce = [0.0] * classes, [0.0] * classes, [0.0] * classes, 0.0
    for b in range(batch):
        known = [c for c in range(classes) if annotated[b, c]]
        for i in range(height):
            for j in range(width):
                total = sum(math.exp(logits[b, c, i, j]) for c in known)
                for c in known:
                    p, t = math.exp(logits[b, c, i, j]) / total, float(label[b, 0, i, j] == c)
                    both[c], own[c], true[c] = both[c] + p * t, own[c] + p * p, true[c] + t * t
                    ce -= t * math.log(p) / (batch * height * width)
    used = [c for c in range(classes) if any(annotated[b, c] for b in range(batch))]
    dice = sum(1 - (2 * both[c] + 1e-5) / (own[c] + true[c] + 1e-5) for c in used) / len(used)
    return dice, ce


FULL = torch.ones(2, 4, dtype=torch.bool)
PART = torch.tensor([[True, True, False, False], [True, False, True, False]])


@pytest.mark.parametrize("annotated", [FULL, PART, None], ids=["full", "partial", "default"])
def test_it_is_its_formula(annotated):
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 3) * 2
    label = torch.randint(0, 2, (2, 1, 5, 3)) * torch.tensor([1, 2])[:, None, None, None]
    dice, ce = batch_dice_ce(logits, label, annotated)
    expected = naive(logits, label, FULL if annotated is None else annotated)
    assert (float(dice), float(ce)) == pytest.approx(expected, abs=1e-5)


def test_larger_labels_are_brought_to_the_logits_by_the_nearest_neighbour():
    logits = torch.randn(1, 3, 4, 4)
    label = torch.randint(0, 3, (1, 1, 16, 16))
    assert batch_dice_ce(logits, label) == batch_dice_ce(logits, label[:, :, ::4, ::4])


def test_a_class_that_nobody_annotates_does_not_count():
    logits, label = torch.randn(2, 4, 4, 4), torch.zeros(2, 1, 4, 4)
    some = FULL.clone()
    some[:, 3] = False
    assert torch.allclose(batch_dice_ce(logits, label, some).dice, batch_dice_ce(logits[:, :3], label).dice)


def test_gradients_are_finite_on_partial_annotations():
    logits = torch.randn(2, 4, 4, 4, requires_grad=True)
    dice, ce = batch_dice_ce(logits, torch.zeros(2, 1, 8, 8), PART)
    (dice + ce).backward()
    assert bool(logits.grad.isfinite().all()) and bool((logits.grad[0, 2:] == 0).all())


@pytest.mark.parametrize(
    ("label", "annotated"),
    [
        (torch.zeros(2, 2, 4, 4), None),
        (torch.zeros(1, 1, 4, 4), None),
        (torch.full((2, 1, 4, 4), 4), None),
        (torch.full((2, 1, 4, 4), -1), None),
        (torch.full((2, 1, 4, 4), 3), PART),
        (torch.zeros(2, 1, 4, 4), ~PART),
        (torch.zeros(2, 1, 4, 4), FULL[:, :3]),
    ],
)
def test_impossible_labels_are_refused(label, annotated):
    with pytest.raises(LabelError):
        batch_dice_ce(torch.randn(2, 4, 4, 4), label, annotated)
