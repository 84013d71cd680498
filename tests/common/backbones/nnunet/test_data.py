"""Preprocessing, patches, the store, loss and windows of the expert bundle."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch.nn import functional as F

from common.backbones.nnunet.data import (
    NNUNetPatchd,
    NNUNetPreprocessd,
    NNUNetRestored,
)
from common.backbones.nnunet.network import build_network, deep_supervision_when_training
from common.backbones.nnunet.plan import Plan
from common.backbones.nnunet.recipe import DeepSupervisionLoss, Recipe, foreground_fraction
from common.backbones.nnunet.window import NNUNetInferer
from common.data.store.cases import StoredCases
from common.data.store.chain import chain_json, digest
from common.data.store.place import Store
from common.errors import ConfigError, DataError, WeightError

JSON = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "liver": 1, "spleen": 2}, "file_ending": ".nii.gz"}
FLAT = {"spacing": (1.0, 1.0), "strides": ((1, 1), (2, 2), (2, 2))}


@pytest.fixture
def make_plan(nnunet_plans, tmp_path):
    def make(**options):
        plans = nnunet_plans(**options)
        return Plan(plans, JSON, next(iter(plans["configurations"])), tmp_path)

    return make


def case(shape=(20, 22, 18), spacing=(1.0, 1.0, 1.0), seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(40, 10, (1, *shape)).astype(np.float32)
    label = np.zeros((1, *shape), np.float32)
    label[:, 4:9, 5:12, 6:10], label[:, 12:16, 12:18, 4:14] = 1, 2
    affine = np.diag([*spacing, 1.0])
    return {"image": MetaTensor(image, affine=affine), "label": MetaTensor(label, affine=affine), "case": "c"}


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5)])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_a_label_map_goes_there_and_back(make_plan, transpose, spacing):
    plan = make_plan(transpose=transpose)
    data = case(spacing=spacing)
    done = NNUNetPreprocessd(plan=plan)(data)
    assert done["image"].shape == done["label"].shape
    logits = F.one_hot(done["label"].long()[0].clamp_min(0), 3).movedim(-1, 0).float() * 10
    back = NNUNetRestored(plan=plan)({**done, "pred": logits})["pred"]
    assert back.shape == data["label"].shape
    assert float((back.as_tensor() == data["label"].as_tensor()).float().mean()) > (0.995 if spacing[0] == 1 else 0.97)


def test_zero_borders_are_cropped_and_come_back(make_plan):
    data = case()
    data["image"][:, :3], data["image"][:, :, :, -2:] = 0, 0
    plan = make_plan()
    done = NNUNetPreprocessd(plan=plan, label=None)(data)
    assert done["image"].shape == (1, 16, 22, 17)
    assert done["label"].shape == data["label"].shape
    back = NNUNetRestored(plan=plan)({**done, "pred": torch.zeros(3, 16, 22, 17)})["pred"]
    assert back.shape == (1, 20, 22, 18)


def test_empty_images_and_other_channels_are_refused(make_plan):
    data = case()
    with pytest.raises(DataError, match=r"case c: the image is zero everywhere"):
        NNUNetPreprocessd(plan=make_plan())({**data, "image": data["image"] * 0})
    with pytest.raises(DataError, match="other channels"):
        NNUNetPreprocessd(plan=make_plan())({**data, "image": torch.cat([data["image"]] * 2)})


@pytest.mark.parametrize("options", [{}, FLAT])
def test_patches_have_the_planned_size_and_do_not_touch_the_case(make_plan, options):
    plan = make_plan(**options)
    done = NNUNetPreprocessd(plan=plan, locations=True)(case())
    before = done["image"].clone()
    draw = NNUNetPatchd(plan=plan)
    draw.set_random_state(0)
    for _ in range(5):
        patch = draw(done)
        assert patch["image"].shape == patch["label"].shape == (1, *plan.patch_size)
        assert int(patch["label"].min()) >= 0 and patch["case"] == "c"
    assert torch.equal(done["image"], before)


def test_patches_repeat_with_their_seed_and_leave_the_others_alone(make_plan):
    plan = make_plan()
    done = NNUNetPreprocessd(plan=plan, locations=True)(case())
    draw = pickle.loads(pickle.dumps(NNUNetPatchd(plan=plan)))
    results = []
    for _ in range(2):
        draw.set_random_state(7)
        results.append([draw(done)["image"] for _ in range(3)])
        torch.manual_seed(1)
        np.random.seed(1)
        before = (torch.rand(1), np.random.rand())
        torch.manual_seed(1)
        np.random.seed(1)
        draw(done)
        assert (torch.rand(1), np.random.rand()) == before
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not torch.equal(results[0][0], results[0][1])


def test_foreground_share_is_nnunets(make_plan):
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

    for size, share in itertools.product((1, 2, 3, 5, 12), (0.0, 0.33, 0.66, 1.0)):

        class Stand:
            batch_size, oversample_foreground_percent = size, share

        forced = [nnUNetDataLoader._oversample_last_XX_percent(Stand, i) for i in range(size)]
        assert foreground_fraction(size, share) == pytest.approx(np.mean(forced))


def test_forced_patches_hold_foreground(make_plan):
    plan = make_plan()
    draw = NNUNetPatchd(plan=plan, batch_size=2, oversample=1.0, augment=False)
    draw.set_random_state(0)
    done = NNUNetPreprocessd(plan=plan, locations=True)(case((48, 48, 48)))
    assert all(bool((draw(done)["label"] > 0).any()) for _ in range(20))


def test_no_mirroring(make_plan):
    assert Recipe(plan=make_plan()).augmentation(mirror=False).mirror_axes == ()
    assert Recipe(plan=make_plan()).augmentation().mirror_axes == (0, 1, 2)


def naive_loss(logits, label):
    """Dice over foreground per sample plus cross-entropy, written out."""
    probability, dice = logits.softmax(1), []
    for b, k in itertools.product(range(len(logits)), range(1, logits.shape[1])):
        p, y = probability[b, k], (label[b, 0] == k).float()
        dice.append((2 * (p * y).sum() + 1e-5) / max(float(p.sum() + y.sum()) + 1e-5, 1e-8))
    picked = torch.gather(probability, 1, label.long())
    return -torch.stack(dice).mean() - picked.log().mean()


def test_loss_against_its_naive_twin(make_plan):
    loss = DeepSupervisionLoss(plan=make_plan())
    label = NNUNetPreprocessd(plan=make_plan())(case((16, 16, 16)))["label"][None].expand(2, -1, -1, -1, -1)
    outputs = [torch.randn(2, 3, *(n,) * 3, generator=torch.Generator().manual_seed(n)) for n in (16, 8)]
    torch.testing.assert_close(loss(outputs[0], label), naive_loss(outputs[0], label), atol=1e-4, rtol=1e-4)
    # two stages: weights 1 and 1/2, the last set to 0 and the rest normalised, so that the finest stage remains
    torch.testing.assert_close(loss(outputs, label), naive_loss(outputs[0], label), atol=1e-4, rtol=1e-4)


def test_loss_of_three_stages_is_weighted_2_to_1(make_plan):
    plan = make_plan(strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)))
    label = torch.randint(0, 3, (2, 1, 16, 16, 16), generator=torch.Generator().manual_seed(0))
    outputs = [torch.randn(2, 3, *(n,) * 3, generator=torch.Generator().manual_seed(n)) for n in (16, 8, 4)]
    coarse = F.interpolate(label.float(), (8, 8, 8), mode="nearest-exact").long()
    expected = (2 * naive_loss(outputs[0], label) + naive_loss(outputs[1], coarse)) / 3
    torch.testing.assert_close(DeepSupervisionLoss(plan=plan)(outputs, label), expected, atol=1e-4, rtol=1e-4)


def test_negative_labels_count_as_background_and_shapes_are_checked(make_plan):
    loss, logits = DeepSupervisionLoss(plan=make_plan()), torch.randn(1, 3, 8, 8, 8)
    label = torch.zeros(1, 1, 8, 8, 8, dtype=torch.int16)
    outside = label.clone()
    outside[..., :2] = -1
    torch.testing.assert_close(loss(logits, label), loss(logits, outside))
    with pytest.raises(DataError, match="label and prediction differ"):
        loss(logits, label[..., :4])


def test_training_lowers_the_loss(make_plan):
    plan = make_plan()
    torch.manual_seed(0)
    network = build_network(plan.plans, plan.configuration, in_channels=1, out_channels=3, deep_supervision=True)
    deep_supervision_when_training(network).train()
    x, label = torch.randn(2, 1, 16, 16, 16), torch.zeros(2, 1, 16, 16, 16, dtype=torch.int16)
    label[:, :, 4:10, 4:10, 4:10] = 1
    x += 3 * label
    optimizer, loss, values = (
        torch.optim.SGD(network.parameters(), 0.05, momentum=0.9),
        DeepSupervisionLoss(plan=plan),
        [],
    )
    for _ in range(15):
        optimizer.zero_grad()
        value = loss(network(x), label)
        value.backward()
        optimizer.step()
        values.append(float(value))
    assert values[-1] < values[0] - 0.5


class Made:
    """Stands for reading: gives the case that is named."""

    def chain_identity(self):
        return {}

    def __call__(self, item):
        return {**item, **case((40, 40, 40)), "case": item["case"]}


@pytest.mark.parametrize("options", [{}, FLAT])
def test_patches_of_the_store_are_those_of_memory(make_plan, tmp_path, options):
    plan = make_plan(**options)
    chain = Compose([Made(), NNUNetPreprocessd(plan=plan, locations=True)])
    draw = NNUNetPatchd(plan=plan, oversample=0.5)
    stored = StoredCases([{"case": "c"}], chain, store=Store(store_dir=tmp_path), reading=plan.patch_size)
    whole = chain({"case": "c"})
    for seed in range(6):
        draw.set_random_state(seed)
        wanted = draw(whole)
        draw.set_random_state(seed)
        found = draw(stored[0])
        assert torch.equal(found["label"], wanted["label"])
        torch.testing.assert_close(found["image"], wanted["image"], atol=5e-3, rtol=1e-2)


def test_other_plans_are_other_chains_and_their_folder_does_not_count(make_plan):
    first, other = make_plan(), make_plan(spacing=(2.0, 1.0, 1.0))
    moved = dataclasses.replace(first, folder=first.folder / "elsewhere")
    keys = [digest(chain_json(NNUNetPreprocessd(plan=p))) for p in (first, moved, other)]
    assert keys[0] == keys[1] != keys[2]
    assert digest(chain_json(NNUNetPreprocessd(plan=first, locations=True))) != keys[0]


def test_two_dimensional_windows_go_slice_by_slice(make_plan):
    plan = make_plan(**FLAT)
    network = build_network(plan.plans, "2d", in_channels=1, out_channels=3).eval()
    x = torch.randn(1, 1, 3, 16, 16)
    with torch.no_grad():
        found = NNUNetInferer(plan=plan)(x, network)
        expected = torch.stack([network(x[:, :, k]) for k in range(3)], dim=2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{"overlap": 1.0}, {"overlap": -0.1}, {"sw_batch_size": 0}])
def test_impossible_windows(make_plan, options):
    with pytest.raises(ConfigError):
        NNUNetInferer(plan=make_plan(), **options)


def test_what_nnunet_cannot_do_is_said_of_the_plans_and_the_case(make_plan, tmp_path, monkeypatch):
    change = NNUNetPreprocessd(plan=make_plan())
    with monkeypatch.context() as patch:
        patch.setattr(
            change.managers["3d_fullres"][1], "configuration", {**tiny(change), "resampling_fn_data_kwargs": 5}
        )
        with pytest.raises(WeightError, match="nnU-Net cannot work") as caught:
            change(case())
    assert str(caught.value.where) == f"case c, plans of {tmp_path}"
    monkeypatch.setattr("common.backbones.nnunet.calls.most_voxels", lambda _: 100)
    with pytest.raises(WeightError, match="cannot be resampled"):
        change(case())


def tiny(change):
    return change.managers["3d_fullres"][1].configuration
