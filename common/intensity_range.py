"""How bright a scan is, and whether that fits its modality, the scans beside it or those that a model learned from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Range", "odd_beside", "odd_ct", "odd_ct_for", "odd_for", "range_of"]

_MOST = 200_000
_AIR, _TISSUE = -1100.0, -300.0  # HU: padding below air is nobody's concern; a body has voxels on both sides of -300
_CT_SHIFT = 400.0
_SCALE = 10.0
_COMPARABLE = 3
_SOFT = (874.0, 1174.0)  # fat to muscle, 1024 too high
_ALONE = 0.95
_HARDLY, _NO_NOISE = 50.0, 10.0  # HU between all voxels, and 99 % of them: even a crop of soft tissue has more
_ANY_HU = 4000.0  # metal may fill half a percent of a scan, but 12 bits end before that
_NO_PADDING, _DEEPEST, _PADDED = -4200.0, -32000.0, (-8192.0,)
_UNIT = 3.0  # SUV, ADC: how many times more or less is another unit
_BELOW = 0.1  # of the span: interpolation alone rings less far below 0
_DEEP, _SHARE = -1250.0, 0.05  # air is not that dark, and padding is one value
_PADDINGS = 4  # values that lie around and between what was scanned


class Range(NamedTuple):
    """Of one channel of a scan: percentiles of all finite voxels (native intensities), and the extremes.

    Args:
        low: 0.5th percentile.
        high: 99.5th percentile.
        smallest: of all voxels.
        largest: of all voxels.
        shifted: whether a CT's tissue would lie near 1024, over padding or nothing: it was stored with an offset.
        deep: whether much lies below a CT's air that is no padding: it was stored times something.
    """

    low: float
    high: float
    smallest: float
    largest: float
    shifted: bool = False
    deep: bool = False

    def __str__(self) -> str:
        return f"{self.smallest:g} to {self.largest:g} (99 % of the voxels {self.low:g} to {self.high:g})"


def range_of(voxels: ArrayLike) -> Range | None:
    """The range of one channel; None without a finite voxel.

    Args:
        voxels: any shape; of large scans every n-th is taken, the same each time.
    """
    array = np.asarray(voxels).reshape(-1)
    finite = array[:: max(1, array.size // _MOST)].astype(np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return None
    low, high = np.percentile(finite, (0.5, 99.5))
    with np.errstate(invalid="ignore"):
        smallest, largest = float(np.nanmin(array)), float(np.nanmax(array))
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        kept = array[np.isfinite(array)]
        smallest, largest = float(kept.min()), float(kept.max())
    return Range(float(low), float(high), smallest, largest, _is_shifted(finite), _is_deep(finite))


def _is_deep(voxels: NDArray[np.float64]) -> bool:
    """Whether a part of the voxels lies below air, and has noise there as no padding has."""
    below = voxels[voxels < _DEEP]
    if below.size < _SHARE * voxels.size:
        return False
    return not _is_padding(below)


def _is_padding(voxels: NDArray[np.float64]) -> bool:
    """Whether voxels, or none, are nearly all of a few values; air has noise."""
    counts = np.sort(np.unique(voxels, return_counts=True)[1])
    return bool(counts[-_PADDINGS:].sum() >= _ALONE * voxels.size)


def _is_shifted(voxels: NDArray[np.float64]) -> bool:
    """Whether what is dense would be soft tissue after 1024 is taken off, and what is below tissue is padding alone."""
    below, rest = voxels[voxels <= _TISSUE], voxels[voxels > _TISSUE]
    if not _is_padding(below):
        return False
    dense = rest[rest > -_TISSUE]
    soft = np.count_nonzero((dense > _SOFT[0]) & (dense < _SOFT[1]))
    return bool(dense.size > (1 - _ALONE) * rest.size and soft > dense.size / 2)


def odd_ct(found: Range) -> str | None:
    """Why a CT's intensities are no HU, judged by themselves; None when they can be.

    Args:
        found: of a CT.
    """
    if found.largest - found.smallest <= _HARDLY or found.high - found.low <= _NO_NOISE:
        return "a CT in HU spans hundreds, this spans hardly anything: it was rescaled"
    if found.smallest >= 0 and found.largest <= 255:
        return "a CT in HU has air near -1000, this is within 0 to 255: a windowed picture"
    if found.smallest >= 0:
        return "a CT in HU has air near -1000, this has nothing below 0: stored with an offset, perhaps of 1024"
    if found.shifted:
        return "a CT in HU has soft tissue near 0, this has it near 1024: stored with an offset"
    if found.high < _TISSUE:
        return "a CT in HU has tissue near 0, this has none above -300: an offset was taken off twice"
    scaled = _DEEPEST < found.low < _NO_PADDING and found.low not in _PADDED
    if found.deep or scaled or found.high > _ANY_HU:
        return "a CT in HU has air near -1000 and bone below 3000, this goes far beyond: another scale"
    return None


def odd_beside(found: Range, others: Sequence[Range], *, ct: bool) -> str | None:
    """Why a scan is not as bright as the others of its modality; None when it is, or when they are too few.

    Args:
        found: of the scan.
        others: of all scans of the data set and modality, this one included.
        ct: whether they should be in HU.
    """
    if len(others) < _COMPARABLE:
        return None
    floor = _AIR if ct else -np.inf
    low = float(np.median([max(o.low, floor) for o in others]))
    high = float(np.median([o.high for o in others]))
    return _odd(found, (low, low), (high, high), ct=ct, whose="the other scans")


def odd_for(found: Range, learned: Mapping[str, Any], *, ct: bool, unit: bool = False) -> str | None:
    """Why a scan is not as bright as those that a model learned from; None when it is, or when nobody knows.

    Args:
        found: of the scan.
        learned: the card's statistics: ``lows`` and ``highs``, the extremes over scans of what :class:`Range` has.
        ct: whether they should be in HU.
        unit: whether they are in a unit, such as SUV: a few times more or less is another one.
    """
    spans = _spans(learned)
    if spans is None:
        return None
    lows, highs = spans
    floor = _AIR if ct else -np.inf
    whose = "the scans that the model learned from"
    low = (max(lows[0], floor), max(lows[1], floor))
    if not ct and lows[0] >= 0 and found.low < -_BELOW * (highs[1] - lows[0]):
        return f"below 0, as none of them is: {whose} lie between {lows[0]:g} and {highs[1]:g}"
    return _odd(found, low, highs, ct=ct, whose=whose) or (_other_unit(found, low, highs, whose) if unit else None)


def odd_ct_for(found: Range, learned: Mapping[str, Any]) -> str | None:
    """Why a CT's intensities are no HU, for a model that learned from HU; None when they can be, or it did not.

    Args:
        found: of a CT.
        learned: the card's statistics, as of :func:`odd_for`; without any the model learned from HU.
    """
    spans = _spans(learned)
    if spans is not None:
        (_, low), (least, high) = spans
        if odd_ct(Range(low, high, low, high, shifted=least >= _SOFT[0])):
            return None
    return odd_ct(found)


def _spans(learned: Mapping[str, Any]) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """The lowest and the highest of the dark ends, and of the bright ends; None when a card does not say."""
    try:
        lows, highs = (tuple(float(v) for v in learned[k]) for k in ("lows", "highs"))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if len(lows) != len(highs) or len(lows) != len((0, 1)) or not all(map(math.isfinite, (*lows, *highs))):
        return None
    return (lows[0], lows[1]), (highs[0], highs[1])


def _other_unit(found: Range, lows: tuple[float, float], highs: tuple[float, float], whose: str) -> str | None:
    """Where the numbers have a unit, the bright end tells it: times ten, thousands of Bq, a logarithm."""
    known = f"{whose} lie between {lows[0]:g} and {highs[1]:g}"
    if highs[0] <= 0:
        return None
    if found.high > _UNIT * highs[1] or found.high < highs[0] / _UNIT:
        return f"another unit or scale: {known}"
    return None


def _odd(found: Range, lows: tuple[float, float], highs: tuple[float, float], *, ct: bool, whose: str) -> str | None:
    known = f"{whose} lie between {lows[0]:g} and {highs[1]:g}"
    low = max(found.low, _AIR) if ct else found.low
    if ct and found.shifted and highs[0] < _SOFT[0]:
        return f"a constant offset, perhaps of 1024: {known}"
    span = max(highs[1] - lows[0], 1e-9)
    tolerance = _CT_SHIFT if ct else 0.5 * span
    if found.high - low < span / (_SCALE if ct else 2 * _SCALE) or (
        not ct and found.high - low > 2 * _SCALE * max(highs[0] - lows[1], 1e-9)
    ):
        return f"another scale: {known}"
    if low > lows[1] + tolerance or low < lows[0] - tolerance:
        return f"a constant offset or another unit: {known}"
    return None
