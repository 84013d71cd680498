"""Experts side by side against one ordinary MLP per expert."""

import pytest
import torch
from torch import nn

from common.errors import ConfigError
from common.layers.gating.mlp_experts import MLPExperts


def build(channels=6, hidden=10, experts=3, dtype=torch.float64):
    torch.manual_seed(0)
    module = MLPExperts(channels=channels, hidden=hidden, experts=experts).to(dtype)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def mlp(module, e):
    """The expert as torch's own modules, sharing nothing."""
    channels, hidden = module.out_bias.shape[1], module.hidden_bias.shape[1]
    own = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels)).to(module.out_bias.dtype)
    own[0].weight.data, own[0].bias.data = module.hidden_weight[e].data.clone(), module.hidden_bias[e].data.clone()
    own[2].weight.data, own[2].bias.data = module.out_weight[e].data.clone(), module.out_bias[e].data.clone()
    return own


def naive(module, tokens, weights):
    mlps = [mlp(module, e) for e in range(module.experts)]
    rows = [sum(weights[n, e] * mlps[e](tokens[n]) for e in range(module.experts)) for n in range(len(tokens))]
    return torch.stack(rows), mlps


def routed(n, experts, kind):
    weights = torch.rand(n, experts, dtype=torch.float64)
    if kind == "hard":
        weights = torch.nn.functional.one_hot(torch.arange(n) % experts, experts).double()
    elif kind == "top2":
        weights = weights * (weights >= weights.topk(2, 1).values[:, 1:])
    return weights


@pytest.mark.parametrize("kind, sparse", [("soft", False), ("hard", False), ("hard", True), ("top2", True)])
def test_equals_the_loop_with_gradients(kind, sparse):
    module, tokens = build(), torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
    weights = routed(7, 3, kind).requires_grad_()
    push = torch.randn(7, 6, dtype=torch.float64)
    want, mlps = naive(module, tokens, weights)
    grads = torch.autograd.grad((want * push).sum(), [tokens, weights, *[p for m in mlps for p in m.parameters()]])
    got = module(tokens, weights, sparse)
    torch.testing.assert_close(got, want)
    mine = torch.autograd.grad((got * push).sum(), [tokens, weights, *module.parameters()])
    torch.testing.assert_close(mine[0], grads[0])
    asked = weights.detach() != 0 if sparse else torch.ones_like(weights, dtype=torch.bool)
    torch.testing.assert_close(mine[1], grads[1] * asked)
    for i, stacked in enumerate(mine[2:]):
        torch.testing.assert_close(stacked, torch.stack([grads[2 + 4 * e + i] for e in range(3)]))


@pytest.mark.parametrize("channels", [4, 100, 200])
def test_blocks_change_nothing(channels):
    module = build(channels, 8, 2, torch.float32)
    tokens, weights = torch.randn(2100, channels), torch.rand(2100, 2)
    want = sum(weights[:, e : e + 1] * mlp(module, e)(tokens) for e in range(2))
    with torch.no_grad():
        torch.testing.assert_close(module(tokens, weights), want, rtol=1e-5, atol=1e-4)


def test_one_expert_is_the_plain_mlp():
    module, tokens = build(experts=1, dtype=torch.float32), torch.randn(5, 6)
    torch.testing.assert_close(module(tokens, torch.ones(5, 1)), mlp(module, 0)(tokens), rtol=0, atol=1e-6)


def test_an_expert_without_tokens_gets_no_gradient():
    module, tokens = build(), torch.randn(4, 6, dtype=torch.float64)
    weights = torch.zeros(4, 3, dtype=torch.float64)
    weights[:, 1] = 1
    module(tokens, weights, sparse=True).sum().backward()
    assert all(not p.grad[[0, 2]].any() and p.grad[1].any() for p in module.parameters())


@pytest.mark.parametrize("wide", [False, True])
def test_hidden_values_are_kept_of_wide_tokens_alone(wide):
    channels = 200 if wide else 8
    module = MLPExperts(channels=channels, hidden=4 * channels, experts=4)
    tokens = torch.randn(1000, channels, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        module(tokens, torch.rand(1000, 4))
    per_token = [t.shape[1] for t in kept if t.shape[0] == 1000]
    assert sorted(per_token) == [4, channels, *([4 * channels] * 4 if wide else [])]


@pytest.mark.parametrize("sparse", [False, True])
def test_kept_and_computed_again_are_equal(sparse, monkeypatch):
    module, push = build(200, 16, 3, torch.float32), torch.randn(50, 200)
    tokens, weights = torch.randn(50, 200, requires_grad=True), routed(50, 3, "top2").float()
    weights[:, 2] = 0  # nobody asks the last one
    weights.requires_grad_()
    found = []
    for wide in (192, 10_000):
        monkeypatch.setattr("common.layers.gating.mlp_experts._WIDE", wide)
        out = module(tokens, weights, sparse)
        found.append([out, *torch.autograd.grad((out * push).sum(), [tokens, weights, *module.parameters()])])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("copy_of", [None, 1])
def test_append_leaves_the_others(copy_of):
    module, tokens = build(), torch.randn(6, 6, dtype=torch.float64)
    weights = routed(6, 3, "hard")
    before = module(tokens, weights, True)
    module.append(copy_of)
    assert module.experts == 4 and all(p.requires_grad for p in module.parameters())
    assert torch.equal(module(tokens, torch.cat([weights, torch.zeros(6, 1)], 1), True), before)
    if copy_of is not None:
        assert all(torch.equal(p[3], p[1]) for p in module.parameters())
    with pytest.raises(ConfigError):
        module.append(9)


def test_refuses_what_does_not_fit():
    module = build()
    for tokens, weights in ((torch.ones(4, 6), torch.ones(4, 2)), (torch.ones(1, 4, 6), torch.ones(1, 3))):
        with pytest.raises(ConfigError):
            module(tokens.double(), weights.double())
    with pytest.raises(ConfigError):
        MLPExperts(channels=0, hidden=1, experts=1)


@pytest.mark.parametrize("inside", [True, False])
def test_autocast_gives_nearly_the_same_gradients(inside):
    module = build(16, 32, 3, torch.float32)
    tokens, weights, push = torch.randn(3000, 16), torch.rand(3000, 3), torch.randn(3000, 16)
    (module(tokens, weights) * push).sum().backward()
    exact = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(tokens, weights)
        assert out.dtype == torch.bfloat16
        loss = (out * push).sum()
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    for mine, theirs in zip((p.grad for p in module.parameters()), exact, strict=True):
        assert mine.dtype == torch.float32 and (mine - theirs).norm() < 0.03 * theirs.norm()
