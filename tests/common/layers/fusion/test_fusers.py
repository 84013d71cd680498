"""The fixed sum and the gate against their equations."""

import pytest
import torch
from torch import nn

from common.errors import ConfigError
from common.layers.fusion.fusers import GatedSum, WeightedSum, expert_weights


@pytest.mark.parametrize("weights", [None, (0.5, -1.0, 2.0)])
def test_the_sum(weights):
    signals = torch.randn(3, 2, 4, 5, 6)
    expected = sum((1 / 3 if weights is None else weights[e]) * signals[e] for e in range(3))
    fused = WeightedSum(experts=3, weights=weights)(signals)
    assert torch.allclose(fused.tokens, expected, atol=1e-6) and fused.routing is None


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_gate(temperature):
    torch.manual_seed(0)
    module = GatedSum(channels=4, experts=3, temperature=temperature).double()
    nn.init.normal_(module.gate.weight)
    nn.init.normal_(module.gate.bias)
    signals = torch.randn(3, 2, 3, 2, 4, dtype=torch.float64)
    fused = module(signals)
    for b in range(2):
        pooled = []
        for e in range(3):
            tokens = [t for row in signals[e, b] for t in row]
            normal = [(t - t.mean()) / (t.var(correction=0) + 1e-6).sqrt() for t in tokens]
            pooled.append(sum(normal) / len(normal))
        logits = (module.gate.weight @ torch.cat(pooled) + module.gate.bias) / temperature
        weights = logits.exp() / logits.exp().sum()
        assert torch.allclose(fused.routing.weights[b], weights)
        assert torch.allclose(fused.tokens[b], sum(w * s for w, s in zip(weights, signals[:, b], strict=True)))


def test_the_gate_starts_even_and_has_no_resolution():
    module = GatedSum(channels=4, experts=2)
    for grid in ((3, 3), (7, 5)):
        signals = torch.randn(2, 1, *grid, 4)
        assert torch.allclose(module(signals).tokens, signals.mean(0), atol=1e-6)


def test_impossible_fusers_are_refused():
    with pytest.raises(ConfigError, match="one weight per expert"):
        expert_weights((1.0,), 3)
    with pytest.raises(ConfigError, match="temperature"):
        GatedSum(channels=4, experts=2, temperature=0.0)
