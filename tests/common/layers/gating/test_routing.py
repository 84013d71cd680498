import itertools
import math

import pytest
import torch

from common.errors import ConfigError
from common.layers.gating.routing import hard_routing, soft_routing, top_k_routing


def test_hard_routing_is_one_expert_per_sample():
    weights, logits = hard_routing(torch.tensor([2, 0, 2]), 3)
    assert logits is None
    assert weights.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_soft_routing_sums_to_one(dtype, scale):
    logits = (torch.tensor([[1.0, -1.0, 0.5], [0.0, 0.0, 0.0]]) * scale).to(dtype)
    weights = soft_routing(logits).weights
    assert weights.dtype == dtype
    assert weights.isfinite().all()
    torch.testing.assert_close(weights.float().sum(1), torch.ones(2), atol=1e-2, rtol=0)


def test_temperature_sharpens():
    logits = torch.tensor([[1.0, 0.0]])
    assert soft_routing(logits, temperature=0.1).weights[0, 0] > soft_routing(logits).weights[0, 0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: hard_routing(torch.tensor([0, 3]), 3),
        lambda: hard_routing(torch.tensor([-1]), 3),
        lambda: hard_routing(torch.tensor([0.0]), 3),
        lambda: hard_routing(torch.tensor([[0]]), 3),
        lambda: soft_routing(torch.zeros(1, 2), temperature=0.0),
    ],
)
def test_bad_arguments(call):
    with pytest.raises(ConfigError):
        call()


@pytest.mark.parametrize("k", [1, 2, 4])
def test_top_k_is_a_softmax_over_the_kept(k):
    logits = torch.randn(3, 4, 2, 2)
    weights = top_k_routing(logits, k).weights
    for b, i, j in itertools.product(range(3), range(2), range(2)):
        row = logits[b, :, i, j].tolist()
        kept = sorted(range(4), key=lambda e, given=row: -given[e])[:k]
        total = sum(math.exp(row[e]) for e in kept)
        want = [math.exp(row[e]) / total if e in kept else 0.0 for e in range(4)]
        assert weights[b, :, i, j].tolist() == pytest.approx(want, abs=1e-6)
    assert int((weights == 0).sum()) == (4 - k) * 12
    for wrong in (0, 5):
        with pytest.raises(ConfigError):
            top_k_routing(logits, wrong)


def test_top_k_of_equal_logits_takes_the_first():
    assert top_k_routing(torch.zeros(1, 3), 1).weights.tolist() == [[1.0, 0.0, 0.0]]
