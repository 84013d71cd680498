import numpy as np
import pytest
import torch

from common.data.store.quantised import pack, unpack


def back(values):
    kept, how = pack(values)
    found = unpack(kept, how).numpy()
    assert found.dtype == values.dtype and found.shape == values.shape
    return kept.dtype, found


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([[0.0, 1.0, 13.0]], np.float32), np.uint8),
        (np.array([[-1.0, 0.0, 2.0]], np.float32), np.int8),
        (np.array([[-1024, 3071]], np.float32), np.int16),
        (np.array([[0, 300]], np.int64), np.uint16),
        (np.array([[-70000, 70000]], np.int64), np.int32),
        (np.array([[True, False]]), np.uint8),
        (np.array([[2**40, 1]], np.int64), np.int64),
    ],
)
def test_whole_numbers_are_kept_exactly_in_the_smallest_type(values, kind):
    found, same = back(values)
    assert found == kind and np.array_equal(same, values)


def test_the_way_that_loses_less_is_taken():
    rng = np.random.default_rng(0)
    wide = rng.uniform(-1000, 1000, (1, 20, 20, 20)).astype(np.float32)  # float16 errs by up to 0.25 there
    kind, found = back(wide)
    assert kind == np.uint16 and np.abs(found - wide).max() <= 2000 / 65535 / 2 * 1.01
    scores = rng.standard_normal((1, 20, 20, 20)).astype(np.float32) * 1e-3
    scores[0, 0, 0, 0] = 4.0  # one far voxel spoils equal steps near zero, but not by more than float16 errs at it
    kind, found = back(scores)
    assert np.abs(found - scores).max() <= min(4 * 2**-11, (4 - scores.min()) / 65535)


def test_channels_have_steps_of_their_own():
    rng = np.random.default_rng(1)
    values = np.stack([rng.uniform(0, 1, (9, 9, 9)), rng.uniform(0, 3000.5, (9, 9, 9))]).astype(np.float32)
    kept, how = pack(values)
    assert kept.dtype == np.uint16
    found = unpack(kept, how).numpy()
    assert np.abs(found[0] - values[0]).max() < 1e-5
    part = unpack(kept[1:2, 3:5], how, slice(1, 2)).numpy()
    assert np.array_equal(part, found[1:2, 3:5])


def test_infinite_and_constant_volumes():
    values = np.array([[np.nan, np.inf, -np.inf, 0.5]], np.float32)
    assert np.array_equal(back(values)[1], values, equal_nan=True)
    huge = np.array([[np.nan, 1e30, 0.5]], np.float32)
    assert np.array_equal(back(huge)[1], huge, equal_nan=True)
    constant = np.full((2, 3, 3), 0.3, np.float32)
    assert np.abs(back(constant)[1] - constant).max() < 1e-6
    assert back(np.zeros((0, 3), np.float32))[1].shape == (0, 3)
    assert torch.equal(unpack(*pack(np.full((1, 4), 1e6 + 0.5, np.float32))), torch.full((1, 4), 1e6 + 0.5))
