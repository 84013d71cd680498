"""Floors of M4oE that do not depend on how busy the machine is: the memory of tensors."""

import pytest

from tools.bench_m4oe import cases
from tools.bench_measure import tensor_memory


@pytest.mark.parametrize(
    ("part", "floor"),
    [
        ("layer", 0.4),
        ("layer_training", 0.5),
        ("inference", 0.4),
        pytest.param("training", 0.5, marks=pytest.mark.slow),
    ],
)
def test_memory_of_three_experts(part, floor):
    (case,) = cases(128, 48, 3, [part])
    assert case.difference() <= case.tolerance
    assert tensor_memory(case.fast) <= floor * tensor_memory(case.plain)
