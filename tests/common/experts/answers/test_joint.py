"""One map of several answers: the least of the sum that the loss teaches, and what experts dispute."""

from __future__ import annotations

import pytest
import torch

from common.errors import ExpertError
from common.experts.answers.joint import conflicts, joint
from common.losses.marginal import terms

NAMES = ("a", "b", "c")


def test_three_exact_experts_that_meet_need_no_seam() -> None:
    """Where three organs of three experts meet at a third each, nothing is left for background."""
    matrices = [terms((n,), NAMES) for n in NAMES]
    answers = [torch.tensor([[2 / 3], [1 / 3]]) for _ in NAMES]
    q = joint(answers, matrices, steps=5000, tolerance=1e-8)
    assert q[:, 0].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3], abs=2e-3)


def test_one_expert_of_all_is_itself() -> None:
    p = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).softmax(0)
    assert torch.allclose(joint([p], [terms(NAMES, NAMES)]), p, atol=1e-4)


def test_least_of_the_weighted_sum() -> None:
    """No small move away from the map makes the sum of divergences smaller."""
    random = torch.Generator().manual_seed(1)
    matrices = [terms(("a", "b"), NAMES), terms(("b", "c"), NAMES)]
    answers = [torch.randn(3, 1, generator=random).softmax(0) for _ in matrices]
    weights = (2.0, 0.5)

    def cost(q: torch.Tensor) -> float:
        total = 0.0
        for p, m, w in zip(answers, matrices, weights, strict=True):
            total += w * float((p * (p / (m @ q)).log()).sum())
        return total

    q = joint(answers, matrices, weights, steps=20000, tolerance=1e-10).double().float()
    assert float(q.sum()) == pytest.approx(1, abs=1e-4)
    least = cost(q)
    for _ in range(50):
        other = q * (1 + 0.05 * torch.randn(q.shape, generator=random))
        assert cost(other / other.sum()) > least - 1e-5


def test_conflicts_are_counted_by_pair() -> None:
    first, second = torch.tensor([0, 1, 1, 2, 2]), torch.tensor([1, 1, 2, 0, 2])
    found = conflicts([first, second], [("a", "b"), ("b", "c")])
    assert found == {("a", "b"): 1, ("a", "c"): 1, ("b", "c"): 1}
    assert not conflicts([first, first], [("a", "b"), ("a", "b")])


def test_refusals() -> None:
    with pytest.raises(ExpertError, match="one answer, one matrix"):
        joint([], [])
    with pytest.raises(ExpertError, match="positive weight"):
        joint([torch.ones(2, 1) / 2], [terms(("a",), NAMES)], [0.0])
