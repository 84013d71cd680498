"""Masks hide whole squares, as many as asked for, others in each sample."""

import pytest
import torch

from common.errors import ConfigError
from common.layers.window_mask import window_mask


@pytest.mark.parametrize("ratio, count", [(0.75, 12), (0.5, 8), (0.1, 2)])
def test_whole_squares_are_hidden(ratio, count):
    hidden = window_mask(3, 16, 16, ratio=ratio, side=4)
    for sample in hidden:
        squares = sample.view(4, 4, 4, 4).permute(0, 2, 1, 3).reshape(16, 16)
        assert ((squares.all(1)) | (~squares.any(1))).all()
        assert int(squares.all(1).sum()) == count
    assert not torch.equal(hidden[0], hidden[1])


def test_the_papers_mask_keeps_49_of_196_squares():
    hidden = window_mask(1, 56, 56, ratio=0.75, side=4)
    assert int((~hidden).sum()) == 49 * 16


@pytest.mark.parametrize("options", [{"ratio": 0.0, "side": 4}, {"ratio": 1.0, "side": 4}, {"ratio": 0.5, "side": 3}])
def test_masks_that_make_no_sense(options):
    with pytest.raises(ConfigError):
        window_mask(1, 16, 16, **options)


def test_a_generator_decides_what_is_hidden():
    one, two = (window_mask(2, 8, 8, ratio=0.5, side=2, generator=torch.Generator().manual_seed(n)) for n in (0, 0))
    other = window_mask(2, 8, 8, ratio=0.5, side=2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(one, two) and not torch.equal(one, other)
