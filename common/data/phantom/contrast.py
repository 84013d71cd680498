"""How the phantom's tissues look: CT in Hounsfield units, MR with bias field and Rician noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ...errors import ConfigError
from .body import TISSUES
from .shapes import Points, Waves

__all__ = ["CONTRASTS", "Contrast", "acquire"]


@dataclass(frozen=True)
class Contrast:
    """One kind of scan.

    Args:
        magnitude: True for MR (non-negative, Rician noise, arbitrary units), False for CT (HU).
        values: mean intensity of each tissue.
        spread: relative (MR) or absolute in HU (CT) deviation of a tissue's mean between subjects.
        texture: deviation inside a tissue, same units as ``values``, correlated over a few voxels.
        noise: deviation of the noise, same units.
        bias: deviation of the logarithm of the receive field (0 = none).
    """

    magnitude: bool
    values: dict[str, float]
    spread: float
    texture: float
    noise: float
    bias: float = 0.0


def _values(text: str) -> dict[str, float]:
    """``"liver 105 spleen 118 ..."`` as a mapping, checked to cover every tissue."""
    words = text.split()
    values = {name: float(number) for name, number in zip(words[::2], words[1::2], strict=True)}
    if set(values) != set(TISSUES):
        raise ConfigError("a contrast must give every tissue a value", got=set(values) ^ set(TISSUES))
    return values


CONTRASTS = {
    "CT": Contrast(
        magnitude=False,
        values=_values(
            "air -1000 fat -100 muscle 58 bone 480 marrow 190 disc 85 fluid 12 cord 38 lung -800 liver 106 spleen 122 "
            "cortex 168 medulla 138 artery 158 vein 132 vessel 142 wall 62 lumen 18 gas -820 pancreas 88 bile 10 "
            "bowel 118 node 96 cyst 8 tumour 36 blood 165 myocardium 102 scar 86"
        ),
        spread=12.0,
        texture=11.0,
        noise=25.0,
    ),
    "T2": Contrast(
        magnitude=True,
        values=_values(
            "air 0 fat 170 muscle 125 bone 25 marrow 160 disc 260 fluid 900 cord 330 lung 30 liver 250 spleen 420 "
            "cortex 520 medulla 610 artery 45 vein 90 vessel 300 wall 210 lumen 640 gas 15 pancreas 300 bile 900 "
            "bowel 440 node 430 cyst 940 tumour 390 blood 80 myocardium 180 scar 260"
        ),
        spread=0.09,
        texture=22.0,
        noise=44.0,
        bias=0.22,
    ),
    "T1": Contrast(
        magnitude=True,
        values=_values(
            "air 0 fat 820 muscle 330 bone 40 marrow 560 disc 300 fluid 110 cord 360 lung 25 liver 470 spleen 330 "
            "cortex 400 medulla 300 artery 520 vein 480 vessel 440 wall 340 lumen 160 gas 10 pancreas 500 bile 150 "
            "bowel 360 node 320 cyst 120 tumour 310 blood 500 myocardium 350 scar 360"
        ),
        spread=0.08,
        texture=22.0,
        noise=30.0,
        bias=0.22,
    ),
    "LGE": Contrast(
        magnitude=True,
        values=_values(
            "air 0 fat 230 muscle 150 bone 60 marrow 260 disc 260 fluid 150 cord 200 lung 35 liver 270 spleen 330 "
            "cortex 420 medulla 400 artery 470 vein 450 vessel 340 wall 200 lumen 120 gas 10 pancreas 290 bile 130 "
            "bowel 260 node 330 cyst 120 tumour 420 blood 460 myocardium 120 scar 580"
        ),
        spread=0.08,
        texture=24.0,
        noise=40.0,
        bias=0.18,
    ),
}


def acquire(
    tissue: NDArray[np.uint8],
    *,
    points: Points,
    contrast: str,
    rng: np.random.Generator,
    blur: tuple[float, float, float] = (0.55, 0.55, 0.55),
) -> NDArray[np.int16]:
    """The scan of a tissue map: intensities, partial volume, bias field, noise.

    Args:
        tissue: ``[X, Y, Z]`` codes of :data:`~.body.TISSUES`.
        points: ``[3, X*Y*Z]`` positions in mm, for the bias field.
        contrast: a key of :data:`CONTRASTS`.
        rng: source of the scanner's gain, tissue spread, texture and noise.
        blur: point spread in voxels (standard deviation) along each axis.

    Returns:
        ``[X, Y, Z]`` int16: HU for CT, arbitrary non-negative units for MR.

    Raises:
        ConfigError: for an unknown contrast.
    """
    if contrast not in CONTRASTS:
        raise ConfigError("no such contrast", got=contrast, expected=", ".join(CONTRASTS))
    kind = CONTRASTS[contrast]
    means = np.array([kind.values[name] for name in TISSUES], dtype=np.float64)
    spread = rng.normal(size=means.size) * kind.spread
    means = np.where(np.abs(means) < 700, means + spread, means) if not kind.magnitude else means * (1 + spread)
    image = means.astype(np.float32)[tissue]
    grain = gaussian_filter(rng.standard_normal(tissue.shape, dtype=np.float32), 1.2)
    solid = (tissue != TISSUES.index("air")) & (tissue != TISSUES.index("gas"))
    image += grain * np.float32(kind.texture / max(float(grain.std()), 1e-6)) * solid
    image = gaussian_filter(image, blur)
    return _magnitude(image, points, kind, rng) if kind.magnitude else _hounsfield(image, kind, rng)


def _hounsfield(image: NDArray[np.float32], kind: Contrast, rng: np.random.Generator) -> NDArray[np.int16]:
    noise = gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), 0.5)
    image = image + noise * np.float32(kind.noise / max(float(noise.std()), 1e-6))
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16)


def _magnitude(
    image: NDArray[np.float32], points: Points, kind: Contrast, rng: np.random.Generator
) -> NDArray[np.int16]:
    field = Waves.draw(rng, count=4, wavelength=(280.0, 600.0), amplitude=kind.bias)(points).reshape(image.shape)
    real, imaginary = rng.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(kind.noise)
    signal = np.hypot(image * np.exp(field) + real, imaginary)
    gain = np.float32(rng.uniform(0.6, 1.6))
    image16: NDArray[np.int16] = np.clip(np.rint(signal * gain), 0, 32767).astype(np.int16)
    return image16
