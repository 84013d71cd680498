"""Experts that are no nnU-Nets answer on their own grid, whatever way the scan was stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation

from common.errors import ExpertError
from common.experts.answers.record import decide
from common.experts.answers.windows import HomeWindows
from common.geometry import Grid
from common.labels import LabelSpace
from tests.common.experts.answers.easy import expert
from tests.common.experts.answers.nnunets import scan, spec_of
from tests.nnunet_folders import write_folder


def ball(axcodes: str) -> MetaTensor:
    image = scan("RAS", smooth=3)
    x, y, z = torch.meshgrid(*[torch.arange(n).float() for n in image.shape[1:]], indexing="ij")
    inside = (x - 14).square() + (y - 9).square() + (z - 11).square() < 30
    return Orientation(axcodes=axcodes, labels=None)(
        MetaTensor(torch.where(inside, 100.0, 0.0)[None], affine=image.affine)
    )


@pytest.mark.parametrize("stored", ["RAS", "LPI", "PIR"])
@pytest.mark.parametrize("given", [{}, {"orientation": "LPS"}, {"orientation": None}, {"spacing": (0.5, 0.8, 1.5)}])
def test_the_answer_lies_where_the_scan_does(tmp_path: Path, stored: str, given: dict) -> None:
    spec, image = expert(tmp_path, "one", "liver", **given), ball(stored)
    found = decide(HomeWindows(spec).answer(image).on(Grid.of(image)))
    wanted = image[0] > 50
    agreement = 2 * ((found > 0) & wanted).sum() / ((found > 0).sum() + wanted.sum())
    assert float(agreement) > (0.85 if "spacing" in given else 0.999)  # edges are no intensity that it knows
    middles = [torch.as_tensor(m).nonzero().float().mean(0) for m in (found > 0, wanted)]
    assert (middles[0] - middles[1]).abs().max() < 0.15


def test_windows_cover_a_scan_that_is_larger_than_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("common.experts.answers.windows.WINDOW", 12)
    image = ball("RAS")
    found = HomeWindows(expert(tmp_path, "one", "liver")).answer(image)
    assert torch.equal(found.logits.argmax(0) > 0, image[0].as_tensor() > 50)


def test_what_it_does_not_read_or_say_is_refused(tmp_path: Path) -> None:
    spec = expert(tmp_path, "one", "liver")
    with pytest.raises(ExpertError, match="other channels"):
        HomeWindows(spec).answer(scan(channels=2))
    with pytest.raises(ExpertError, match="another number of structures"):
        HomeWindows(replace(spec, labels=LabelSpace(("liver", "spleen")))).answer(scan())
    with pytest.raises(ExpertError, match="nnU-Net's own way"):
        HomeWindows(spec_of(write_folder(tmp_path)))
