"""What a user is told of a scan's voxels before a model's answer about them is trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..contract import Contract
from ..intensity_range import Range, range_of
from ..spacing_range import odd_spacing

__all__ = ["remarks"]

_COLOURS = 3


def remarks(
    image: ArrayLike,
    contract: Contract,
    modalities: Sequence[str] = (),
    *,
    flat: bool = False,
    spacing: Sequence[float] = (),
    ranges: Sequence[Range | None] | None = None,
) -> list[str]:
    """Compare a scan's voxels with those that a model learned from.

    Args:
        image: ``[C, X, Y, Z]``, of a picture ``[C, X, Y]``, with native intensities, in the model's order.
        contract: what the model's card says.
        modalities: the model's names of what the scan can be; all when empty.
        flat: whether it is a picture.
        spacing: of a volume in mm; empty when nobody knows it.
        ranges: of its channels, where they were looked at before.

    Returns:
        Sentences; none for a scan like those of the training, or where nobody knows.
    """
    voxels = np.asarray(image)
    said = [_grey(voxels, contract)] if flat else [_single(voxels, contract)]
    known = any(m.get("intensities") for m in contract.modalities.values())
    seen = [r for r in (map(range_of, voxels) if ranges is None else ranges) if r is not None]
    if len(seen) == len(voxels) and (known or not flat):  # a CT's picture is in HU only where the card says so
        reason = contract.odd(seen, modalities)
        said.append(f"intensities {'; '.join(map(str, seen))}: {reason}" if reason else "")
    said.append("" if flat else odd_spacing(spacing, contract.modalities, modalities) or "")
    return [sentence for sentence in said if sentence]


def _grey(planes: np.ndarray[tuple[int, ...], np.dtype[np.generic]], contract: Contract) -> str:
    """One colour in the place of three, or planes that are no colours of the model's."""
    wanted = contract.channels
    if len(wanted) == _COLOURS and (len(planes) == 1 or bool((planes == planes[:1]).all())):
        return f"a grey picture in the place of {', '.join(wanted)}"
    told = f"a picture of {len(planes)} channels in the place of {', '.join(wanted)}"
    return told if wanted and len(planes) != len(wanted) else ""


def _single(voxels: np.ndarray[tuple[int, ...], np.dtype[np.generic]], contract: Contract) -> str:
    """A slice alone, for a model of volumes."""
    dims = {m.get("dim", 3) for m in contract.modalities.values()}
    return "a single slice in the place of a volume" if 3 in dims and 1 in voxels.shape[1:] else ""
