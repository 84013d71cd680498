"""nnU-Net's own predictor is the judge: the same classes, whatever way plans, files and axes lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from numpy.typing import NDArray

from common.backbones.nnunet.calls import quiet
from common.errors import ExpertError
from common.experts.answers.at_home import HomeNNUNet
from common.experts.answers.record import decide
from common.geometry import Grid
from tests.common.experts.answers.nnunets import SHAPE, decided, scan, spec_of
from tests.nnunet_folders import write_folder


def judge(folder: Path, given: MetaTensor, orientation: str, mirroring: bool) -> NDArray[Any]:
    """nnU-Net's class of every voxel ``[X, Y, Z]`` of the scan rewritten to the training orientation."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    turned = Orientation(axcodes=orientation, labels=None)(given)
    with quiet():
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=mirroring)
        predictor.initialize_from_trained_model_folder(str(folder), (0,))
        found = predictor.predict_single_npy_array(
            np.ascontiguousarray(turned.numpy().transpose(0, 3, 2, 1)),
            {"spacing": list(reversed(Grid.of(turned).spacing))},
        )
    return np.asarray(found).transpose(2, 1, 0)


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "transposed": {"transpose": (1, 2, 0)},
    "other spacing": {"spacing": (1.3, 0.8, 1.1)},
    "transposed, other spacing": {"transpose": (2, 0, 1), "spacing": (1.3, 0.8, 1.1)},
    "2d": {"spacing": (0.9, 1.2), "strides": ((1, 1), (2, 2), (2, 2))},
    "resenc": {"resenc": True},
    "masked norm": {"masked": True},
    "ct": {"norm": "CTNormalization"},
    "channels": {"channel_names": ("T1", "T2")},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("stored, trained", [("RAS", "RAS"), ("LAS", "RAS"), ("RAS", "PIR"), ("PIR", "LPS")])
def test_the_same_classes_as_nnunet(tmp_path: Path, name: str, stored: str, trained: str) -> None:
    folder = write_folder(tmp_path, **CASES[name])
    channels = len(CASES[name].get("channel_names", ("T1",)))
    given = scan(stored, channels=channels)
    decided(folder, given, trained)
    wanted = judge(folder, given, trained, True)
    turned = Orientation(axcodes=trained, labels=None)(given)
    grid = Grid(turned.shape[1:], turned.affine.numpy())
    answer = HomeNNUNet(spec_of(folder, trained)).answer(given)
    found = decide(answer.on(grid)).numpy()
    assert (wanted > 0).mean() > 0.05 and len(np.unique(wanted)) > 1
    assert (found == wanted).mean() > 0.99
    back = decide(answer.on(Grid.of(given))).numpy()
    again = Orientation(axcodes=stored, labels=None)(MetaTensor(found[None], affine=turned.affine))[0].numpy()
    assert (back == again).mean() > 0.999  # the same places in the patient, whatever the axes of the grid


def test_folds_answer_together(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, seed=0)
    other = write_folder(tmp_path / "b", seed=1)
    (other / "fold_0").rename(folder / "fold_1")
    spec, given = spec_of(folder), scan()
    both = HomeNNUNet(spec, folds=(0, 1)).answer(given).logits
    single = [HomeNNUNet(replace(spec, fold=f)).answer(given).logits for f in (0, 1)]
    assert torch.allclose(both, (single[0] + single[1]) / 2, atol=2e-3)  # nnU-Net keeps logits in half precision
    assert not torch.allclose(single[0], single[1], atol=1e-2)


def test_mirroring_is_an_option(tmp_path: Path) -> None:
    folder, given = write_folder(tmp_path), scan()
    with_, without = (HomeNNUNet(spec_of(folder), mirroring=m).answer(given) for m in (True, False))
    assert not torch.allclose(with_.logits, without.logits, atol=1e-3)
    decided(folder, given, "RAS")
    without = HomeNNUNet(spec_of(folder), mirroring=False).answer(given)
    wanted = judge(folder, given, "RAS", False)
    assert len(np.unique(wanted)) > 1
    assert (decide(without.on(Grid.of(given))).numpy() == wanted).mean() > 0.99


