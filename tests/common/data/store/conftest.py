"""A chain that reads tiny arrays and counts how often, and cases for it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Transform


class Reading(Transform):
    """Reads ``image`` and ``label``; ``log`` gets a line for each case that is read, from any process."""

    def __init__(self, log: Path, scale: float = 1.0, die: str | None = None, seconds: float = 0.0) -> None:
        self.log, self.scale, self.die, self.seconds = log, scale, die, seconds

    def chain_identity(self):
        return {"scale": self.scale}

    def __call__(self, data):
        with self.log.open("a") as file:
            file.write(f"{data['case']} {os.getpid()}\n")
        time.sleep(self.seconds)
        if self.die == data["case"]:
            os.kill(os.getpid(), 9)
        image = torch.from_numpy(np.load(data["image"])) * self.scale
        label = (image > 0.5).float()
        return {**data, "image": MetaTensor(image, meta={"filename_or_obj": data["image"]}), "label": label}

    def cases(self) -> list[str]:
        return [line.split()[0] for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def reading(tmp_path):
    return Reading(tmp_path / "log")


@pytest.fixture
def items(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rng, found = np.random.default_rng(0), []
    for number in range(3):
        path = folder / f"{number}.npy"
        np.save(path, rng.uniform(0, 1, (1, 20, 18, 22 + number)).astype(np.float32))
        found.append({"image": str(path), "case": f"c{number}", "task": "liver"})
    return found
