"""Floors of M4oE that do not depend on how busy the machine is: the memory of tensors."""

import pytest

from tools.bench.m4oe import LAPTOP, PAPER, cases
from tools.bench.measure import tensor_memory


@pytest.mark.parametrize(
    ("part", "floor", "sizes"),
    [
        ("layer", 0.4, LAPTOP),
        ("layer_training", 0.5, LAPTOP),
        ("inference", 0.4, LAPTOP),
        # of a smaller network's step, the weights' gradients are the larger part, the same in both ways
        pytest.param("training", 0.5, PAPER, marks=pytest.mark.slow),
    ],
)
def test_memory_of_three_experts(part, floor, sizes):
    (case,) = cases(**sizes, count=3, parts=[part])
    assert case.difference() <= case.tolerance
    assert tensor_memory(case.fast) <= floor * tensor_memory(case.plain)
