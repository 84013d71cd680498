"""What the viewer is given: coarse enough, grey between its percentiles, pictures as they are."""

from __future__ import annotations

import base64
import gzip
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from tools.report import volumes
from tools.report.volumes import coarsened, encoded, viewer_cases


def volume(shape: tuple[int, ...], spacing: tuple[float, float, float], values: Any = None) -> MetaTensor:
    voxels = torch.zeros(1, *shape) if values is None else torch.as_tensor(values, dtype=torch.float32)
    return MetaTensor(voxels, affine=torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64)))


def held(text: str) -> Any:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def test_fine_axes_become_coarser_until_it_fits() -> None:
    one = volume((10, 10, 10), (1.0, 1.0, 4.0))
    assert coarsened(one, 1000) == [1.0, 1.0, 4.0]
    assert coarsened(one, 500) == pytest.approx([2**0.5, 2**0.5, 4.0], rel=1e-6)
    assert coarsened(one, 10) == pytest.approx([(4 * 100) ** (1 / 3)] * 3, rel=1e-6)
    assert coarsened(one) == [1.0, 1.0, 4.0]
    assert coarsened(volume((107, 107, 105), (1, 1, 1)))[0] > 1 == coarsened(volume((107, 107, 104), (1, 1, 1)))[0]


def test_grey_goes_from_the_low_to_the_high_percentile() -> None:
    ramp = np.arange(1000.0).reshape(1, 10, 10, 10)
    image = held(encoded(volume((10, 10, 10), (1, 1, 1), ramp), [1, 1, 1], "image"))
    grey = np.asarray(image.dataobj).ravel()
    low, high = np.percentile(ramp, [0.5, 99.5])
    assert image.get_data_dtype() == np.uint8
    assert np.array_equal(grey, np.clip((np.arange(1000) - low) / (high - low) * 255, 0, 255).astype(np.uint8))
    assert np.asarray(held(encoded(volume((4, 4, 4), (1, 1, 1)), [1, 1, 1], "image")).dataobj).max() == 0


def test_labels_keep_their_numbers_and_lie_where_they_lay() -> None:
    label = np.zeros((1, 4, 6, 5))
    label[0, 1, 2, 3] = 7
    turned = MetaTensor(torch.as_tensor(label), affine=torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64)))
    shown = held(encoded(turned, [1, 1, 1], "label"))
    array = np.asarray(shown.dataobj)
    assert array.max() == 7 and (array == 7).sum() == 1
    place = nibabel.affines.apply_affine(shown.affine, np.argwhere(array == 7)[0])
    assert place.tolist() == [-1, 2, 3]


def test_a_picture_is_grey_or_has_its_colours_and_runs_down() -> None:
    ramp = np.arange(200.0).reshape(1, 10, 20)
    grey = held(encoded(volume((10, 20), (1, 1, 1), ramp), None, "image"))
    assert grey.shape == (10, 20, 1) and np.diag(grey.affine).tolist() == [1, -1, 1, 1]
    assert np.asarray(grey.dataobj)[0, 0, 0] == 0 and np.asarray(grey.dataobj)[9, 19, 0] == 255
    colours = np.stack([ramp[0], ramp[0][::-1], np.full((10, 20), 100.0)])
    shown = held(encoded(volume((10, 20), (1, 1, 1), colours), None, "image"))
    pixels = np.asarray(shown.dataobj)
    assert pixels.dtype.names == ("R", "G", "B") and pixels.shape == (10, 20, 1)
    assert pixels["R"][0, 0, 0] == 0 and pixels["R"][9, 19, 0] == 255 and 120 < pixels["B"][3, 3, 0] < 135
    label = held(encoded(volume((10, 20), (1, 1, 1), ramp % 3), None, "label"))
    assert np.array_equal(np.asarray(label.dataobj)[..., 0], ramp[0] % 3)


def test_the_worst_and_the_best_case_of_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        ("ct", "a", "liver"): 0.5,
        ("ct", "a", "spleen"): 0.9,
        ("ct", "b", "liver"): 0.2,
        ("ct", "c", "liver"): 0.8,
        ("mr", "d", "liver"): 0.4,
        ("ct", "e", "liver"): float("nan"),
    }
    other = {("ct", "c", "liver"): 0.3}  # of two members the mean
    monkeypatch.setattr(volumes, "annotated_values", lambda *given: {"one": values, "two": other})
    found = viewer_cases(SimpleNamespace())  # type: ignore[arg-type]
    assert found == [(("ct", "b"), "worst"), (("ct", "a"), "best"), (("mr", "d"), "worst")]
    assert viewer_cases(SimpleNamespace(), most=1) == found[:1]  # type: ignore[arg-type]
