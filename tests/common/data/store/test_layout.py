import itertools

import blosc2
import numpy as np
import pytest

from common.data.store.layout import Reading, pieces
from common.errors import ConfigError

DECODED = []
CODEC = 211


def _encode(source, target, meta, schunk):
    """Numbers below 256 without their upper bytes: what cannot be made smaller, blosc2 stores without a codec."""
    half = len(source) // 2
    target[:half] = source[0::2]
    return half


def _decode(source, target, meta, schunk):
    DECODED.append(len(target))
    target[0::2], target[1::2] = source[: len(target) // 2], 0
    return len(target)


@pytest.fixture(scope="module")
def counting():
    """An array whose blocks are counted when they are read."""
    blosc2.register_codec("counting", CODEC, _encode, _decode)

    def make(values, reading):
        cut = pieces(values.shape, reading)
        options = {"codec": CODEC, "nthreads": 1, "filters": [blosc2.Filter.NOFILTER], "clevel": 5}
        return blosc2.asarray(values, blocks=cut.block, chunks=cut.chunk, cparams=options, dparams={"nthreads": 1})

    return make


def read_bytes(array, part):
    DECODED.clear()
    found = array[part]
    return sum(DECODED) / found.nbytes


@pytest.mark.parametrize(
    ("shape", "crop"),
    [((1, 160, 150, 110), (96, 96, 96)), ((1, 140, 140, 140), (128, 128, 128)), ((2, 90, 100, 40), (64, 64, 24))],
)
def test_a_crop_reads_at_most_twice_its_own_bytes(counting, shape, crop):
    rng = np.random.default_rng(0)
    array = counting(rng.integers(0, 256, shape).astype(np.uint16), Reading.crops(crop))
    shares = []
    for _ in range(12):
        low = [int(rng.integers(0, n - c + 1)) for n, c in zip(shape[1:], crop)]
        part = (slice(None), *(slice(a, a + c) for a, c in zip(low, crop)))
        shares.append(read_bytes(array, part))
    assert all(s > 0 for s in shares) and max(shares) <= 2, shares


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_reads_itself_alone(counting, axis):
    shape = (1, *np.roll((30, 224, 224), axis))
    array = counting(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint16), Reading(axis=axis))
    part = [slice(None)] * 4
    part[axis + 1] = slice(7, 8)
    assert read_bytes(array, tuple(part)) <= 1.05


def test_pieces_fit_any_shape():
    for shape, crop in itertools.product([(1, 3, 5, 2), (3, 1, 40, 500), (1, 7, 7)], [(96, 96, 96), (4, 200, 200), 16]):
        cut = pieces(shape, Reading.crops(crop, len(shape) - 1))
        assert all(1 <= b <= c for b, c in zip(cut.block, cut.chunk))
        assert all(b <= n for b, n in zip(cut.block, shape))
    with pytest.raises(ConfigError, match="at least one voxel"):
        Reading.crops((96, 0, 96))
