"""Classes decided while tiles are joined are those of all logits, voxel by voxel."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.backbones.nnunet.calls import quiet
from common.backbones.nnunet.data import NNUNetRestored
from common.backbones.nnunet.network import build_network, plan_managers
from common.backbones.nnunet.plan import Plan, plan_of_settings
from common.backbones.nnunet.streamed import COMPETING, DecideInTilesd, Running, _infinite, spans
from common.backbones.nnunet.window import NNUNetTiles
from common.data.prompts.targets import KeepTargetsd
from common.errors import DataError
from tests.nnunet_folders import tiny_plans

CLASSES = 71


def planned(classes: int = CLASSES, **plans: Any) -> Plan:
    labels = {"background": 0, **{f"s{i}": i for i in range(1, classes)}}
    data = {"name": "x", "channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    content = tiny_plans(**plans)
    configuration = next(iter(content["configurations"]))
    return plan_of_settings({"plans": content, "dataset_json": data, "configuration": configuration}, ".")


def drawn(plan: Plan) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_network(plan.plans, plan.configuration, in_channels=1, out_channels=plan.out_channels)
    return network.eval()


def volume(*shape: int, competing: torch.Tensor | None = None) -> MetaTensor:
    image = MetaTensor(torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(1)))
    if competing is not None:
        image.meta[COMPETING] = competing
    return image


@pytest.mark.parametrize(
    ("shape", "overlap"), [((16, 16, 16), 0.5), ((11, 40, 17), 0.2), ((37, 29, 18), 0.5), ((18, 16, 37), 0.7)]
)
def test_the_same_label_map(overlap: float, shape: tuple[int, ...]) -> None:
    plan = planned()
    network, tiles = drawn(plan), NNUNetTiles(plan=plan, overlap=overlap)
    logits = tiles(volume(*shape), network)
    assert logits.shape == (1, CLASSES, *shape)
    for competing in (torch.ones(CLASSES, dtype=torch.bool), torch.arange(CLASSES) % 3 == 0):
        found = tiles(volume(*shape, competing=competing), network)
        expected = logits.masked_fill(~competing.view(1, -1, 1, 1, 1), torch.finfo(torch.half).min / 4).argmax(1)
        assert found.shape == (1, 1, *shape) and torch.equal(found[:, 0].long(), expected)
        assert len(found.unique()) > 5


def test_mirrored_and_two_dimensional(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(40)
    network, tiles = drawn(plan), NNUNetTiles(plan=plan, mirror=(0, 2))
    every = torch.ones(40, dtype=torch.bool)
    found = tiles(volume(20, 18, 16, competing=every), network)
    assert torch.equal(found.long(), tiles(volume(20, 18, 16), network).argmax(1, keepdim=True))
    flat = planned(3, spacing=(1.0, 1.0), strides=((1, 1), (2, 2)))
    slices = NNUNetTiles(plan=flat)(volume(3, 20, 16, competing=every[:3]), drawn(flat))
    assert slices.shape == (1, 3, 3, 20, 16)
    monkeypatch.setattr("common.backbones.nnunet.streamed._same", lambda *_: False)
    split, whole = planned(), NNUNetTiles(plan=planned())
    network = drawn(split)
    found = whole(volume(20, 18, 16, competing=torch.ones(CLASSES, dtype=torch.bool)), network)
    assert torch.equal(found.long(), whole(volume(20, 18, 16), network).argmax(1, keepdim=True))


def test_never_all_logits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long volume no tensor has the logits of more than some tiles, and the network answers for some classes."""
    plan, length = planned(), 160
    network, tiles = drawn(plan), NNUNetTiles(plan=plan, overlap=0.2)
    largest, made = [0], torch.zeros

    def zeros(*shape: int, **options: Any) -> torch.Tensor:
        found = made(*shape, **options)
        largest[0] = max(largest[0], found.numel())
        return found

    monkeypatch.setattr("common.backbones.nnunet.streamed.torch.zeros", zeros)
    tiles(volume(length, 16, 16, competing=torch.ones(CLASSES, dtype=torch.bool)), network)
    assert CLASSES * 16**3 / 8 < largest[0] < CLASSES * 16**3 / 2
    heads: list[int] = []
    network.decoder.seg_layers[-1].register_forward_hook(lambda *_: heads.append(1))  # type: ignore[union-attr, index]
    tiles(volume(16, 16, 16, competing=torch.ones(CLASSES, dtype=torch.bool)), network)
    assert heads == [1]  # who listens to the last layer hears it


