"""Floors of SAM's encoder that do not depend on how busy the machine is: multiply-adds and the memory of tensors."""

import pytest

from tools.bench.measure import multiply_adds, tensor_memory
from tools.bench.sam import LAPTOP, PAPER, cases


@pytest.mark.parametrize(
    ("part", "fewer", "memory", "sizes"),
    [
        ("encoder_224", 1.0, 1.0, LAPTOP),
        ("encoder_256", 1.4, 0.4, LAPTOP),
        ("training", 1.3, 0.7, LAPTOP),
        pytest.param("encoder_512", 1.15, 0.3, PAPER, marks=pytest.mark.slow),
        pytest.param("encoder_1024", 1.05, 0.2, PAPER, marks=pytest.mark.slow),
    ],
)
def test_encoder(part, fewer, memory, sizes):
    (case,) = cases(**sizes, count=3, parts=[part])
    assert case.difference() <= case.tolerance
    assert multiply_adds(case.plain) / multiply_adds(case.fast) >= fewer
    assert tensor_memory(case.fast) <= memory * tensor_memory(case.plain)
