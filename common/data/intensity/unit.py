"""Intensities between 0 and 1, by modality, as networks that began with photographs want them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from numpy.typing import NDArray

from ...errors import ConfigError, DataError
from ..datasets.datalist import modalities
from .modality import ByModalityd, intensities

__all__ = ["UnitIntensityd", "picture_schemes"]

_LOW, _HIGH = 0.5, 99.5  # percentiles, nnU-Net's for CT
_WHITE = 255


def picture_schemes(dataset_dir: str | Path | Sequence[str | Path], intensity: str = "eight_bit") -> dict[str, Any]:
    """How the pictures of each modality of a collection are brought to 0..1.

    Args:
        dataset_dir: anything that ``read_collection`` reads.
        intensity: ``eight_bit``: 0 and 255 become 0 and 1, whatever the modality; ``percentiles``: as
            :class:`UnitIntensityd` does by the modality's name.

    Raises:
        ConfigError: for another way.
    """
    if intensity == "percentiles":
        return intensities(dataset_dir)
    if intensity != "eight_bit":
        raise ConfigError("unknown way", where="intensity", got=intensity, expected="eight_bit or percentiles")
    return {name: {"scheme": "RGBTo01Normalization"} for name in modalities(dataset_dir)}


class UnitIntensityd(ByModalityd):
    """Map each case to 0..1 within the bounds of its modality: ``y = (clip(x, a, b) - a) / (b - a)``.

    CT: a and b are the percentiles that its scheme has, the same for all cases. RGB: 0 and 255. ``NoNormalization``:
    0 and 1. Everything else: the 0.5 and 99.5 percentile of each channel's voxels that are not 0, so that the amount
    of air does not matter. A constant channel becomes 0.

    Args:
        keys: images ``[C, X, Y, Z]`` with native intensities.
        schemes: from :func:`~common.data.intensity.modality.intensities`.
        default: modality of cases without one; None refuses them.

    Raises:
        ConfigError: for a default without a scheme.
        DataError: for a modality without a scheme, a voxel that is NaN or infinite, or RGB above 255.
    """

    def __init__(
        self,
        keys: KeysCollection,
        schemes: Mapping[str, Mapping[str, Any]],
        default: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, schemes, _to_unit, default, allow_missing_keys)


def _to_unit(channel: NDArray[np.float32], scheme: Mapping[str, Any]) -> NDArray[np.float32]:
    return _between(channel, *_bounds(channel, scheme))


def _bounds(channel: NDArray[np.float32], scheme: Mapping[str, Any]) -> tuple[float, float]:
    name = scheme["scheme"]
    if name == "CTNormalization":
        return float(scheme["percentile_00_5"]), float(scheme["percentile_99_5"])
    if name == "RGBTo01Normalization" and channel.max() > _WHITE:
        got = f"values up to {channel.max():g}"
        hint = "export it with 8 bits per channel, or train with --intensity percentiles"
        raise DataError("the picture is brighter than 8 bits allow", got=got, expected=f"at most {_WHITE}", hint=hint)
    if name in ("RGBTo01Normalization", "NoNormalization"):
        return 0.0, float(_WHITE) if name.startswith("RGB") else 1.0
    values = channel[channel != 0]
    low, high = np.percentile(values if values.size else channel, (_LOW, _HIGH))
    return float(low), float(high)


def _between(channel: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    if not high > low:
        return np.zeros_like(channel)
    return ((channel.clip(low, high) - low) / (high - low)).clip(0, 1).astype(np.float32)
