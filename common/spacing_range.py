"""Whether a scan's voxels are of a size that a model ever saw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["odd_spacing"]

_FACTOR = 5.0  # thick slices of the clinic are that far from thin ones; a micro-CT is ten times further


def odd_spacing(
    spacing: Sequence[float], modalities: Mapping[str, Mapping[str, Any]], names: Sequence[str] = ()
) -> str | None:
    """Why a scan's spacing is none that a model learned from; None when it can be, or when nobody knows.

    Axes are not compared one by one: a file may have them in another order.

    Args:
        spacing: of the scan in mm; empty when nobody knows it.
        modalities: the card's, with ``spacing`` (``lowest`` and ``highest`` by axis).
        names: of those that the scan can be; all when empty.
    """
    found = [abs(float(s)) for s in spacing]
    spans = [_span(modalities.get(name, {}).get("spacing")) for name in names or tuple(modalities)]
    known = [span for span in spans if span is not None]
    if not found or not known or len(known) < len(spans) or not all(map(math.isfinite, found)):
        return None
    low, high = min(k[0] for k in known), max(k[1] for k in known)
    if min(found) >= low / _FACTOR and max(found) <= high * _FACTOR:
        return None
    told = " x ".join(f"{s:g}" for s in found)
    return f"spacing {told} mm: that of the scans that the model learned from lies between {low:g} and {high:g} mm"


def _span(stored: Any) -> tuple[float, float] | None:
    """The smallest and the largest of all axes; None when a card does not say."""
    try:
        low, high = min(map(float, stored["lowest"])), max(map(float, stored["highest"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (low, high) if 0 < low <= high < math.inf else None
