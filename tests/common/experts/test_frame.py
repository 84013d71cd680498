"""A crop's way into an expert's frame and back, by the voxel."""

from __future__ import annotations

import pytest
import torch

from common.errors import ExpertError
from common.experts.frame import Frame, Placement


def frame(**given: object) -> Frame:
    plain = {"orientation": None, "order": (0, 1, 2), "spacing": (None,) * 3, "divisor": (4, 4, 4)}
    return Frame(**{**plain, **given})  # type: ignore[arg-type]


def test_axes_are_turned_and_mirrored_as_they_are_called() -> None:
    place = frame(orientation="LPI").place((4, 5, 6), (1, 1, 1), "RAS", resample=True)
    assert place == Placement((0, 1, 2), (0, 1, 2), (4, 5, 6), (4, 5, 6))
    place = frame(orientation="SAR", order=(2, 0, 1)).place((4, 5, 6), (1, 1, 1), "RAS", resample=False)
    assert place.axes == (0, 2, 1) and place.flips == () and place.shape == (4, 6, 5)
    place = frame(orientation="IAR", order=(2, 0, 1)).place((4, 5, 6), (1, 1, 1), "RAS", resample=False)
    assert place.axes == (0, 2, 1) and place.flips == (1,)
    for same in (frame(), frame(orientation="RAS")):
        assert same.place((4, 5, 6), (1, 1, 1), "RAS", resample=False).flips == ()
    with pytest.raises(ExpertError, match="cannot orient"):
        frame(orientation="RAS").place((4, 5, 6), (1, 1, 1), "RRR?", resample=False)


def test_a_spacing_that_is_nearly_the_same_is_the_same() -> None:
    own = frame(spacing=(2.0, None, 1.0))
    assert own.place((10, 10, 10), (1.0, 3.0, 1.0009), "RAS", resample=True).resampled == (5, 10, 10)
    assert own.place((1000, 10, 1000), (2.004, 3.0, 1.002), "RAS", resample=True).resampled == (1002, 10, 1002)
    assert own.place((10, 10, 10), (1.0, 3.0, 2.0), "RAS", resample=False).resampled == (10, 10, 10)
    assert own.place((1, 10, 10), (0.1, 3.0, 1.0), "RAS", resample=True).resampled == (1, 10, 10)


@pytest.mark.parametrize(
    ("divisor", "planar", "shape", "padded"),
    [
        ((4, 4, 4), False, (8, 8, 8), (8, 8, 8)),
        ((4, 4, 4), False, (7, 5, 9), (8, 8, 12)),
        ((4, 4, 4), False, (4, 4, 4), (8, 4, 4)),  # at least two voxels at the bottom
        ((4, 4, 4), False, (3, 4, 2), (4, 8, 4)),  # along the longest
        ((1, 4, 4), False, (1, 4, 4), (1, 8, 4)),
        ((1, 4, 4), True, (9, 4, 3), (9, 8, 4)),
        ((1, 4, 4), True, (9, 5, 3), (9, 8, 4)),
        ((1, 1, 4), False, (1, 1, 4), (1, 1, 8)),
    ],
)
def test_padding_is_to_the_next_multiple_and_two_at_the_bottom(
    divisor: tuple[int, int, int], planar: bool, shape: tuple[int, ...], padded: tuple[int, ...]
) -> None:
    assert frame(divisor=divisor, planar=planar).padded(shape) == padded


def test_there_and_back_is_where_it_was() -> None:
    own = frame(orientation="IAR", order=(2, 0, 1), divisor=(4, 8, 2))
    crop = torch.arange(4 * 5 * 6.0).reshape(1, 1, 4, 5, 6)
    place = own.place((4, 5, 6), (1, 1, 1), "RAS", resample=True)
    inside = own.enter(crop, place)
    assert inside.shape == (1, 1, 4, 8, 6) and inside[..., 6:, :].abs().max() == 0 == inside[..., 5:].abs().max()
    assert inside[0, 0, 1, 0, 2] == crop[0, 0, 1, 2, 5], "mirrored along what became the second axis"
    assert torch.equal(own.leave(inside, place), crop)
    assert torch.equal(place.back(torch.flip(crop.permute(0, 1, 2, 4, 3), [3])), crop)


def test_a_feature_map_covers_the_crop_and_not_its_padding() -> None:
    own = frame(divisor=(4, 4, 4))
    place = own.place((6, 8, 4), (1, 1, 1), "RAS", resample=False)
    assert own.padded(place.resampled) == (8, 8, 4)
    ramp = (torch.arange(4) * 2 + 0.5).view(1, 1, 4, 1, 1).expand(1, 2, 4, 4, 2)  # middles, 8 voxels in 4
    found = own.cover(ramp, place)
    assert found.shape == (1, 2, 3, 4, 2) and found[0, 0, :, 0, 0].tolist() == [0.5, 2.5, 4.5]
    coarse = torch.tensor([0.0, 1.0]).view(1, 1, 2, 1, 1).expand(1, 1, 2, 2, 1)
    small = own.place((5, 8, 4), (1, 1, 1), "RAS", resample=False)
    assert own.cover(coarse, small)[0, 0, :, 0, 0].tolist() == [pytest.approx(0.125)]
    whole = own.place((8, 8, 4), (1, 1, 1), "RAS", resample=False)
    assert torch.equal(own.cover(ramp, whole), ramp)
