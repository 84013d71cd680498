import pytest
import torch

from common.data.store.entry import StoredArray, box_of, read_entry, write_entry
from common.data.store.layout import Reading
from common.data.store.stacked import StackedArrays
from common.errors import DataError


@pytest.fixture
def parts(tmp_path):
    random = torch.Generator().manual_seed(0)
    arrays = [torch.randint(0, 255, (n, 20, 18, 22), generator=random, dtype=torch.uint8) for n in (5, 3)]
    write_entry(tmp_path / "entry", {"a": arrays[0], "b": arrays[1]}, Reading.crops((8, 8, 8)), {})
    found = read_entry(tmp_path / "entry")
    return arrays, [found["a"], found["b"]]


def test_arrays_are_read_together_and_absent_ones_are_zeros(parts):
    (one, two), stored = parts
    stacked = StackedArrays([stored[0], 2, stored[1]], (20, 18, 22))
    expected = torch.cat([one, torch.zeros(2, 20, 18, 22, dtype=torch.uint8), two])
    assert stacked.shape == (10, 20, 18, 22) and stacked.ndim == 4 and isinstance(stacked, StoredArray)
    assert torch.equal(stacked.whole(), expected) and stacked.whole().dtype == torch.uint8
    assert torch.equal(box_of(stacked, (2, 3, 4), (9, 8, 10)), expected[:, 2:9, 3:8, 4:10])
    beyond = box_of(stacked, (-3, 0, 15), (5, 4, 25))  # leaves the volume on two sides
    assert beyond.shape == (10, 8, 4, 10) and torch.equal(beyond[:, 3:, :, :7], expected[:, :5, :4, 15:])
    assert not beyond[:, :3].any() and not beyond[..., 7:].any()
    assert StackedArrays([], (4, 4, 4)).whole().shape == (0, 4, 4, 4)


def test_another_grid_or_a_part_of_the_channels_is_refused(parts):
    _, stored = parts
    with pytest.raises(DataError, match="another grid"):
        StackedArrays(stored, (20, 18, 21))
    with pytest.raises(DataError, match="all their channels"):
        StackedArrays(stored, (20, 18, 22)).read([slice(0, 2)])
