"""Intensities between 0 and 1, by modality, as networks that began with photographs want them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .dataset_json import case_name

__all__ = ["UnitIntensityd"]

_LOW, _HIGH = 0.5, 99.5  # percentiles, nnU-Net's for CT


class UnitIntensityd(MapTransform):
    """Map each case to 0..1 within the bounds of its modality: ``y = (clip(x, a, b) - a) / (b - a)``.

    CT: a and b are the percentiles that its scheme has, the same for all cases. RGB: 0 and 255. ``NoNormalization``:
    0 and 1. Everything else: the 0.5 and 99.5 percentile of each channel's voxels that are not 0, so that the amount
    of air does not matter. A constant channel becomes 0.

    Args:
        keys: images ``[C, X, Y, Z]`` with native intensities.
        schemes: from :func:`~common.data.modality_intensity.intensities`.
        default: modality of cases without one; None refuses them.

    Raises:
        ConfigError: for a default without a scheme.
        DataError: for a modality without a scheme, or a voxel that is NaN or infinite.
    """

    def __init__(
        self,
        keys: KeysCollection,
        schemes: Mapping[str, Mapping[str, Any]],
        default: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.schemes, self.default = {k: dict(v) for k, v in schemes.items()}, default
        if default is not None and default not in self.schemes:
            raise ConfigError("there is no normalisation for this modality", where="modality", got=default,
                              expected=", ".join(self.schemes) or "a trained model's card")  # fmt: skip

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with float32 images between 0 and 1."""
        result = dict(data)
        modality = data.get("modality") or self.default
        if modality not in self.schemes:
            raise DataError("there is no normalisation for the case's modality", where=f"case {case_name(data)}",
                            got=modality, expected=", ".join(self.schemes))  # fmt: skip
        result["modality"] = modality
        for key in self.key_iterator(result):
            image = result[key]
            plain = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
            array: NDArray[np.float32] = plain.cpu().numpy().astype(np.float32)
            if not np.isfinite(array).all():
                raise DataError("the image holds NaN or infinite voxels", where=f"case {case_name(data)}",
                                expected="finite intensities")  # fmt: skip
            mapped = np.stack([_between(channel, *_bounds(channel, self.schemes[modality])) for channel in array])
            normal = torch.from_numpy(mapped).to(plain.device)
            result[key] = MetaTensor(normal).copy_meta_from(image) if isinstance(image, MetaTensor) else normal
        return result


def _bounds(channel: NDArray[np.float32], scheme: Mapping[str, Any]) -> tuple[float, float]:
    name = scheme["scheme"]
    if name == "CTNormalization":
        return float(scheme["percentile_00_5"]), float(scheme["percentile_99_5"])
    if name in ("RGBTo01Normalization", "NoNormalization"):
        return 0.0, 255.0 if name.startswith("RGB") else 1.0
    values = channel[channel != 0]
    low, high = np.percentile(values if values.size else channel, (_LOW, _HIGH))
    return float(low), float(high)


def _between(channel: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    if not high > low:
        return np.zeros_like(channel)
    return ((channel.clip(low, high) - low) / (high - low)).clip(0, 1).astype(np.float32)
