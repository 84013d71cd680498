"""The scripted student gives what the student gives without boxes."""

import pytest
import torch

from common.layers.attention.cross import sincos_position
from common.methods.ka2er.script import _positions


@pytest.mark.parametrize(
    "options", [{}, {"levels": "multi_eighth"}, {"prompt_fuse": "concat"}, {"fuse_at": "map"}, {"exclusive": False}]
)
def test_scripted_student_is_equal_on_every_window(make, options):
    student = make.student(**options).eval()
    for parameter in student.head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    scripted = torch.jit.script(student)
    for size in [(32, 32, 64), (64, 32, 32)]:
        image = torch.randn(2, 1, *size)
        with torch.no_grad():
            torch.testing.assert_close(scripted(image), student(image))


def test_positions_are_those_of_the_student():
    like = torch.zeros(1, dtype=torch.float64)
    for grid, channels in [([2, 3, 4], 13), ([1, 1, 1], 6)]:
        assert torch.equal(_positions(grid, channels, like), sincos_position(grid, channels, like))
