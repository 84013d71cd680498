import math

import pytest
import torch

from common.errors import ConfigError
from common.losses.contrastive import nt_xent
from common.losses.reconstruction import masked_mse
from common.methods.samora.stage_one.objectives import Compared, Contrasted, Denoised, Patches, StageOneLoss


def test_teacher_and_student():
    said, told = torch.randn(2, 3, 3, 5), torch.randn(2, 3, 3, 5)
    expected = sum((a - b) ** 2 for a, b in zip(said.flatten().tolist(), told.flatten().tolist(), strict=True)) / 90
    terms = StageOneLoss()(Compared(said, told))
    assert float(terms["loss"]) == pytest.approx(expected, rel=1e-5) == float(terms["mse"])
    counted = torch.zeros(2, 3, 3, dtype=torch.bool)
    counted[0, 1, 2] = counted[1, 0, 0] = True
    two = [((said - told)[0, 1, 2] ** 2).mean(), ((said - told)[1, 0, 0] ** 2).mean()]
    assert float(StageOneLoss()(Compared(said, told, counted))["loss"]) == pytest.approx(float(sum(two) / 2), rel=1e-5)


def test_views_and_hidden_patches_have_their_own_losses():
    first, second = torch.randn(4, 6), torch.randn(4, 6)
    terms = StageOneLoss(temperature=0.3)(Contrasted(first, second))
    assert torch.equal(terms["loss"], nt_xent(first, second, temperature=0.3)) and "nt_xent" in terms
    image, prediction, hidden = torch.rand(2, 1, 8, 8), torch.rand(2, 2, 2, 16), torch.ones(2, 2, 2, dtype=torch.bool)
    for normalise in (True, False):
        terms = StageOneLoss(normalise=normalise)(Patches(prediction, image, hidden))
        assert torch.equal(terms["loss"], masked_mse(prediction, image, hidden, normalise=normalise))


def test_noise():
    painted, clean = torch.randn(2, 1, 3, 3), torch.rand(2, 1, 3, 3)
    plain = StageOneLoss()(Denoised(painted, clean))["loss"]
    assert float(plain) == pytest.approx(float(((painted - clean) ** 2).mean()))
    dice, mse = 0.0, 0.0
    for x, y in zip(painted.flatten(1).tolist(), clean.flatten(1).tolist(), strict=True):
        x = [1 / (1 + math.exp(-v)) for v in x]
        overlap = sum(a * b for a, b in zip(x, y, strict=True))
        dice += 1 - (2 * overlap + 1e-5) / (sum(a * a for a in x) + sum(b * b for b in y) + 1e-5)
        mse += sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / 9
    terms = StageOneLoss(pixel_loss="dice_mse")(Denoised(painted, clean))
    assert float(terms["loss"]) == pytest.approx(0.9 * dice / 2 + 0.1 * mse / 2, rel=1e-5)


def test_unknown_losses():
    with pytest.raises(ConfigError, match="mse, dice_mse"):
        StageOneLoss(pixel_loss="l1")
    with pytest.raises(ConfigError):
        StageOneLoss(temperature=0)
