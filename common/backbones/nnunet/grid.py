"""Where the voxels of nnU-Net's preprocessed arrays lie: in its axis order, cropped and resampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["array_axcodes", "grid_affine"]


def grid_affine(
    scan: NDArray[np.float64], transpose: Sequence[int], properties: Mapping[str, Any], shape: Sequence[int]
) -> NDArray[np.float64]:
    """Index of the preprocessed array to world: scaling and crop, back through nnU-Net's transpose, z y x to x y z.

    nnU-Net resamples between the outer edges of voxels: ``old + 0.5 = (new + 0.5) * n_old / n_new``.

    Args:
        scan: ``[4, 4]`` of the scan ``[C, X, Y, Z]`` that was preprocessed, voxels to mm.
        transpose: ``transpose_forward`` of the plans.
        properties: of nnU-Net's preprocessor.
        shape: of the preprocessed array, without channels.

    Returns:
        ``[4, 4]`` voxels of the preprocessed array to mm.
    """
    cropped = properties["shape_after_cropping_and_before_resampling"]
    low = [bounds[0] for bounds in properties["bbox_used_for_cropping"]]
    index = np.zeros((4, 4))
    index[3, 3] = 1
    for i, axis in enumerate(transpose):
        ratio = cropped[i] / shape[i]
        index[2 - axis, i] = ratio
        index[2 - axis, 3] = 0.5 * ratio - 0.5 + low[i]
    return np.asarray(scan @ index)


def array_axcodes(orientation: str | None, transpose: Sequence[int]) -> str | None:
    """Axis codes of the preprocessed array's own axes, None where the scans' are not known.

    Args:
        orientation: axis codes of the scan that is preprocessed, along x, y, z.
        transpose: ``transpose_forward`` of the plans.
    """
    return None if orientation is None else "".join(orientation[2 - axis] for axis in transpose)
