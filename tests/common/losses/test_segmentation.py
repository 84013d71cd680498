import math

import pytest
import torch

from common.errors import ConfigError, LabelError
from common.losses.segmentation import annotated_dice_ce

SMOOTH = 1e-5


def naive_dice(p, t):
    p, t = p.flatten().tolist(), t.flatten().tolist()
    return 1 - (2 * sum(a * b for a, b in zip(p, t, strict=True)) + SMOOTH) / (sum(p) + sum(t) + SMOOTH)


def naive_exclusive(logits, label, annotated):
    dice, ce = [], []
    for x, y, known in zip(logits.double(), label[:, 0], annotated, strict=True):
        classes = [k for k in range(len(x)) if known[k]]
        p = torch.zeros_like(x)
        for i in torch.cartesian_prod(*(torch.arange(n) for n in y.shape)).tolist():
            at = tuple(i)
            total = sum(math.exp(x[(k, *at)]) for k in classes)
            for k in classes:
                p[(k, *at)] = math.exp(x[(k, *at)]) / total
            ce.append(-math.log(p[(int(y[at]), *at)]))
        part = [naive_dice(p[k], (y == k).double()) for k in classes if k]
        dice.append(sum(part) / max(len(part), 1))
    return float(sum(dice) / len(dice)), float(sum(ce) / len(ce))


def naive_overlapping(logits, target, annotated):
    dice, ce = [], []
    for x, t, known in zip(logits.double().sigmoid(), target.double(), annotated, strict=True):
        classes = [k for k in range(len(x)) if known[k + 1]]
        dice.append(sum(naive_dice(x[k], t[k]) for k in classes) / max(len(classes), 1))
        entropies = [-(t[k] * x[k].log() + (1 - t[k]) * (1 - x[k]).log()).mean() for k in classes]
        ce.append(sum(entropies) / max(len(classes), 1))
    return float(sum(dice) / len(dice)), float(sum(ce) / len(ce))


def case(classes=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    annotated = torch.tensor([[True] * classes, [True, True] + [False] * (classes - 2)])
    label = torch.stack(
        [torch.randint(0, classes, (1, 3, 4, 2), generator=g), torch.randint(0, 2, (1, 3, 4, 2), generator=g)]
    )
    return torch.randn(2, classes, 3, 4, 2, generator=g), label, annotated


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_exclusive_equals_the_loop(classes):
    logits, label, annotated = case(classes)
    got = annotated_dice_ce(logits, label, annotated)
    assert (float(got.dice), float(got.ce)) == pytest.approx(naive_exclusive(logits, label, annotated), rel=1e-5)


@pytest.mark.parametrize("structures", [2, 4])
def test_overlapping_equals_the_loop(structures):
    logits, _, _ = case(structures)
    target = (torch.rand(logits.shape) > 0.5).float()
    annotated = torch.tensor([[True] * (structures + 1), [True, True] + [False] * (structures - 1)])
    got = annotated_dice_ce(logits, target, annotated, exclusive=False)
    assert (float(got.dice), float(got.ce)) == pytest.approx(naive_overlapping(logits, target, annotated), rel=1e-5)


def test_overlapping_reads_index_labels_too():
    logits, label, annotated = case(4)
    one_hot = torch.stack([(label[:, 0] == k).float() for k in (1, 2, 3)], 1)
    a = annotated_dice_ce(logits[:, 1:], label, annotated, exclusive=False)
    b = annotated_dice_ce(logits[:, 1:], one_hot, annotated, exclusive=False)
    torch.testing.assert_close(torch.stack(a), torch.stack(b))


@pytest.mark.parametrize("exclusive", [True, False])
def test_unannotated_classes_get_no_gradient_and_have_no_say(exclusive):
    logits, label, annotated = case()
    shift = 0 if exclusive else 1
    logits = logits[:, shift:].clone().requires_grad_()
    loss = sum(annotated_dice_ce(logits, label, annotated, exclusive=exclusive))
    loss.backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[1, 2 - shift :] == 0).all()
    assert (logits.grad[1, : 2 - shift] != 0).any()
    other = logits.detach().clone()
    other[1, 2 - shift :] = 50.0
    torch.testing.assert_close(sum(annotated_dice_ce(other, label, annotated, exclusive=exclusive)), loss.detach())


@pytest.mark.parametrize("exclusive", [True, False])
def test_parts_of_a_batch_average_to_the_whole(exclusive):
    logits, label, annotated = case()
    logits = logits[:, 0 if exclusive else 1 :]
    whole = torch.stack(annotated_dice_ce(logits, label, annotated, exclusive=exclusive))
    parts = [
        torch.stack(annotated_dice_ce(logits[i : i + 1], label[i : i + 1], annotated[i : i + 1], exclusive=exclusive))
        for i in range(2)
    ]
    torch.testing.assert_close(torch.stack(parts).mean(0), whole)


