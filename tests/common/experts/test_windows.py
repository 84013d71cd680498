"""Windows of a large crop: the weighted mean at the right places, at every resolution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.errors import ExpertError
from common.experts.windows import MOST_VOXELS, in_windows, window


def pyramid(x: Tensor) -> list[Tensor]:
    """What needs no neighbours: windows give just what the whole crop gives."""
    return [2 * x, F.avg_pool3d(x, (4, 2, 4)), x.mean(1, keepdim=True)]


@pytest.mark.parametrize("shape", [(16, 8, 24), (8, 8, 8), (12, 20, 8)])
def test_windows_are_the_whole_where_no_context_is_needed(shape: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = in_windows(pyramid, x, (8, 8, 8), (4, 4, 4))
    for ours, whole in zip(found, pyramid(x), strict=True):
        torch.testing.assert_close(ours, whole)


def test_the_middle_of_a_window_counts_most() -> None:
    """Two windows that say 0 and 1: naive weights along the line where they overlap."""
    said = iter([0.0, 1.0])

    def ask(x: Tensor) -> list[Tensor]:
        return [torch.full_like(x, next(said))]

    (found,) = in_windows(ask, torch.zeros(1, 1, 12, 8, 8), (8, 8, 8), (2, 2, 2))
    near = [1 - abs(i - 3.5) / 4.5 for i in range(8)]
    wanted = [0.0] * 4 + [near[i] / (near[i] + near[i + 4]) for i in range(4)] + [1.0] * 4
    assert found[0, 0, :, 3, 3].tolist() == pytest.approx(wanted, abs=1e-6)


def test_which_window() -> None:
    assert window((16, 16, 16), (4, 4, 4), (64, 64, 64)) is None
    assert window((30, 64, 64), (4, 8, 8), (400, 200, 200)) == (32, 64, 64)
    assert window(None, (32, 32, 32), (64, 512, 512)) == (64, 128, 128)
    assert MOST_VOXELS < 64 * 512 * 512


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ExpertError, match="do not fit windows"):
        in_windows(lambda x: [x[..., :7, :7, :7]], torch.zeros(1, 1, 12, 12, 12), (8, 8, 8), (2, 2, 2))
