"""What a step of SAMora is judged by."""

import pytest
import torch

from common.errors import ConfigError
from common.layers.gating.routing import soft_routing
from common.losses.balance import load_balance
from common.losses.batch_dice import batch_dice_ce
from common.methods.samora.stage_two.loss import SAMoraLoss
from common.methods.samora.stage_two.network import SAMoraOutputs

TARGETS = {"label": torch.randint(0, 3, (2, 1, 16, 16)), "annotated": torch.ones(2, 3, dtype=torch.bool)}


def test_one_decoder():
    logits = torch.randn(2, 3, 4, 4)
    dice, ce = batch_dice_ce(logits, TARGETS["label"])
    terms = SAMoraLoss()(SAMoraOutputs(logits), TARGETS)
    assert torch.allclose(terms["loss"], 0.2 * ce + 0.8 * dice)
    assert set(terms) == {"loss", "dice", "ce"} and torch.equal(terms["dice"], dice)


@pytest.mark.parametrize("epoch", [0, 1, 30, 300])
def test_the_second_decoder_takes_over(epoch):
    coarse, fine = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 16, 16)
    loss = SAMoraLoss()
    loss.set_epoch(epoch)
    w = 0.6 ** (0.99**epoch)
    assert loss.fine_weight == pytest.approx(w) and (epoch < 300 or w > 0.97)
    parts = [0.2 * ce + 0.8 * dice for dice, ce in (batch_dice_ce(x, TARGETS["label"]) for x in (coarse, fine))]
    terms = loss(SAMoraOutputs(coarse, fine), TARGETS)
    assert torch.allclose(terms["loss"], (1 - w) * parts[0] + w * parts[1]) and {"fine_dice", "fine_ce"} <= set(terms)


def test_gates_are_balanced():
    routings = tuple(soft_routing(torch.randn(2, 3)) for _ in range(2))
    plain = SAMoraLoss()(SAMoraOutputs(torch.zeros(2, 3, 4, 4), None, routings), TARGETS)["loss"]
    terms = SAMoraLoss(balance=0.5)(SAMoraOutputs(torch.zeros(2, 3, 4, 4), None, routings), TARGETS)
    expected = sum(load_balance(r) for r in routings) / 2
    assert torch.allclose(terms["loss"], plain + 0.5 * expected) and torch.allclose(terms["balance"], expected)
    with pytest.raises(ConfigError, match="no gate"):
        SAMoraLoss(balance=0.5)(SAMoraOutputs(torch.zeros(2, 3, 4, 4)), TARGETS)


@pytest.mark.parametrize("wrong", [{"ce": -1}, {"dice": -1}, {"balance": -1}, {"first": 0}, {"first": 2}, {"decay": 2}])
def test_weights_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        SAMoraLoss(**wrong)
