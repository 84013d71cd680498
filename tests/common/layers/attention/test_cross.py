import math

import pytest
import torch

from common.errors import ConfigError
from common.layers.attention.cross import (
    Attention,
    AttentionBlock,
    from_tokens,
    sincos_position,
    squared_distance,
    to_tokens,
)


def naive(module: Attention, query, key, value, bias):
    """One query, one head at a time, in float64."""
    parts = zip((module.query, module.key, module.value), (query, key, value), strict=True)
    q, k, v = (project(x).double() for project, x in parts)
    width = q.shape[-1] // module.heads
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for h in range(module.heads):
            part = slice(h * width, (h + 1) * width)
            for n in range(q.shape[1]):
                scores = [float(q[b, n, part] @ k[b, m, part]) / math.sqrt(width) for m in range(k.shape[1])]
                scores = [s + float(bias[h, n, m]) for m, s in enumerate(scores)]
                weights = [math.exp(s - max(scores)) for s in scores]
                out[b, n, part] = sum(w / sum(weights) * v[b, m, part] for m, w in enumerate(weights))
    return module.out(out.float())


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("tokens, context, heads", [(1, 1, 1), (5, 3, 2), (2, 7, 4)])
def test_equals_the_loop(tokens, context, heads, biased):
    module = Attention(channels=8, heads=heads)
    query, key, value = torch.randn(2, tokens, 8), torch.randn(2, context, 8), torch.randn(2, context, 8)
    bias = torch.randn(heads, tokens, context) if biased else None
    fast = module(query, key, value, bias=bias)
    plain = module(query, key, value, need_weights=True, bias=bias)
    assert fast.weights is None
    torch.testing.assert_close(
        fast.tokens, naive(module, query, key, value, torch.zeros(heads, tokens, context) if bias is None else bias)
    )
    torch.testing.assert_close(plain.tokens, fast.tokens)
    assert plain.weights.shape == (2, heads, tokens, context)
    torch.testing.assert_close(plain.weights.sum(-1), torch.ones(2, heads, tokens))


def test_context_order_does_not_matter_without_positions():
    block = AttentionBlock(channels=12, heads=3, cross=True)
    x, context = torch.randn(2, 4, 12), torch.randn(2, 6, 12)
    torch.testing.assert_close(block(x, context).tokens, block(x, context.flip(1)).tokens)
    where = sincos_position((1, 2, 3), 12, x)
    assert not torch.allclose(
        block(x, context, context_position=where).tokens, block(x, context.flip(1), context_position=where).tokens
    )


def test_local_heads_start_at_their_own_place_and_have_different_reaches():
    block = AttentionBlock(channels=24, heads=4, cross=True, local=True)
    torch.nn.init.zeros_(block.attention.query.weight)
    torch.nn.init.zeros_(block.attention.query.bias)
    distance = squared_distance((2, 2, 2), (4, 4, 4), torch.zeros(1))
    weights = block(torch.randn(1, 8, 24), torch.randn(1, 64, 24), distance=distance, need_weights=True).weights[0]
    near = weights.detach().masked_fill(distance > 0.76, 0).sum(-1)  # the eight voxels that a coarse one covers
    assert (near[0] > 0.5).all() and (near[-1] < 0.4).all()
    assert (near[:-1] > near[1:]).all()
    weights[0, 0, 0].backward()
    assert block.reach.grad.any()


def test_distances_of_one_grid_are_voxels():
    distance = squared_distance((2, 3, 4), (2, 3, 4), torch.zeros(1))
    assert torch.equal(distance.diagonal(), torch.zeros(24))
    torch.testing.assert_close(distance[0, 23], torch.tensor(1.0 + 4.0 + 9.0))


def test_block_is_residual():
    block = AttentionBlock(channels=12, heads=3, cross=False)
    for last in (block.attention.out, block.mlp.linear2):
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
    x = torch.randn(1, 5, 12)
    assert torch.equal(block(x).tokens, x)


def test_position_equals_the_formula():
    grid, channels = (2, 3, 4), 26
    got = sincos_position(grid, channels, torch.zeros(1))[0]
    count = channels // 6
    n = 0
    for x in range(2):
        for y in range(3):
            for z in range(4):
                want = []
                for i, size in zip((x, y, z), grid, strict=True):
                    angles = [(i + 0.5) / size * math.pi * 32 ** (j / (count - 1)) for j in range(count)]
                    want += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
                torch.testing.assert_close(got[n], torch.tensor([*want, 0.0, 0.0]), atol=1e-5, rtol=1e-5)
                n += 1


def test_positions_of_two_grids_agree_on_places():
    fine, coarse = sincos_position((3, 3, 3), 12, torch.zeros(1)), sincos_position((1, 1, 1), 12, torch.zeros(1))
    torch.testing.assert_close(fine[0, 13], coarse[0, 0])


def test_tokens_there_and_back():
    volume = torch.randn(2, 5, 2, 3, 4)
    tokens = to_tokens(volume)
    assert torch.equal(tokens[1, 1 * 12 + 2 * 4 + 3], volume[1, :, 1, 2, 3])
    assert torch.equal(from_tokens(tokens, (2, 3, 4)), volume)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Attention(channels=10, heads=3),
        lambda: Attention(channels=10, heads=0),
        lambda: sincos_position((2, 2), 12, torch.zeros(1)),
        lambda: sincos_position((2, 2, 2), 5, torch.zeros(1)),
        lambda: squared_distance((2, 2), (2, 2, 2), torch.zeros(1)),
        lambda: from_tokens(torch.zeros(1, 7, 3), (2, 2, 2)),
        lambda: AttentionBlock(channels=6, heads=1, cross=True)(torch.zeros(1, 2, 6)),
        lambda: AttentionBlock(channels=6, heads=1, cross=False)(torch.zeros(1, 2, 6), torch.zeros(1, 2, 6)),
        lambda: AttentionBlock(channels=6, heads=1, cross=True)(torch.zeros(2, 2, 6), torch.zeros(1, 2, 6)),
        lambda: AttentionBlock(channels=6, heads=1, cross=True, local=True)(torch.zeros(1, 2, 6), torch.zeros(1, 2, 6)),
        lambda: AttentionBlock(channels=6, heads=1, cross=False)(torch.zeros(1, 2, 6), distance=torch.zeros(2, 2)),
    ],
)
def test_bad_arguments(call):
    with pytest.raises(ConfigError):
        call()