def naive_batch_dice(logits, label, annotated):
    sums = {}
    for x, y, known in zip(logits.double(), label[:, 0], annotated, strict=True):
        classes = [k for k in range(len(x)) if known[k]]
        p = dict(zip(classes, torch.stack([x[k] for k in classes]).softmax(0), strict=True))
        for k in classes[1:]:
            t = (y == k).double()
            both, total = sums.get(k, (0.0, 0.0))
            sums[k] = (both + float((p[k] * t).sum()), total + float(p[k].sum() + t.sum()))
    return sum(1 - (2 * both + SMOOTH) / (total + SMOOTH) for both, total in sums.values()) / len(sums)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_over_the_batch_equals_the_loop(classes):
    logits, label, annotated = case(classes)
    got = annotated_dice_ce(logits, label, annotated, over="batch")
    assert float(got.dice) == pytest.approx(naive_batch_dice(logits, label, annotated), rel=1e-5)
    torch.testing.assert_close(got.ce, annotated_dice_ce(logits, label, annotated).ce)


def test_over_the_batch_nobody_is_asked_for_a_class_that_nobody_is_annotated_for():
    logits, label, annotated = case(5)
    annotated[0, 3:] = False
    label[label > 2] = 0
    fewer = annotated_dice_ce(logits[:, :3], label, annotated[:, :3], over="batch")
    torch.testing.assert_close(torch.stack(annotated_dice_ce(logits, label, annotated, over="batch")),
                               torch.stack(fewer))  # fmt: skip


def test_over_the_batch_a_slice_without_a_class_does_not_hide_the_class():
    """Half the samples show a class, found perfectly: over the batch nothing is lost, per sample half of it is."""
    label = torch.zeros(2, 1, 4, 4, 1)
    label[0, :, :2] = 1
    perfect = torch.nn.functional.one_hot(label[:, 0].long(), 2).movedim(-1, 1) * 50.0
    known = torch.ones(2, 2, dtype=torch.bool)
    assert float(annotated_dice_ce(perfect, label, known, over="batch").dice) == pytest.approx(0, abs=1e-4)
    logits = torch.zeros(2, 2, 4, 4, 1, requires_grad=True)
    annotated_dice_ce(logits, label, known, over="batch").dice.backward()
    pushed = float(logits.grad[1].abs().sum())
    logits.grad = None
    annotated_dice_ce(logits, label, known).dice.backward()
    assert pushed > 100 * float(logits.grad[1].abs().sum())


@pytest.mark.parametrize("arguments, message", [({"over": "volume"}, "sample or batch"),
                                                ({"over": "batch", "exclusive": False}, "overlap")])  # fmt: skip
def test_other_ways_to_sum_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        annotated_dice_ce(LOGITS, LABEL, ALL, **arguments)


def test_perfect_and_wrong():
    label = torch.randint(0, 3, (1, 1, 4, 4, 4))
    perfect = torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1) * 50.0
    known = torch.ones(1, 3, dtype=torch.bool)
    assert float(sum(annotated_dice_ce(perfect, label, known))) == pytest.approx(0, abs=1e-4)
    assert float(annotated_dice_ce(-perfect, label, known).dice) > 0.6


def test_a_case_without_any_structure_is_background_only():
    known = torch.tensor([[True, False, False]])
    got = annotated_dice_ce(torch.randn(1, 3, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2), known)
    assert (float(got.dice), float(got.ce)) == (0.0, 0.0)


def test_half_precision_stays_finite():
    logits = (torch.randn(1, 3, 4, 4, 4) * 1e4).half()
    got = annotated_dice_ce(logits, torch.zeros(1, 1, 4, 4, 4), torch.tensor([[True, True, False]]))
    assert all(t.isfinite() and t.dtype == torch.float32 for t in got)


LOGITS, LABEL, ALL = torch.zeros(2, 3, 4, 4, 4), torch.zeros(2, 1, 4, 4, 4), torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    "logits, label, annotated, message",
    [
        (LOGITS, LABEL[:1], ALL, "shape"),
        (LOGITS, LABEL[..., :1], ALL, "shape"),
        (LOGITS, LABEL[:, 0], ALL, "shape"),
        (LOGITS, LABEL.expand(2, 3, 4, 4, 4), ALL, "shape"),
        (LOGITS, LABEL, ALL[:1], "annotated"),
        (LOGITS, LABEL, ALL[:, :2], "annotated"),
        (LOGITS, LABEL, ~ALL, "background"),
        (LOGITS, LABEL + 3, ALL, "range"),
        (LOGITS, LABEL - 1, ALL, "range"),
        (LOGITS, LABEL + 2, torch.tensor([[True, True, False]] * 2), "not annotated"),
    ],
)
def test_bad_arguments(logits, label, annotated, message):
    with pytest.raises(LabelError, match=message):
        annotated_dice_ce(logits, label, annotated)
