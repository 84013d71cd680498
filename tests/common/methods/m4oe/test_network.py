"""M4oE as a whole: routing, heads, adding a modality, the loss."""

import pytest
import torch

from common.errors import ConfigError, LabelError
from common.layers.gating.mlp_mixture import MLPMixture
from common.losses.balance import load_balance
from common.losses.segmentation import annotated_dice_ce
from common.methods.m4oe.network import M4oE, M4oELoss, swin_unet_with_experts

SIZES = {"embed": 12, "num_heads": (1, 2, 3, 6), "window": 2, "drop_path": 0.0}
CLASSES = {"abdomen": (0, 1, 2), "heart": (0, 3)}


def build(modalities=("CT", "MR"), **options):
    torch.manual_seed(0)
    backbone = swin_unet_with_experts(experts=2, **SIZES, **options)
    return M4oE(backbone=backbone, modalities=modalities, classes=CLASSES, total=4, embed=12)


def batch(n=3):
    torch.manual_seed(1)
    modality, head = torch.tensor([0, 1, 0])[:n], torch.tensor([0, 1, 0])[:n]
    annotated = torch.tensor([[True, True, True, False], [True, False, False, True]])[head]
    label = torch.zeros(n, 1, 64, 64)
    label[:, :, 8:40, 16:50] = torch.where(head == 1, 3.0, 1.0)[:, None, None, None]
    return torch.randn(n, 1, 64, 64), modality, head, {"label": label, "annotated": annotated}


ABLATIONS = [
    {},
    {"gate": "none"},
    {"gate": "channel_official"},
    {"gate_input": "image_mean"},
    {"top_k": 1},
    {"moe_encoder": False},
    {"moe_decoder": False},
    {"moe_encoder": False, "moe_decoder": False},
]


@pytest.mark.parametrize("options", ABLATIONS)
def test_every_ablation_learns_a_step(options):
    network, (image, modality, head, targets) = build(**options), batch()
    outputs = network(image, modality, head)
    assert outputs.logits.shape == (3, 4, 64, 64) and len(outputs.routings) == 14
    terms = M4oELoss()(outputs, targets)
    terms["loss"].backward()
    assert terms["loss"].isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    count = sum(isinstance(f, MLPMixture) for f in network.backbone.feed_forwards())
    assert count == 8 * options.get("moe_encoder", True) + 6 * options.get("moe_decoder", True)


def test_without_gradients_full_size_features_are_of_one_sample_at_a_time():
    network, (image, modality, head, _) = build().eval(), batch()
    together = network(image, modality, head).logits
    sizes = []
    network.backbone.up.register_forward_hook(lambda _m, _i, out: sizes.append(len(out)))
    with torch.inference_mode():
        torch.testing.assert_close(network(image, modality, head).logits, together)
        assert sizes == [1, 1, 1]
        for wrong in (head[:2], head.float(), torch.tensor(0), torch.cat([head, head])):
            with pytest.raises(ConfigError, match="one head's number per sample"):
                network(image, modality, wrong)
    network(image, modality, head)
    assert sizes[-1] == 3


@pytest.mark.parametrize("options", [{}, {"gate": "none"}, {"top_k": 1}])
def test_shuffled_samples_give_shuffled_logits(options):
    network, (image, modality, head, _) = build(**options).eval(), batch()
    order = torch.tensor([2, 0, 1])
    with torch.inference_mode():
        shuffled = network(image[order], modality[order], head[order]).logits
        torch.testing.assert_close(shuffled, network(image, modality, head).logits[order])


def test_a_softmax_never_sees_other_heads_classes():
    network, (image, modality, head, _) = build().eval(), batch()
    p = network(image, modality, head).logits.softmax(1)
    assert not p[0, 3].any() and not p[1, 1:3].any()
    torch.testing.assert_close(p.sum(1), torch.ones(3, 64, 64))


def test_an_image_of_one_channel_is_repeated():
    network, (image, modality, head, _) = build().eval(), batch()
    with torch.inference_mode():
        assert torch.equal(
            network(image, modality, head).logits, network(image.repeat(1, 3, 1, 1), modality, head).logits
        )


