"""The vote against Algorithm 1 written out with loops."""

import itertools
import math

import pytest
import torch

from common.errors import ConfigError
from common.layers.fusion.voting import PixelVoting, agreement, balanced_choice, class_masks, majority


def naive_masks(logits):
    """Pixel by pixel: the class whose logit is largest, the background's being 0."""
    out = torch.zeros_like(logits, dtype=torch.bool)
    K, H, W = logits.shape
    for y, x in itertools.product(range(H), range(W)):
        values = [0.0, *logits[:, y, x].tolist()]
        best = max(range(K + 1), key=lambda k: values[k])
        if best:
            out[best - 1, y, x] = True
    return out


def naive_choice(scores, limit):
    """Algorithm 1 for one class: counters, and a loop that masks the best until one is free."""
    E, B = len(scores), len(scores[0])
    counts, chosen = [0] * E, []
    for b in range(B):
        own = [scores[e][b] for e in range(E)]
        best = max(range(E), key=lambda e: own[e])
        tries = 0
        while counts[best] >= limit and tries < E:
            own[best], tries = -1, tries + 1
            best = max(range(E), key=lambda e: own[e])
        if tries == E:
            best = max(range(E), key=lambda e: scores[e][b])
        counts[best] += 1
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_masks_are_the_argmax_with_a_background_of_zero(classes):
    torch.manual_seed(classes)
    logits = torch.randn(2, 3, classes, 5, 4)
    found = class_masks(logits)
    for a, b in itertools.product(range(2), range(3)):
        assert torch.equal(found[a, b], naive_masks(logits[a, b]))
    if classes == 1:
        assert torch.equal(found, logits.sigmoid() > 0.5)
    assert int(found.sum(-3).max()) <= 1


@pytest.mark.parametrize(("count", "votes"), [(3, 2), (2, 2), (4, 3), (1, 1)])
def test_a_majority_is_more_than_half(count, votes):
    masks = torch.tensor(list(itertools.product((False, True), repeat=count))).T
    assert torch.equal(majority(masks), masks.sum(0) >= votes)


def test_agreement_counts_pixels():
    torch.manual_seed(0)
    masks, reference = torch.rand(3, 2, 2, 4, 5) > 0.5, torch.rand(2, 2, 4, 5) > 0.5
    found, literal = agreement(masks, reference), agreement(masks, reference, score="l1_literal")
    for e, b, k in itertools.product(range(3), range(2), range(2)):
        wrong = sum(int(p != r) for p, r in zip(masks[e, b, k].flatten(), reference[b, k].flatten(), strict=True))
        assert float(found[e, b, k]) == pytest.approx(1 - wrong / 20)
        assert float(literal[e, b, k]) == pytest.approx(wrong / 20)


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 32])
@pytest.mark.parametrize("limit", [None, 1, 2, 5])
def test_the_balanced_choice_is_algorithm_1(batch, limit):
    torch.manual_seed(batch)
    limit = limit or math.ceil(batch / 3)
    scores = torch.rand(3, batch, 2)
    scores[:, ::2] = scores[:, ::2].round(decimals=1)  # equals
    found = balanced_choice(scores, limit)
    for k in range(2):
        assert found[:, k].tolist() == naive_choice(scores[:, :, k].tolist(), limit)


def test_nobody_is_chosen_too_often_while_others_are_free():
    scores = torch.stack([torch.full((9, 1), s) for s in (0.9, 0.5, 0.1)])
    assert balanced_choice(scores, 3)[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert balanced_choice(scores, 1)[:, 0].tolist() == [0, 1, 2, 0, 0, 0, 0, 0, 0]
    assert balanced_choice(scores, None)[:, 0].tolist() == [0] * 9


def test_references_of_training_and_inference():
    logits = torch.full((3, 1, 1, 4, 4), -1.0)
    logits[0, :, :, :2], logits[1, :, :, :2], logits[2] = 1, 1, 1
    voting = PixelVoting(balance="never")
    truth = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    assert voting(logits).chosen.item() == 0  # two of three see the upper half
    assert voting(logits, truth).chosen.item() == 2
    assert voting(logits, truth, torch.tensor([[False]])).chosen.item() == 0  # of this class the truth is not known
    assert PixelVoting(score="l1_literal")(logits).chosen.item() == 2  # the worst


def test_balancing_is_for_training_unless_told():
    logits = torch.zeros(3, 6, 1, 2, 2)
    logits[0] = 1
    truth = torch.ones(6, 1, 2, 2, dtype=torch.bool)
    assert PixelVoting().train()(logits, truth).chosen.unique().tolist() == [0, 1, 2]
    assert PixelVoting().eval()(logits, truth).chosen.unique().tolist() == [0]
    assert PixelVoting(balance="always").eval()(logits, truth).chosen.unique().tolist() == [0, 1, 2]
    assert PixelVoting(balance="never").train()(logits, truth).chosen.unique().tolist() == [0]
    assert PixelVoting(n_threshold=6).train()(logits, truth).chosen.unique().tolist() == [0]


def test_at_inference_a_choice_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    logits, voting = torch.randn(3, 8, 2, 6, 6), PixelVoting().eval()
    whole = voting(logits).chosen
    for b in range(8):
        assert torch.equal(voting(logits[:, b : b + 1]).chosen[0], whole[b])


def test_choices_that_there_are_not():
    for wrong in ({"score": "best"}, {"balance": "sometimes"}, {"n_threshold": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            PixelVoting(**wrong)
    with pytest.raises(ConfigError, match="score"):
        agreement(torch.ones(1, 1, 1, 2, 2), torch.ones(1, 1, 2, 2), score="x")
    with pytest.raises(ConfigError, match="n_threshold"):
        balanced_choice(torch.ones(3, 1, 1), 0)
