import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.layers.fusion.combine import combine
from common.layers.gating.routing import hard_routing, soft_routing


def naive(weights, experts):
    out = torch.zeros_like(experts[0])
    for b in range(out.shape[0]):
        for e, expert in enumerate(experts):
            for index in torch.cartesian_prod(*(torch.arange(n) for n in out.shape[2:])).reshape(-1, out.ndim - 2):
                at = tuple(index.tolist())
                w = weights[b, e] if weights.ndim == 2 else weights[(b, e, *at)]
                out[(b, slice(None), *at)] += w * expert[(b, slice(None), *at)]
    return out


@pytest.mark.parametrize("per_voxel", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_equals_the_loop(count, per_voxel):
    experts = [torch.randn(2, 4, 2, 3) for _ in range(count)]
    weights = soft_routing(torch.randn(2, count, 2, 3) if per_voxel else torch.randn(2, count)).weights
    torch.testing.assert_close(combine(weights, experts), naive(weights, experts))
    torch.testing.assert_close(combine(weights, torch.stack(experts, 1)), combine(weights, experts))


@given(st.integers(2, 5), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_order_of_experts_does_not_matter(count, random):
    experts, weights = [torch.randn(2, 3, 4) for _ in range(count)], soft_routing(torch.randn(2, count)).weights
    order = random.sample(range(count), count)
    torch.testing.assert_close(combine(weights[:, order], [experts[i] for i in order]), combine(weights, experts))


def test_one_expert_is_itself_and_twins_are_one():
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(combine(torch.ones(2, 1), [x]), x)
    torch.testing.assert_close(combine(soft_routing(torch.randn(2, 3)).weights, [x, x, x]), x)
    decided = hard_routing(torch.tensor([1, 0]), 2).weights
    assert torch.equal(combine(decided, [x, 2 * x]), torch.stack([2 * x[0], x[1]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_with_decided_gates(dtype):
    experts = [torch.full((1, 2, 3), v, dtype=dtype) for v in (100.0, -100.0)]
    got = combine(soft_routing(torch.tensor([[1e4, -1e4]])).weights.to(dtype), experts)
    assert got.dtype == dtype
    assert torch.equal(got, experts[0])


@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 1), (2, 1), (1, 3), (2, 3, 4), (3,), (2, 3, 5, 4), (2, 3, 4, 1)])
def test_every_wrong_weight_shape_is_refused(shape):
    experts = [torch.randn(2, 6, 4, 5) for _ in range(3)]
    with pytest.raises(ConfigError):
        combine(torch.ones(shape), experts)


def test_experts_that_differ_are_refused():
    with pytest.raises(ConfigError):
        combine(torch.ones(1, 2), [torch.ones(1, 2, 3), torch.ones(1, 1, 3)])
    with pytest.raises(ConfigError):
        combine(torch.ones(1, 0), [])
