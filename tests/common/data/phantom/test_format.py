"""A phantom of one format is the same everywhere and always: who compares with a figure of last year has its data.

What another release draws otherwise raises ``FORMAT`` (older phantoms are then written again) and gets its line here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from common.data.phantom.flat import FLAT, picture
from common.data.phantom.preview import COLOURS, _overlay, _slice
from common.data.phantom.tasks import FORMAT, TASKS, scan

KNOWN = {
    3: {
        "3d": "e6aac2231e477cab",
        "general": "376acab9a061dfea",
        "2d": "eec854838634a046",
        "larger": "537b7d425ef29598",
    }
}


def held(path: Path) -> bytes:
    """What a file says; how it is compressed may differ between machines."""
    if path.suffix == ".gz":
        image = nib.load(path)
        array = np.asarray(image.dataobj)
        return np.round(image.affine, 3).tobytes() + str(array.dtype).encode() + array.tobytes()
    return np.asarray(Image.open(path)).tobytes() if path.suffix == ".png" else path.read_bytes()


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".gz", ".png") or p.name == "dataset.json"):
        if ".prepared" not in path.parts:
            found.update(path.relative_to(folder).as_posix().encode() + held(path))
    return found.hexdigest()[:16]


def test_the_files_of_one_format_never_change(
    phantom_dir: Path, phantom_general_dir: Path, phantom_2d_dir: Path
) -> None:
    larger = hashlib.sha256()
    for one in (scan(TASKS[0], index=3, size="small"), scan(TASKS[2], index=1, size="small", seed=4)):
        larger.update(one.image.tobytes() + one.label.tobytes())
    larger.update(picture(FLAT[2], subject=1, index=2)[0].tobytes())
    found = {"3d": digest(phantom_dir), "general": digest(phantom_general_dir), "2d": digest(phantom_2d_dir)}
    assert {**found, "larger": larger.hexdigest()[:16]} == KNOWN[FORMAT], "the phantom changed: raise FORMAT"


def test_the_preview_shows_the_slice_with_most_structures_right_side_on_the_left(tmp_path: Path) -> None:
    image, label = np.full((4, 6, 3), -1000, np.int16), np.zeros((4, 6, 3), np.uint8)
    image[3, 5, 1], image[0, 0, 1], image[1, 0, 1] = 280, 60, 400  # white, the middle of the window, beyond it
    label[3, 5, 1], label[3, 4, 1], label[:, :, 2] = 1, 2, 1  # more voxels, fewer structures
    for name, array in (("image", image), ("label", label)):
        nib.save(nib.Nifti1Image(array, np.diag([2.0, 3.0, 4.0, 1.0])), tmp_path / f"{name}.nii.gz")
    picture_, labels, aspect = _slice(tmp_path / "image.nii.gz", tmp_path / "label.nii.gz")
    assert picture_.shape == labels.shape == (6, 4) and aspect == pytest.approx(1.5)
    assert picture_[0, 0] == 1 and labels[0, :2].tolist() == [1, 0] and labels[1, 0] == 2
    assert picture_[5, 3] == pytest.approx(0.5) and picture_[5, 2] == 1 and picture_[2, 2] == 0
    nib.save(nib.Nifti1Image(np.arange(72, dtype=np.int16).reshape(4, 6, 3), np.eye(4)), tmp_path / "image.nii.gz")
    grey = _slice(tmp_path / "image.nii.gz", tmp_path / "label.nii.gz")[0]
    low, high = np.percentile(np.arange(72), (0.5, 99))
    assert grey[0, 3] == pytest.approx((16 - low) / (high - low)), "no CT: a window by its own values"
    Image.fromarray(np.array([[0, 51]], np.uint8)).save(tmp_path / "image.png")
    Image.fromarray(np.array([[0, 2]], np.uint8)).save(tmp_path / "label.png")
    flat = _slice(tmp_path / "image.png", tmp_path / "label.png")
    assert flat[0].tolist() == [[0, 0.2]] and flat[1].tolist() == [[0, 2]] and flat[2] == 1


def test_the_preview_mixes_half_of_a_structures_colour() -> None:
    colours = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS]
    label = np.array([[0, 1, 10, 11]])
    grey = _overlay(np.full((1, 4), 0.5), label)
    assert grey[0, 0].tolist() == [0.5] * 3
    assert grey[0, 1:] == pytest.approx(np.array([colours[0], colours[9], colours[0]]) / 2 + 0.25)
    colour = np.array([[[0.2, 0.4, 0.6], [1.0, 0.0, 0.0], [0, 0, 0], [0, 0, 0]]])
    assert _overlay(colour, label)[0, :2] == pytest.approx(
        np.array([[0.2, 0.4, 0.6], np.array([1, 0, 0]) / 2 + np.array(colours[0]) / 2])
    )
