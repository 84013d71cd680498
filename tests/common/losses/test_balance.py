import math

import pytest
import torch

from common.errors import ConfigError
from common.layers.gating.routing import Routing, hard_routing, soft_routing, top_k_routing
from common.losses.balance import load_balance


def naive(routing):
    weights, logits = routing
    batch, experts = logits.shape[:2]
    positions = [(b, *map(int, at)) for b in range(batch) for at in torch.ones(logits.shape[2:]).nonzero()]
    value = 0.0
    for e in range(experts):
        share = wanted = 0.0
        for b, *at in positions:
            scores = [math.exp(logits[(b, k, *at)]) for k in range(experts)]
            share += float(weights[(b, e, *at)]) / len(positions)
            wanted += scores[e] / sum(scores) / len(positions)
        value += experts * share * wanted
    return value


@pytest.mark.parametrize("k", [None, 1, 2])
@pytest.mark.parametrize("shape", [(2, 3, 2, 2), (4, 3)])
def test_equals_the_loop(k, shape):
    logits = torch.randn(shape)
    routing = soft_routing(logits) if k is None else top_k_routing(logits, k)
    assert float(load_balance(routing)) == pytest.approx(naive(routing), rel=1e-5)


def test_even_is_one_and_decided_is_the_number_of_experts():
    even = soft_routing(torch.zeros(2, 4, 3, 3))
    assert float(load_balance(even)) == pytest.approx(1)
    decided = torch.zeros(2, 4, 3, 3)
    decided[:, 1] = 100
    assert float(load_balance(top_k_routing(decided, 1))) == pytest.approx(4)


def test_a_step_down_evens_out():
    logits = torch.randn(64, 3) + torch.tensor([2.0, 0, 0])
    logits.requires_grad_()
    load_balance(top_k_routing(logits, 1)).backward()
    assert logits.grad[:, 0].sum() > 0 > logits.grad[:, 1:].sum()


def test_a_fixed_rule_is_refused():
    with pytest.raises(ConfigError):
        load_balance(hard_routing(torch.tensor([0, 1]), 2))
    assert isinstance(hard_routing(torch.tensor([0]), 2), Routing)
