"""A trained nnU-Net in a wider head: rows by name, everything else as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from common.backbones.nnunet.network import build_network, load_network, read_results_folder
from common.backbones.nnunet.widen import take_over
from common.errors import WeightError
from common.labels import LabelSpace
from tests.nnunet_folders import tiny_plans, write_folder

WIDER = LabelSpace(("kidney", "spleen", "liver"))


def fresh(labels: LabelSpace, *, resenc: bool = False) -> nn.Module:
    torch.manual_seed(7)
    plans = tiny_plans(resenc=resenc)
    return build_network(plans, "3d_fullres", in_channels=1, out_channels=labels.num_classes, deep_supervision=True)


@pytest.mark.parametrize("resenc", [False, True])
def test_the_same_answers_for_the_structures_that_it_knew(tmp_path: Path, resenc: bool) -> None:
    results = read_results_folder(write_folder(tmp_path, resenc=resenc, prefix="_orig_mod."))
    before = fresh(WIDER, resenc=resenc).state_dict()
    wide = take_over(fresh(WIDER, resenc=resenc), results, WIDER).eval()
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        wide.decoder.deep_supervision = True
        every = wide(image)
        wide.decoder.deep_supervision = False
        old, new = load_network(results)(image), wide(image)
    torch.testing.assert_close(new[:, [0, 3, 2]], old)
    assert len(every) == 2
    torch.testing.assert_close(every[0], new)
    heads = [k for k in before if "seg_layers" in k]
    assert len(heads) == 4
    for key in heads:
        assert torch.equal(wide.state_dict()[key][1], before[key][1])
        assert torch.equal(wide.state_dict()[key][2], results.weights[key][2])


def test_structures_that_overlap_had_no_background(tmp_path: Path) -> None:
    regions = {"labels": {"background": 0, "liver": [1, 2], "spleen": 2}, "extra": {"regions_class_order": [1, 2]}}
    results = read_results_folder(write_folder(tmp_path, **regions))
    wide, image = take_over(fresh(WIDER), results, WIDER).eval(), torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        old = load_network(results)(image)
        wide.decoder.deep_supervision = False
        new = wide(image)
    torch.testing.assert_close(new[:, [3, 2]], old)
    assert not new[:, 0].any()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    results = read_results_folder(folder)
    with pytest.raises(WeightError, match="none of the structures"):
        take_over(fresh(LabelSpace(("heart",))), results, LabelSpace(("heart",)))
    with pytest.raises(WeightError, match="do not fit"):
        take_over(fresh(WIDER, resenc=True), results, WIDER)
    listed = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**listed, "labels": {**listed["labels"], "heart": 3}}))
    with pytest.raises(WeightError, match="seg_layers"):
        take_over(fresh(WIDER), read_results_folder(folder), WIDER)