def test_infinite_logits_are_refused() -> None:
    plan = planned(3)
    network = drawn(plan)
    with torch.no_grad():
        network.decoder.seg_layers[-1].bias[1] = 1e5  # type: ignore[union-attr, index]
    with pytest.raises(DataError, match="infinite"):
        NNUNetTiles(plan=plan)(volume(16, 16, 16, competing=torch.ones(3, dtype=torch.bool)), network)


def test_what_is_infinite() -> None:
    values = torch.ones(4, 3).half()
    assert not _infinite(values)
    for wrong, told in ((torch.nan, False), (-torch.inf, True), (torch.nan, True)):  # the last beside the infinite one
        values[int(wrong < 0), 1] = wrong
        assert _infinite(values) is told


def test_cuts_of_an_axis() -> None:
    assert [tuple(s) for s in spans([0], 4)] == [(0, 4, 0, 0)]
    assert [tuple(s) for s in spans([0, 2, 4], 4)] == [(0, 2, 0, 0), (2, 4, 0, 2), (4, 6, 2, 4), (6, 8, 4, 4)]


def test_the_first_of_equal_ones_and_what_is_no_number() -> None:
    values = torch.tensor([[1.0, 2, torch.nan, 0], [1, 3, 5, torch.nan], [1, 3, torch.nan, 7]]).half()
    for cut in (1, 2, 3):
        running = Running()
        for first in range(0, 3, cut):
            running.update(values[first : first + cut], first)
        assert running.index.tolist() == values.numpy().argmax(0).tolist() == [0, 1, 0, 1]


def test_only_what_is_not_resampled_is_decided_in_tiles() -> None:
    keep = KeepTargetsd(["s2"], ["s1", "s2"])
    for cropped, told in (([4, 5, 6], True), ([8, 5, 6], False)):
        image = MetaTensor(torch.zeros(1, 4, 5, 6))
        entry = json.dumps({"shape_after_cropping_and_before_resampling": cropped})
        done = DecideInTilesd(keep=[keep])({"image": image, "nnunet": entry})["image"]
        assert (COMPETING in done.meta) is told
        assert not told or done.meta[COMPETING].tolist() == [True, False, True]
        both = DecideInTilesd(keep=[keep, KeepTargetsd(["s1"], ["s1", "s2"])])({"image": image, "nnunet": entry})[
            "image"
        ]
        assert not told or both.meta[COMPETING].tolist() == [True, False, False]
    image = MetaTensor(torch.zeros(1, 4, 5, 6))
    assert COMPETING not in DecideInTilesd(keep=[keep], enabled=False)({"image": image})["image"].meta
    index = torch.ones(1, 4, 5, 6, dtype=torch.int16)
    assert keep({"pred": index})["pred"] is index


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("box", [(12, 10, 8), (20, 14, 17)])
def test_classes_are_exported_one_at_a_time(box: tuple[int, ...], transpose: tuple[int, int, int]) -> None:
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    plan = planned(9, transpose=transpose, spacing=(1.5, 1.5, 1.5))
    manager, config = plan_managers(plan.plans, plan.configuration)
    logits = torch.randn(9, 12, 10, 8, generator=torch.Generator().manual_seed(0)).half()
    whole = tuple(n + 3 for n in box)
    properties = {
        "shape_before_cropping": whole, "bbox_used_for_cropping": [[1, n + 1] for n in box], "dim": 3,
        "shape_after_cropping_and_before_resampling": list(box), "spacing": [1.0, 1.2, 0.9],
    }  # fmt: skip
    with quiet():
        expected = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, manager, config, manager.get_label_manager(plan.dataset_json), properties, num_threads_torch=1
        )
    data: dict[Hashable, Any] = {"nnunet": json.dumps(properties), "image": torch.zeros(1)}
    restored = NNUNetRestored(plan=plan)
    found = restored({**data, "pred": logits})["pred"]
    assert np.array_equal(found[0].numpy().transpose(2, 1, 0), expected) and len(np.unique(expected)) == 9
    if box == logits.shape[1:]:
        decided = restored({**data, "pred": logits.float().argmax(0, keepdim=True).to(torch.int16)})["pred"]
        assert torch.equal(decided, found) and decided.dtype == found.dtype
