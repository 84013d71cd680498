import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.losses.distillation import ALIGN_KINDS, align, kl_divergence


def naive_align(s, m, kind):
    values = []
    for b in range(s.shape[0]):
        pairs = list(zip(s[b].flatten().tolist(), m[b].flatten().tolist(), strict=True))
        if kind == "normalised":
            total = 0.0
            for rows in zip(s[b].tolist(), m[b].tolist(), strict=True):
                units = []
                for row in rows:
                    mean = sum(row) / len(row)
                    spread = math.sqrt(sum((v - mean) ** 2 for v in row) / len(row) + 1e-5)
                    units.append([(v - mean) / spread for v in row])
                total += sum((x - y) ** 2 for x, y in zip(*units, strict=True))
            values.append(total / len(pairs))
        elif kind == "mse":
            values.append(sum((x - y) ** 2 for x, y in pairs) / len(pairs))
        elif kind == "l2":
            values.append(math.sqrt(sum((x - y) ** 2 for x, y in pairs)))
        else:
            rows = []
            for x, y in zip(s[b].tolist(), m[b].tolist(), strict=True):
                dot = sum(i * j for i, j in zip(x, y, strict=True))
                rows.append(1 - dot / math.sqrt(sum(i * i for i in x)) / math.sqrt(sum(j * j for j in y)))
            values.append(sum(rows) / len(rows))
    return sum(values) / len(values)


