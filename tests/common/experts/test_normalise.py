"""Each scheme is its formula, of the statistics that belong to it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from common.data.intensity.volume import STATISTICS
from common.errors import ExpertError
from common.experts.normalise import Normalise, of_plans

RAW = torch.tensor([[-50.0, 0.0, 10.0, 300.0], [1.0, 2.0, 0.0, 4.0]])[:, :, None, None]
TOLD = {"mean": 7.0, "std": 2.0, "box mean": 3.0, "box std": 4.0, "box min": -10.0, "box max": 90.0}
STATS = torch.tensor([[TOLD.get(name, 1e6) for name in STATISTICS]] * 2)
STATS[1] *= 2  # each sample has its own


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        ({"scheme": "zscore"}, [-53 / 4, -3 / 4, 7 / 4, 297 / 4], [-5 / 8, -4 / 8, -6 / 8, -2 / 8]),
        ({"scheme": "zscore", "masked": True}, [-57 / 2, 0, 3 / 2, 293 / 2], [-13 / 4, -12 / 4, 0, -10 / 4]),
        (
            {"scheme": "ct", "low": -20, "high": 200, "mean": 5, "std": 10},
            [-2.5, -0.5, 0.5, 19.5],
            [-0.4, -0.3, -0.5, -0.1],
        ),
        ({"scheme": "rescale01"}, [-0.4, 0.1, 0.2, 3.1], [21 / 200, 22 / 200, 20 / 200, 24 / 200]),
        ({"scheme": "rgb"}, [-50 / 255, 0, 10 / 255, 300 / 255], [1 / 255, 2 / 255, 0, 4 / 255]),
        ({"scheme": "range", "low": -10, "high": 90, "out": (-1, 3)}, [-1, -0.6, -0.2, 3], [-0.56, -0.52, -0.6, -0.44]),
        ({"scheme": "range"}, [0, 0, 1, 1], [1, 1, 0, 1]),
        ({"scheme": "none"}, [-50, 0, 10, 300], [1, 2, 0, 4]),
        ({"scheme": "ct"}, [0, 0, 1, 1], [1, 1, 0, 1]),
    ],
)
def test_a_scheme_is_its_formula(options: dict[str, Any], first: list[float], second: list[float]) -> None:
    found = Normalise(**options)(RAW, STATS)
    assert found.shape == RAW.shape
    torch.testing.assert_close(found[..., 0, 0], torch.tensor([first, second], dtype=torch.float32))


def test_what_has_no_spread_is_finite() -> None:
    flat = torch.zeros(1, len(STATISTICS))
    for options in ({"scheme": "zscore"}, {"scheme": "rescale01"}, {"scheme": "ct", "std": 0.0},
                    {"scheme": "range", "low": 1.0, "high": 1.0}):  # fmt: skip
        assert Normalise(**options)(torch.zeros(1, 2, 2, 2), flat).abs().max() <= 0


def test_plans_name_schemes_and_their_statistics() -> None:
    known = {"percentile_00_5": -9, "percentile_99_5": 8, "mean": 1, "std": 2}
    names = ["CTNormalization", "ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization",
             "RGBTo01Normalization"]  # fmt: skip
    found = of_plans(names, [True, True, False, False, False], {"0": known, "1": {}})
    assert found[0] == Normalise("ct", low=-9.0, high=8.0, mean=1.0, std=2.0)
    assert found[1] == Normalise("zscore", masked=True)
    assert found[2:] == (Normalise("none"), Normalise("rescale01"), Normalise("rgb"))
    with pytest.raises(ExpertError, match="unknown nnU-Net normalisation"):
        of_plans(["Other"], [False], {})
    with pytest.raises(ExpertError, match="unknown normalisation"):
        Normalise("other")
