"""Floors of IC-MoE that do not depend on how busy the machine is: multiply-adds and the memory of tensors."""

import pytest

from tools.bench.ic_moe import LAPTOP, PAPER, cases
from tools.bench.measure import multiply_adds, tensor_memory


@pytest.mark.parametrize(
    ("part", "fewer", "memory", "sizes"),
    [
        ("inference_256", 1.75, 0.55, LAPTOP),
        ("training", 1.6, 0.95, LAPTOP),
        pytest.param("inference_256", 2.0, 0.4, PAPER, marks=pytest.mark.slow),
        pytest.param("training", 1.9, 0.8, PAPER, marks=pytest.mark.slow),
        pytest.param("training_cached", 2.9, 0.8, PAPER, marks=pytest.mark.slow),
    ],
)
def test_three_experts(part, fewer, memory, sizes):
    (case,) = cases(**sizes, count=3, parts=[part])
    assert case.difference() <= case.tolerance
    assert multiply_adds(case.plain) / multiply_adds(case.fast) >= fewer
    assert tensor_memory(case.fast) <= memory * tensor_memory(case.plain)