def test_outside_of_the_scan_is_background(tmp_path: Path) -> None:
    given = scan()
    larger = Grid(tuple(n + 8 for n in SHAPE), given.affine.numpy() @ np.array(
        [[1, 0, 0, -4], [0, 1, 0, -4], [0, 0, 1, -4], [0, 0, 0, 1]]))  # fmt: skip
    answer = HomeNNUNet(spec_of(decided(write_folder(tmp_path), given, "RAS"))).answer(given)
    found = answer.on(larger)
    assert int(decide(found).max()) > 0
    assert torch.equal(found[:, 4:-4, 4:-4, 4:-4], answer.on(Grid.of(given)))
    assert int(found[0, :4].min()) == 255 and int(decide(found)[-4:].max()) == 0


def test_refusals(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    with pytest.raises(ExpertError, match="how this expert's training scans lay"):
        HomeNNUNet(replace(spec_of(folder), orientation=None))
    with pytest.raises(ExpertError, match="other channels"):
        HomeNNUNet(spec_of(folder)).answer(scan(channels=2))
    with pytest.raises(ExpertError, match="share of the patch"):
        HomeNNUNet(spec_of(folder), tile_step=0)


def test_a_home_is_asked_as_its_program_asks(tmp_path: Path) -> None:
    """Canonical, cubic splines, whole numbers, another step: nnU-Net on what the program writes, by hand."""
    from scipy.ndimage import zoom

    profile = {"program": "p", "version": "1", "orientation": "RAS", "spacing": [1.4, 1.4, 1.4], "order": 3,
               "whole_numbers": True, "tile_step": 0.8, "mirroring": False}  # fmt: skip
    folder, given = write_folder(tmp_path, spacing=(1.4, 1.4, 1.4)), scan("LPS", spacing=(1.0, 1.2, 1.0))
    spec = replace(spec_of(folder, "RAS"), profile=profile)
    home = HomeNNUNet(spec)
    assert (home.tile_step, home.mirroring) == (0.8, False)
    assert HomeNNUNet(spec, mirroring=True, tile_step=0.3).tile_step == 0.3
    plain = HomeNNUNet(spec_of(folder))
    assert (plain.tile_step, plain.mirroring) == (0.5, True)
    canonical = Orientation(axcodes="RAS", labels=None)(given)
    factors = [s / 1.4 for s in Grid.of(canonical).spacing]
    written = np.trunc(zoom(canonical[0].numpy().astype(np.float64), factors, order=3))
    affine = np.diag([1.4, 1.4, 1.4, 1.0])
    same = HomeNNUNet(spec_of(folder), mirroring=False, tile_step=0.8).answer(
        MetaTensor(torch.from_numpy(written[None]).float(), affine=torch.from_numpy(affine))
    )
    found = home.answer(given)
    assert torch.allclose(found.logits, same.logits, atol=1e-3)
    last = found.affine @ np.array([*(n - 1 for n in found.logits.shape[1:]), 1])
    first = Grid.of(canonical).corners()
    assert np.linalg.norm(first - last[:3], axis=1).min() < 5  # a crop to non-zero away from the scan's own corner


@pytest.mark.parametrize("way", ["answer", "judge", "segmented"])
def test_what_nnunet_cannot_do_is_said_of_the_expert_and_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    folder, given = write_folder(tmp_path), scan("RAS")
    given.meta["filename_or_obj"] = "some/scan7.nii.gz"
    home = HomeNNUNet(spec_of(folder))

    def ends(*_: Any, **__: Any) -> None:
        raise AssertionError("in the middle")

    with monkeypatch.context() as patch:
        patch.setattr("nnunetv2.preprocessing.preprocessors.default_preprocessor.crop_to_nonzero", ends)
        with pytest.raises(ExpertError, match="nnU-Net cannot work") as caught:
            getattr(home, way)(given)
    assert str(folder) in str(caught.value.where) and "scan7" in str(caught.value.where)
    monkeypatch.setattr("common.backbones.nnunet.calls.most_voxels", lambda _: 100)
    with pytest.raises(ExpertError, match="cannot be resampled") as caught:
        getattr(home, way)(given)
    assert str(folder) in str(caught.value.where) and "scan7" in str(caught.value.where)
