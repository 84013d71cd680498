"""An expert's own intensity normalisation, computed from whole-volume statistics instead of the crop's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.intensity.volume import STATISTICS
from ..errors import ExpertError

__all__ = ["SCHEMES", "Normalise", "of_plans"]

MEAN, STD, BOX_MEAN, BOX_STD, BOX_MIN, BOX_MAX = (
    STATISTICS.index(name) for name in ("mean", "std", "box mean", "box std", "box min", "box max")
)  # columns of ``stats``

SCHEMES = ("zscore", "ct", "rescale01", "rgb", "range", "none")
_NNUNET = {
    "ZScoreNormalization": "zscore",
    "CTNormalization": "ct",
    "RescaleTo01Normalization": "rescale01",
    "RGBTo01Normalization": "rgb",
    "NoNormalization": "none",
}
_EPS = 1e-8


@dataclass(frozen=True)
class Normalise:
    """Normalise one image channel: ``y = (clip(x, low, high) - shift) / scale``.

    ``zscore``: shift and scale are mean and standard deviation of the volume's box around what is not zero, as nnU-Net
    takes them, or of its non-zero voxels when ``masked``; ``ct``: fixed bounds, mean and standard
    deviation of the training set's foreground; ``rescale01``: that box's minimum and range; ``rgb``: 0 and 255;
    ``range``: fixed ``low..high`` to ``out_low..out_high``, clipped; ``none``: unchanged.

    Args:
        scheme: one of the above.
        low: lower clip bound in intensity units (``ct``, ``range``).
        high: upper clip bound (``ct``, ``range``).
        mean: training foreground mean (``ct``).
        std: training foreground standard deviation (``ct``).
        out: output bounds (``range``).
        masked: leave zero voxels at zero (``zscore`` within a non-zero mask).
    """

    scheme: str
    low: float = 0.0
    high: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    out: tuple[float, float] = (0.0, 1.0)
    masked: bool = False

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise ExpertError("unknown normalisation", got=self.scheme, expected=", ".join(SCHEMES))

    def __call__(self, raw: Tensor, stats: Tensor) -> Tensor:
        """Normalise one channel.

        Args:
            raw: ``[B, X, Y, Z]`` intensities.
            stats: ``[B, 10]`` of the whole volume, as in :data:`~common.data.intensity.volume.STATISTICS`.
        """
        column = stats.to(raw.dtype)[:, :, None, None, None].unbind(1)
        if self.scheme == "zscore":
            mean, std = (MEAN, STD) if self.masked else (BOX_MEAN, BOX_STD)
            y = (raw - column[mean]) / column[std].clamp_min(_EPS)
            return torch.where(raw == 0, torch.zeros_like(y), y) if self.masked else y
        if self.scheme == "ct":
            return (raw.clamp(self.low, self.high) - self.mean) / max(self.std, _EPS)
        if self.scheme == "rescale01":
            return (raw - column[BOX_MIN]) / (column[BOX_MAX] - column[BOX_MIN]).clamp_min(_EPS)
        if self.scheme == "range":
            unit = (raw.clamp(self.low, self.high) - self.low) / max(self.high - self.low, _EPS)
            return unit * (self.out[1] - self.out[0]) + self.out[0]
        return raw / 255.0 if self.scheme == "rgb" else raw


def of_plans(
    schemes: Sequence[str], use_mask: Sequence[bool], intensities: Mapping[str, Mapping[str, Any]]
) -> tuple[Normalise, ...]:
    """The channels' normalisations as nnU-Net plans name them."""
    result = []
    for channel, (name, mask) in enumerate(zip(schemes, use_mask, strict=True)):
        if name not in _NNUNET:
            raise ExpertError("unknown nnU-Net normalisation", got=name, expected=", ".join(_NNUNET))
        scheme = _NNUNET[name]
        if scheme != "ct":
            result.append(Normalise(scheme, masked=bool(mask)))
            continue
        known = intensities[str(channel)]
        result.append(
            Normalise(
                "ct",
                low=float(known["percentile_00_5"]),
                high=float(known["percentile_99_5"]),
                mean=float(known["mean"]),
                std=float(known["std"]),
            )
        )
    return tuple(result)
