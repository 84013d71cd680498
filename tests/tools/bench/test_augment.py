"""Augmentation within samples and batched: the same moves, and figures of both."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import ConfigError
from tools.bench.augment import augment, drawn, turned
from tools.bench.command import bench


def matrix(angle: float = 0.0, flip: int | None = None) -> torch.Tensor:
    found = torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])
    if flip is not None:
        found[flip] *= -1
    return found


def test_a_batch_is_moved_as_its_slices_would_be() -> None:
    image, label = torch.rand(4, 1, 8, 8), torch.randint(0, 5, (4, 1, 8, 8), dtype=torch.uint8)
    moves = torch.stack([matrix(), matrix(math.pi / 2), matrix(flip=0), matrix(flip=1)])
    for given, found in zip((image, label), turned(image, label, moves), strict=True):
        wanted = [given[0], torch.rot90(given[1], 1, (1, 2)), given[2].flip(2), given[3].flip(1)]
        torch.testing.assert_close(found, torch.stack(wanted), atol=1e-5, rtol=0)


def test_moves_are_drawn_as_often_as_the_bundle_draws_them() -> None:
    random = np.random.default_rng(0)
    linear = drawn(4000, 0.5, 0.5, random)[:, :, :2]
    mirrored = torch.linalg.det(linear) < 0
    still = (linear - torch.eye(2)).abs().amax((1, 2)) < 1e-6
    assert abs(mirrored.float().mean() - 0.5) < 0.03 and abs(still.float().mean() - 0.25) < 0.03
    angles = torch.atan2(linear[:, 1, 0], linear[:, 0, 0])[~mirrored]
    assert angles.abs().max() <= 0.35, "what is not mirrored is turned by 20 degrees at most"
    assert not drawn(9, 0.0, 0.0, random)[:, :, 2].any()


def test_both_ways_are_measured(tmp_path: Path) -> None:
    text = augment(size=32, batch=3, repeats=1, out=str(tmp_path))
    found = json.loads((tmp_path / "bench_augment.json").read_text())
    assert found["batch"] == 3 and found["within_ms"] > 0 and found["batched_ms"] > 0
    assert "3 slices of 32^2" in text and f"{found['within_ms']:.2f} ms a slice within samples" in text


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to measure"):
        bench("augment", repeats=0)
