"""The gated feed-forward against its equation, token by token."""

import pytest
import torch
from torch import nn

from common.errors import ConfigError
from common.layers.gating.mlp_mixture import MLPMixture

MODALITY = torch.tensor([0, 2])


def build(**options):
    torch.manual_seed(0)
    module = MLPMixture(**{"channels": 4, "experts": 3, "mlp_ratio": 2.0, **options}).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def say(module, e, x):
    own = module.experts
    hidden = torch.nn.functional.gelu(own.hidden_weight[e] @ x + own.hidden_bias[e])
    return own.out_weight[e] @ hidden + own.out_bias[e]


def naive(module, tokens, modality):
    out = torch.zeros_like(tokens)
    for b in range(tokens.shape[0]):
        mean = tokens[b].reshape(-1, tokens.shape[-1]).mean(0)
        for i in range(tokens.shape[1]):
            for j in range(tokens.shape[2]):
                x = tokens[b, i, j]
                answers = [say(module, e, x) for e in range(module.experts.experts)]
                if module.kind == "none":
                    out[b, i, j] = answers[int(modality[b])]
                    continue
                logits = module.gate.weight @ (x if module.gate_input == "token" else mean) + module.gate.bias
                if module.kind == "channel_official":
                    out[b, i, j] = logits.softmax(0) * sum(answers)
                    continue
                kept = sorted(range(len(answers)), key=lambda e, given=logits: -given[e])[: module.top_k]
                total = sum(logits[e].exp() for e in kept)
                out[b, i, j] = sum(logits[e].exp() / total * answers[e] for e in kept)
    return out


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gate_input": "image_mean"},
        {"top_k": 1},
        {"top_k": 2},
        {"top_k": 2, "gate_input": "image_mean"},
        {"gate": "channel_official"},
        {"gate": "none"},
        {"experts": 1, "gate": "none"},
    ],
)
def test_equals_the_equation(options):
    module, tokens = build(**options), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    modality = MODALITY % module.experts.experts
    mixed = module(tokens, modality)
    torch.testing.assert_close(mixed.tokens, naive(module, tokens, modality))
    if mixed.routing is not None:
        torch.testing.assert_close(mixed.routing.weights.sum(1), torch.ones_like(mixed.routing.weights[:, 0]))


@pytest.mark.parametrize("options", [{}, {"gate": "none"}, {"top_k": 1}])
def test_one_expert_is_a_plain_mlp(options):
    module, tokens = build(experts=1, **options), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    plain = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)).double()
    own = module.experts
    plain[0].weight.data, plain[0].bias.data = own.hidden_weight[0].data, own.hidden_bias[0].data
    plain[2].weight.data, plain[2].bias.data = own.out_weight[0].data, own.out_bias[0].data
    torch.testing.assert_close(module(tokens, torch.zeros(2, dtype=torch.long)).tokens, plain(tokens))


def test_shuffled_samples_give_shuffled_outputs():
    for options in ({}, {"gate": "none"}, {"top_k": 2}):
        module, tokens = build(**options), torch.randn(4, 2, 3, 4, dtype=torch.float64)
        modality, order = torch.tensor([0, 1, 2, 1]), torch.tensor([2, 0, 3, 1])
        torch.testing.assert_close(
            module(tokens[order], modality[order]).tokens, module(tokens, modality).tokens[order]
        )


def test_hard_routing_trains_the_samples_own_experts_only():
    module, tokens = build(gate="none"), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    module(tokens, MODALITY).tokens.square().sum().backward()
    for parameter in module.experts.parameters():
        assert not parameter.grad[1].any() and parameter.grad[0].any() and parameter.grad[2].any()


def test_the_gate_learns():
    for options in ({}, {"top_k": 2}, {"gate_input": "image_mean"}):
        module, tokens = build(**options), torch.randn(2, 3, 5, 4, dtype=torch.float64)
        module(tokens).tokens.square().sum().backward()
        assert module.gate.weight.grad.any()


def test_append_changes_nothing_for_the_others_in_hard_routing():
    module, tokens = build(gate="none"), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    before = module(tokens, MODALITY).tokens
    module.append()
    assert torch.equal(module(tokens, MODALITY).tokens, before)
    module(tokens, torch.tensor([3, 3]))
    gated = build()
    before = gated(tokens)
    gated.append(copy_of=1)
    assert gated.gate.weight.shape == (4, 4) and torch.equal(gated.gate.weight[3], gated.gate.weight[1])
    after = gated(tokens)
    torch.testing.assert_close(after.tokens, before.tokens)
    torch.testing.assert_close(after.routing.weights[:, 1] + after.routing.weights[:, 3], before.routing.weights[:, 1])
    frozen = build()
    frozen.requires_grad_(False).append()
    assert not any(p.requires_grad for p in frozen.parameters())
    with pytest.raises(ConfigError):
        build(gate="channel_official").append()


@pytest.mark.parametrize(
    "options",
    [
        {"gate": "soft"},
        {"gate_input": "pixel"},
        {"top_k": 4},
        {"top_k": 0},
        {"gate": "none", "top_k": 1},
        {"gate": "channel_official", "gate_input": "image_mean"},
    ],
)
def test_refuses_what_means_nothing(options):
    with pytest.raises(ConfigError):
        build(**options)


def test_a_wrong_or_missing_modality_is_refused():
    module, tokens = build(gate="none"), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    for modality in (None, torch.tensor([0, 3]), torch.tensor([0.0, 1.0])):
        with pytest.raises(ConfigError):
            module(tokens, modality)
