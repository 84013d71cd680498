"""The gate over prompts and image."""

import math

import pytest
import torch
from torch.nn import functional as F

from common.errors import ConfigError
from common.layers.gating.prompt_gate import PromptGate


def attend(module, q, k, v):
    """Multi-head attention, one head and one query at a time."""
    q, k, v = module.q_proj(q), module.k_proj(k), module.v_proj(v)
    width = q.shape[-1] // module.num_heads
    out = torch.empty_like(q)
    for b in range(len(q)):
        for h in range(module.num_heads):
            part = slice(h * width, (h + 1) * width)
            for i in range(q.shape[1]):
                weights = ((k[b, :, part] @ q[b, i, part]) / math.sqrt(width)).softmax(0)
                out[b, i, part] = weights @ v[b, :, part]
    return module.out_proj(out)


def naive(gate, image, positions, prompts):
    x, place = image.flatten(2).transpose(1, 2), positions.flatten(2).transpose(1, 2)
    p = prompts.mean(1, keepdim=True) if gate.pool == "mean" else prompts
    norm = gate.norms
    p = norm[0](p + attend(gate.self_attention, p, p, p))
    p = norm[1](p + attend(gate.to_image, p, x + place, x))
    p = norm[2](p + gate.mlp[2](F.relu(gate.mlp[0](p))))
    x = norm[3](x + attend(gate.to_prompts, x + place, p, p))
    logits = gate.head[2](F.gelu(gate.head[0](x.sum(1) / x.shape[1])))
    return logits.exp() / logits.exp().sum(1, keepdim=True)


def given(batch=2, tokens=3, channels=16, grid=2):
    torch.manual_seed(1)
    return (
        torch.randn(batch, channels, grid, grid, grid),
        torch.randn(1, channels, grid, grid, grid),
        torch.randn(batch, tokens, channels),
    )


@pytest.mark.parametrize("pool", ["tokens", "mean"])
@pytest.mark.parametrize("general", [True, False])
def test_it_is_the_figures_chain(pool, general):
    torch.manual_seed(0)
    gate = PromptGate(channels=16, experts=3, heads=4, hidden=24, pool=pool, general=general).double()
    image, positions, prompts = (t.double() for t in given())
    routing = gate(image, positions, prompts)
    torch.testing.assert_close(routing.weights, naive(gate, image, positions, prompts), rtol=0, atol=1e-12)
    assert routing.weights.shape == (2, 3 + general) and gate.experts == 3


def test_it_begins_with_the_general_expert():
    gate = PromptGate(channels=16, experts=2, hidden=8)
    assert gate.head[2].bias.tolist() == [1.0, 0.0, 0.0]
    assert PromptGate(channels=16, experts=2, hidden=8, general=False).head[2].bias.tolist() == [0.0, 0.0]


def test_no_token_is_one_token_of_zeros():
    gate = PromptGate(channels=16, experts=2, hidden=8)
    image, positions, prompts = given()
    found = gate(image, positions, prompts[:, :0]).weights
    torch.testing.assert_close(found, gate(image, positions, torch.zeros(2, 1, 16)).weights)
    assert bool(torch.isfinite(found).all())


def test_order_and_neighbours_of_samples_do_not_matter():
    gate = PromptGate(channels=16, experts=2, hidden=8).double()
    image, positions, prompts = (t.double() for t in given(batch=3))
    every = gate(image, positions, prompts).weights
    for i in range(3):
        torch.testing.assert_close(gate(image[i : i + 1], positions, prompts[i : i + 1]).weights[0], every[i])
    torch.testing.assert_close(gate(image, positions, prompts.flip(1)).weights, every)


def test_a_new_expert_changes_nothing_until_it_is_trained():
    gate = PromptGate(channels=16, experts=2, hidden=8)
    inputs = given(batch=5)
    before = gate(*inputs).weights
    gate.add_expert()
    after = gate(*inputs).weights
    assert gate.experts == 3
    torch.testing.assert_close(after[:, :3], before, rtol=0, atol=1e-7)  # a softmax of four rounds in another order
    loss = F.cross_entropy(gate(*inputs).logits, torch.full((5,), 3))
    loss.backward()
    assert float(gate.head[2].bias.grad[3]) < -0.99  # and it can be: its share is nothing, its gradient is not


@pytest.mark.parametrize("general", [True, False])
def test_a_new_expert_wakes_with_a_score_near_the_others(general):
    gate = PromptGate(channels=16, experts=2, hidden=8, general=general)
    assert gate.wake() == []
    gate.add_expert()
    gate.add_expert()
    old = gate.head[2].weight[:-2].clone()
    assert gate.wake() == [2, 3] and gate.wake() == []
    assert torch.equal(gate.head[2].weight[:-2], old)
    weights = gate(*given(batch=5)).weights
    assert float(weights[:, -2:].min()) > 0.02 and bool(gate.head[2].weight.requires_grad)


def test_size_of_the_papers_gate():
    with torch.device("meta"):
        gate = PromptGate(channels=384, experts=15)
    attention, mlp = 4 * (384 * 384 + 384), 2 * 384 * 2048 + 2048 + 384
    assert (
        sum(p.numel() for p in gate.parameters())
        == 3_506_448
        == (3 * attention + mlp + 4 * 2 * 384 + 384 * 384 + 384 + 384 * 16 + 16)
    )


def test_refusals():
    with pytest.raises(ConfigError, match="among experts"):
        PromptGate(channels=16, experts=0)
    with pytest.raises(ConfigError, match="prompt_pool"):
        PromptGate(channels=16, experts=1, pool="max")
