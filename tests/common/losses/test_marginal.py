"""The marginal loss against naive twins, and what it is for: a background that contradicts nobody."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from common.errors import ConfigError
from common.losses.marginal import marginal_dice, marginal_kl, region_loss, terms

NAMES = ("liver", "spleen", "aorta", "kidney")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def seen_by(q: list[float], known: tuple[str, ...]) -> list[float]:
    """The student's probabilities in an expert's terms, class by class."""
    own = [q[1 + NAMES.index(n)] for n in known]
    return [q[0] + sum(q[1 + i] for i, n in enumerate(NAMES) if n not in known), *own]


@pytest.mark.parametrize("known", [("spleen",), ("kidney", "liver"), NAMES])
@pytest.mark.parametrize("temperature, floor", [(1.0, 0.0), (1.0, 0.01), (2.0, 0.05)])
def test_kl_equals_the_naive_twin(known: tuple[str, ...], temperature: float, floor: float) -> None:
    logits, p = drawn(2, 5, 3, 2, 2), drawn(2, len(known) + 1, 3, 2, 2, seed=1).softmax(1)
    total, count = 0.0, 0
    for b in range(2):
        for x in range(3):
            for y in range(2):
                for z in range(2):
                    q = softmax([float(v) / temperature for v in logits[b, :, x, y, z]])
                    target = [float(v) ** (1 / temperature) for v in p[b, :, x, y, z]]
                    target = [(1 - floor) * v / sum(target) + floor / len(target) for v in target]
                    total += sum(t * math.log(t / s) for t, s in zip(target, seen_by(q, known), strict=True))
                    count += 1
    found = marginal_kl(logits, p, terms(known, NAMES), temperature=temperature, floor=floor)
    assert float(found) == pytest.approx(temperature**2 * total / count, rel=1e-4)


def test_dice_equals_the_naive_twin() -> None:
    known = ("kidney", "liver")
    logits, p = drawn(2, 5, 4, 3), drawn(2, 3, 4, 3, seed=1).softmax(1)
    ratios = []
    for b in range(2):
        for k in (1, 2):
            both = left = right = 0.0
            for x in range(4):
                for y in range(3):
                    s = seen_by(softmax([float(v) for v in logits[b, :, x, y]]), known)[k]
                    t = float(p[b, k, x, y])
                    both, left, right = both + s * t, left + t * t, right + s * s
            ratios.append((2 * both + 1) / (left + right + 1))
    assert float(marginal_dice(logits, p, terms(known, NAMES))) == pytest.approx(1 - sum(ratios) / 4, rel=1e-5)


def test_regions_equal_the_naive_twin() -> None:
    regions = torch.tensor([[0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]).float()
    logits, p = drawn(1, 5, 6), drawn(1, 2, 6, seed=1).sigmoid()
    total = 0.0
    for x in range(6):
        q = softmax([float(v) for v in logits[0, :, x]])
        for r, members in enumerate(([1, 2, 3], [2])):
            s, t = sum(q[m] for m in members), 0.99 * float(p[0, r, x]) + 0.005
            total += t * math.log(t / s) + (1 - t) * math.log((1 - t) / (1 - s))
    assert float(region_loss(logits, p, regions)) == pytest.approx(total / 12, rel=1e-4)


def test_a_background_contradicts_nobody() -> None:
    """Experts of half the organs each, both sure: the student that says each organ where its expert does is perfect."""
    matrices = [terms(("liver", "spleen"), NAMES), terms(("aorta", "kidney"), NAMES)]
    truth = torch.arange(5).repeat(4)
    student = 40.0 * torch.nn.functional.one_hot(truth, 5).T[None].float()
    own = [torch.einsum("ek,bkx->bex", m, student.softmax(1)) for m in matrices]
    for p, m in zip(own, matrices, strict=True):
        assert float(marginal_kl(student, p, m, floor=0.0)) == pytest.approx(0, abs=1e-5)
        assert float(marginal_dice(student, p, m)) == pytest.approx(0, abs=1e-5)


def test_learning_from_halves_finds_the_whole() -> None:
    """Gradient steps on the sum of both experts' losses reach every organ, though no expert knows all."""
    matrices = [terms(("liver", "spleen"), NAMES), terms(("aorta", "kidney"), NAMES)]
    truth = torch.arange(5).repeat(6)
    sure = torch.nn.functional.one_hot(truth, 5).T[None].float()
    experts = [torch.einsum("ek,bkx->bex", m, sure) for m in matrices]
    logits = torch.zeros(1, 5, 30, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        loss = torch.stack([marginal_kl(logits, p, m) + marginal_dice(logits, p, m)
                            for p, m in zip(experts, matrices, strict=True)]).sum()  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(logits.argmax(1)[0], truth)


def test_least_where_both_agree() -> None:
    logits = drawn(1, 5, 8)
    m = terms(("spleen",), NAMES)
    p = torch.einsum("ek,bkx->bex", m, logits.softmax(1))
    other = drawn(1, 2, 8, seed=3).softmax(1)
    assert float(marginal_kl(logits, p, m, floor=0.0)) == pytest.approx(0, abs=1e-6)
    assert float(marginal_kl(logits, other, m, floor=0.0)) > 0.01


@pytest.mark.parametrize("known", [("pancreas",), ("liver", "liver"), ()])
def test_terms_are_the_students(known: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="some of the student's"):
        terms(known, NAMES)


def test_refusals() -> None:
    m = terms(("liver",), NAMES)
    with pytest.raises(ConfigError, match="differ in shape"):
        marginal_kl(drawn(1, 5, 4), drawn(1, 3, 4), m)
    with pytest.raises(ConfigError, match="differ in shape"):
        marginal_dice(drawn(1, 5, 4), drawn(1, 2, 1), m)
    with pytest.raises(ConfigError, match="temperature"):
        marginal_kl(drawn(1, 5, 4), drawn(1, 2, 4), m, temperature=0)
    with pytest.raises(ConfigError, match="made of structures"):
        region_loss(drawn(1, 5, 4), drawn(1, 1, 4), torch.tensor([[1.0, 1, 0, 0, 0]]))