@pytest.mark.parametrize("kind", ALIGN_KINDS)
@pytest.mark.parametrize("levels", [1, 2])
def test_align_equals_the_loop(kind, levels):
    s = [torch.randn(2, 3 * (i + 1), 4) for i in range(levels)]
    m = [torch.randn_like(x) for x in s]
    want = sum(naive_align(a, b, kind) for a, b in zip(s, m, strict=True)) / levels
    assert float(align(s, m, kind=kind)) == pytest.approx(want, rel=1e-5)
    assert float(align(s, s, kind=kind)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", ALIGN_KINDS)
@pytest.mark.parametrize("detach", [True, False])
def test_align_gradient(kind, detach):
    s, m = (torch.randn(1, 3, 4, requires_grad=True) for _ in range(2))
    align([s], [m], kind=kind, detach=detach).backward()
    assert s.grad.abs().sum() > 0
    assert (m.grad is None) == detach


@pytest.mark.parametrize("kind, arrives", [("mse", False), ("l2", False), ("normalised", True), ("cosine", True)])
def test_chasing_a_residual_target(kind, arrives):
    """``f_m = f_s + d`` moves with ``f_s``: only a distance that ignores length comes to rest."""
    torch.manual_seed(0)
    f_s, d = torch.randn(1, 4, 16, requires_grad=True), torch.randn(1, 4, 16)
    optimizer = torch.optim.SGD([f_s], lr=1.0 if kind == "l2" else 30.0)
    values, steps = [], []
    for _ in range(400):
        optimizer.zero_grad()
        before = f_s.detach().clone()
        loss = align([f_s], [f_s + d], kind=kind)
        loss.backward()
        optimizer.step()
        values.append(float(loss))
        steps.append(float((f_s - before).norm()))
    assert (values[-1] < 0.05 * values[0]) == arrives
    assert (steps[-1] < 0.2 * steps[0]) == arrives


def test_l2_gradient_where_both_agree():
    s = torch.randn(1, 3, 4, requires_grad=True)
    align([s], [s.detach().clone()], kind="l2").backward()
    assert s.grad.isfinite().all()


@given(st.tuples(*(st.integers(1, 3) for _ in range(3))), st.integers(0, 2), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_align_refuses_every_wrong_axis(shape, axis, size):
    other = list(shape)
    other[axis] = size
    if tuple(other) == shape:
        return
    for kind in ALIGN_KINDS:
        with pytest.raises(ConfigError):
            align([torch.ones(shape)], [torch.ones(other)], kind=kind)


def test_align_bad_arguments():
    x = torch.ones(1, 2, 3)
    for call in (
        lambda: align([x], [x], kind="l1"),
        lambda: align([], []),
        lambda: align([x, x], [x]),
        lambda: align([x[0]], [x[0]]),
    ):
        with pytest.raises(ConfigError):
            call()


def naive_kl(logits, p, classes):
    values = []
    for b in range(logits.shape[0]):
        known = [k for k in range(logits.shape[1]) if classes[b, k]]
        for at in itertools.product(*map(range, logits.shape[2:])):
            total = sum(math.exp(logits[(b, k, *at)]) for k in known)
            value = 0.0
            for k in known:
                q, t = math.exp(logits[(b, k, *at)]) / total, float(p[(b, k, *at)])
                value += t * (math.log(t) - math.log(q)) if t > 0 else 0.0
            values.append(value)
    return sum(values) / len(values)


def teacher(classes, shape=(2, 2, 3)):
    x = torch.randn(*classes.shape, *shape).masked_fill(~classes[:, :, None, None, None], -torch.inf)
    return x.softmax(1)


CLASSES = torch.tensor([[True, True, True, True], [True, False, True, False]])


def test_kl_equals_the_loop():
    logits, p = torch.randn(2, 4, 2, 2, 3), teacher(CLASSES)
    p[0, :, 0] = torch.tensor([0.0, 1.0, 0.0, 0.0])[:, None, None]
    assert float(kl_divergence(logits, p, CLASSES)) == pytest.approx(naive_kl(logits, p, CLASSES), rel=1e-5)


def test_kl_sigmoid_equals_the_loop():
    logits, p = torch.randn(2, 3, 2, 2, 3), torch.rand(2, 4, 2, 2, 3)
    per_sample = []
    for b in range(2):
        rows = []
        for k in range(3):
            if CLASSES[b, k + 1]:
                t, q = p[b, k + 1].double(), logits[b, k].double().sigmoid()
                rows.append((t * (t / q).log() + (1 - t) * ((1 - t) / (1 - q)).log()).mean())
        per_sample.append(sum(rows) / len(rows))
    got = kl_divergence(logits, p, CLASSES, exclusive=False)
    assert float(got) == pytest.approx(float(sum(per_sample) / 2), rel=1e-4)


def naive_balanced_kl(logits, p, classes, exclusive):
    """Means per class of a sample, weighted by what the teacher sees of it; their mean. Index by index."""
    samples = []
    for b in range(logits.shape[0]):
        means = []
        known = [k for k in range(classes.shape[1]) if classes[b, k]]
        for k in known if exclusive else [k for k in known if k]:
            for side in (0,) if exclusive else (0, 1):
                mass = total = 0.0
                for at in itertools.product(*map(range, logits.shape[2:])):
                    if exclusive:
                        odds = {j: math.exp(logits[(b, j, *at)]) for j in known}
                        q = {j: odds[j] / sum(odds.values()) for j in known}
                        t = {j: float(p[(b, j, *at)]) for j in known}
                        share = t[k]
                    else:
                        own, target = 1 / (1 + math.exp(-logits[(b, k - 1, *at)])), float(p[(b, k, *at)])
                        q, t = {0: 1 - own, 1: own}, {0: 1 - target, 1: target}
                        share = t[1 - side]
                    mass += share
                    total += share * sum(t[j] * math.log(t[j] / q[j]) for j in t if t[j] > 0)
                if mass >= 1:
                    means.append((side, total / mass))
        sides = [[v for s, v in means if s == side] for side in ((0,) if exclusive else (0, 1))]
        samples.append(sum(sum(v) / len(v) for v in sides) / len(sides))
    return sum(samples) / len(samples)


def test_balanced_kl_equals_the_loop():
    logits, p = torch.randn(2, 4, 2, 2, 3), teacher(CLASSES)
    p[0] *= torch.tensor([1.0, 1.0, 1.0, 1e-3])[:, None, None, None]  # the fourth class is hardly there
    p[0] /= p[0].sum(0)
    want = naive_balanced_kl(logits, p, CLASSES, True)
    assert float(kl_divergence(logits, p, CLASSES, balanced=True)) == pytest.approx(want, rel=1e-4)
    assert want != pytest.approx(naive_kl(logits, p, CLASSES), rel=1e-2)


def test_balanced_sigmoid_kl_equals_the_loop():
    logits, p = torch.randn(2, 3, 2, 2, 3), torch.rand(2, 4, 2, 2, 3)
    p[0, 1] *= 1e-3
    want = naive_balanced_kl(logits, p, CLASSES, False)
    got = kl_divergence(logits, p, CLASSES, exclusive=False, balanced=True)
    assert float(got) == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("exclusive", [True, False])
def test_a_split_batch_gives_the_same_value(exclusive, balanced):
    logits, p = torch.randn(2, 4 if exclusive else 3, 2, 2, 3), teacher(CLASSES)
    options = {"exclusive": exclusive, "balanced": balanced}
    halves = [kl_divergence(logits[b : b + 1], p[b : b + 1], CLASSES[b : b + 1], **options) for b in (0, 1)]
    torch.testing.assert_close(kl_divergence(logits, p, CLASSES, **options), sum(halves) / 2)


def test_balanced_kl_hears_a_small_organ():
    """One voxel of 512: the plain mean hardly notices that the student misses it, the balanced one does."""
    p = torch.zeros(1, 2, 8, 8, 8)
    p[:, 0] = 1.0
    p[:, :, 3, 3, 3] = torch.tensor([0.0, 1.0])
    known = torch.ones(1, 2, dtype=torch.bool)
    blind = torch.zeros(1, 2, 8, 8, 8)
    blind[:, 0] = 10.0
    assert float(kl_divergence(blind, p, known)) < 0.03
    assert float(kl_divergence(blind, p, known, balanced=True)) > 4


@pytest.mark.parametrize("exclusive", [True, False])
def test_balanced_kl_without_any_class_is_zero(exclusive):
    logits = torch.randn(1, 3 if exclusive else 2, 2, 2, 2, requires_grad=True)
    p, none = torch.zeros(1, 3, 2, 2, 2), torch.tensor([[exclusive, False, False]])
    value = kl_divergence(logits, p, none, exclusive=exclusive, balanced=True)
    value.backward()
    assert float(value) == 0 and not logits.grad.any()


@pytest.mark.parametrize("exclusive", [True, False])
def test_kl_is_zero_for_the_teacher_itself_and_positive_otherwise(exclusive):
    logits = torch.randn(2, 4, 2, 2, 3)
    known = torch.ones(2, 4, dtype=torch.bool)
    own = logits if exclusive else logits[:, 1:]
    p = logits.softmax(1) if exclusive else logits.sigmoid()
    assert float(kl_divergence(own, p, known, exclusive=exclusive)) == pytest.approx(0, abs=1e-6)
    assert float(kl_divergence(own.flip(1), p, known, exclusive=exclusive)) > 0


def test_kl_leaves_unknown_classes_alone():
    logits = torch.randn(2, 4, 2, 2, 3, requires_grad=True)
    kl_divergence(logits, teacher(CLASSES), CLASSES).backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[1, [1, 3]] == 0).all()
    assert (logits.grad[1, [0, 2]] != 0).any()


@pytest.mark.parametrize("axis", range(5))
@pytest.mark.parametrize("exclusive", [True, False])
def test_kl_refuses_every_wrong_axis(axis, exclusive):
    """torch's own divergence broadcasts four classes against one without a word."""
    logits = torch.zeros(2, 4, 2, 2, 3)
    shape = [2, 4 if exclusive else 5, 2, 2, 3]
    classes = torch.ones(shape[:2], dtype=torch.bool)
    kl_divergence(logits, torch.full(shape, 0.25), classes, exclusive=exclusive)
    for size in {1, shape[axis] + 1}:
        wrong = [*shape[:axis], size, *shape[axis + 1 :]]
        with pytest.raises(ConfigError):
            kl_divergence(logits, torch.full(wrong, 0.25), classes, exclusive=exclusive)


def test_kl_refuses_bad_classes():
    logits, p = torch.zeros(2, 4, 2, 2, 2), torch.full((2, 4, 2, 2, 2), 0.25)
    for classes in (CLASSES[:1], CLASSES.float(), CLASSES[:, :3]):
        with pytest.raises(ConfigError):
            kl_divergence(logits, p, classes)
