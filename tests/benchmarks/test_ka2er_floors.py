"""Floors that do not depend on how busy the machine is: multiply-adds and peak memory."""

import math

import pytest

from tools.bench.ka2er import _inference, _training
from tools.bench.measure import multiply_adds, peak_memory


@pytest.mark.parametrize("build", [_inference, pytest.param(_training, marks=pytest.mark.slow)])
def test_student_is_equal_with_fewer_multiply_adds(build):
    case = build(64, 12)
    assert case.difference() <= case.tolerance
    assert multiply_adds(case.plain) > 1.15 * multiply_adds(case.fast)


@pytest.mark.slow
@pytest.mark.parametrize("build", [_inference, _training])
def test_student_needs_at_most_two_thirds_of_the_memory(build):
    case = build(96, 24)
    plain, fast = peak_memory(case.plain), peak_memory(case.fast)
    assert math.isnan(plain) or fast <= 0.65 * plain
