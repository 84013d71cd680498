import pytest
import torch

from common.errors import ConfigError
from common.layers.gating import hard_routing, soft_routing


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