@pytest.mark.parametrize("copy_of", [None, "MR"])
def test_adding_a_modality_leaves_the_others_bit_for_bit(copy_of):
    network, (image, modality, head, _) = build(gate="none").eval(), batch()
    with torch.inference_mode():
        before = network(image, modality, head).logits
    network.add_modality("US", "thyroid", (0, 4), total=5, copy_of=copy_of)
    with torch.inference_mode():
        after = network(image, modality, head).logits
        assert torch.equal(after[:, :4], before) and (after[:, 4] == -torch.inf).all()
        fresh = network(image, torch.tensor([2, 2, 2]), torch.tensor([2, 2, 2])).logits
    assert fresh[:, [0, 4]].isfinite().all()
    for names in (("US", "other"), ("new", "heart")):
        with pytest.raises(ConfigError, match="taken"):
            network.add_modality(*names, (0, 1))
    with pytest.raises(ConfigError, match="no such modality"):
        network.add_modality("PET", "whole body", (0, 1), copy_of="SPECT")


def test_wrong_ids_are_refused():
    network, (image, modality, head, _) = build(), batch()
    with pytest.raises(ConfigError, match="CT, MR"):
        network(image, torch.tensor([0, 2, 0]), head)
    with pytest.raises(ConfigError, match="head"):
        network(image, modality, torch.tensor([0, 2, 0]))
    for modalities in (("CT",), ("CT", "CT"), ("CT", "MR", "US")):
        with pytest.raises(ConfigError, match="per modality"):
            build(modalities)


@pytest.mark.parametrize("weights", [{}, {"ce": 1.0, "dice": 0.2, "balance": 0.01}])
def test_the_loss_is_the_formula(weights):
    network, (image, modality, head, targets) = build(top_k=1), batch()
    outputs = network(image, modality, head)
    per_sample = [
        annotated_dice_ce(outputs.logits[b : b + 1, ..., None], targets["label"][b : b + 1, ..., None],
                          targets["annotated"][b : b + 1])
        for b in range(3)
    ]  # fmt: skip
    dice, ce = (sum(t[i] for t in per_sample) / 3 for i in (0, 1))
    w = {"ce": 0.4, "dice": 0.6, "balance": 0.0, **weights}
    balance = sum(load_balance(r) for r in outputs.routings) / 14
    want = w["ce"] * ce + w["dice"] * dice + w["balance"] * balance
    torch.testing.assert_close(M4oELoss(**weights)(outputs, targets)["loss"], want)


def test_the_dice_term_can_be_summed_over_the_batch():
    network, (image, modality, head, targets) = build(), batch()
    outputs = network(image, modality, head)
    want = annotated_dice_ce(outputs.logits[..., None], targets["label"][..., None], targets["annotated"], over="batch")
    torch.testing.assert_close(M4oELoss(dice_over="batch")(outputs, targets)["loss"], 0.4 * want.ce + 0.6 * want.dice)
    with pytest.raises(ConfigError, match="sample or batch"):
        M4oELoss(dice_over="slice")(outputs, targets)


def test_what_the_loss_refuses():
    network, (image, modality, head, targets) = build(gate="none"), batch()
    outputs = network(image, modality, head)
    with pytest.raises(ConfigError, match="learned gate"):
        M4oELoss(balance=0.1)(outputs, targets)
    with pytest.raises(ConfigError):
        M4oELoss(ce=-1)
    with pytest.raises(LabelError, match=r"(?s)sample 0.*class 1"):  # the first sample's head is the other data set's
        M4oELoss()(network(image, modality, torch.tensor([1, 1, 0])), targets)
    with pytest.raises(ConfigError, match="1 or 3"):
        network(image.repeat(1, 2, 1, 1), modality, head)
    with pytest.raises(LabelError):
        M4oELoss()(outputs, {**targets, "label": torch.full((3, 1, 64, 64), 3.0)})
