"""Experts of every kind that nnU-Net's own trainer made are heard as nnU-Net's own predictor speaks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from common.backbones.nnunet.calls import quiet
from common.experts.answers.agreement import LARGE, agreement, student_grid
from common.experts.answers.at_home import HomeNNUNet
from common.experts.answers.record import decide
from common.experts.describe import describe_expert
from common.experts.training_files import orientation_of
from common.geometry import Grid
from tests.common.experts.answers.trained import KINDS, phantom, save, train, turned


def nnunet(folder: Path, files: list[Path]) -> NDArray[Any]:
    """nnU-Net's label map ``[X, Y, Z]`` of files on disk, read by its own reader."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    with quiet():
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), ("all",))
        found = predictor.predict_single_npy_array(*SimpleITKIO().read_images([str(f) for f in files]))
    return np.asarray(found).transpose(2, 1, 0)


def dice(a: Any, b: Any) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def check(root: Path, name: str, iterations: int, finer: float = 1.0) -> None:
    """The answer to a scan in another orientation, against nnU-Net's of the file that it was trained to read.

    Args:
        root: to work in.
        name: of the kind.
        iterations: of training.
        finer: voxel size of the scan over that of the training files.
    """
    kind = KINDS[name]
    folder, raw = train(root, kind, iterations)
    spec = describe_expert(folder, name="e", task="t", fold="all", orientation=orientation_of(raw))
    assert spec.orientation == kind.stored
    given, _ = phantom(7, replace(kind, spacing=tuple(finer * s for s in kind.spacing)))
    as_trained = turned(given, kind.stored)
    files = [root / f"scan_{i:04d}.nii.gz" for i in range(kind.channels)]
    save(as_trained, files)
    wanted = nnunet(folder, files)
    assert min((wanted == k).sum() for k in (1, 2)) > LARGE, "it has learned its structures"
    home = HomeNNUNet(spec)
    found = decide(home.answer(turned(given, "RAS")).on(Grid.of(as_trained))).numpy()
    assert dice(found > 0, wanted > 0) >= 0.995
    for k in (1, 2):
        assert dice(found == k, wanted == k) >= 0.98
    assert spec.spacing is not None
    on_students = agreement(home, turned(given, "LPS"), student_grid(given, [1.3 * s for s in spec.spacing]))
    assert not on_students.below, on_students
    assert on_students.grid > 0.8


def test_slices(tmp_path: Path) -> None:
    """The cheapest kind; the others train in minutes on two cores."""
    check(tmp_path, "2d", 60, finer=0.85)


@pytest.mark.slow
@pytest.mark.selected
def test_volumes_with_axes_in_another_order(tmp_path: Path) -> None:
    """Of the kinds in three dimensions the one in which most can go wrong."""
    check(tmp_path, "transposed", 60, finer=0.85)


@pytest.mark.slow
@pytest.mark.parametrize("name", [k for k in KINDS if k not in ("2d", "transposed")])
def test_every_kind(tmp_path: Path, name: str) -> None:
    check(tmp_path, name, 60, finer=0.85)
