"""SAMora's second objective: cross-entropy and Dice of the decoders, and how two decoders share it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ....errors import ConfigError
from ....layers.gating.routing import Routing
from ....losses.balance import load_balance
from ....losses.batch_dice import batch_dice_ce
from .network import SAMoraOutputs

__all__ = ["SAMoraLoss"]


class SAMoraLoss(nn.Module):
    """``L = a CE + b Dice + c balance`` on logits of a quarter of the size, with labels of the nearest pixel.

    With a second decoder ``(1 - w) L_coarse + w L_fine``, ``w = first^(decay^epoch)`` with epochs counted from 0, so
    that the second decoder takes over; ``L_fine`` is at full size.

    Args:
        ce: weight a, >= 0.
        dice: weight b, >= 0.
        balance: weight c of the mean load-balance loss of all gates, >= 0; only with gates.
        first: w of the first epoch, above 0 and at most 1.
        decay: 0 .. 1; 1 keeps w as it is.

    Raises:
        ConfigError: for a weight out of range.

    Reference:
        SAMora, eq. 9 (0.2 and 0.8); Cheng et al., H-SAM, 2024 (0.6 and 0.99).
    """

    def __init__(
        self, *, ce: float = 0.2, dice: float = 0.8, balance: float = 0.0, first: float = 0.6, decay: float = 0.99
    ) -> None:
        super().__init__()
        if min(ce, dice, balance) < 0 or not 0 < first <= 1 or not 0 <= decay <= 1:
            given = (ce, dice, balance, first, decay)
            where = "ce, dice, balance, first, decay"
            expected = ">= 0; first and decay at most 1"
            raise ConfigError("a weight of the loss is out of range", where=where, got=given, expected=expected)
        self.ce, self.dice, self.balance, self.first, self.decay = ce, dice, balance, first, decay
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Tell how many epochs are over."""
        self.epoch = epoch

    @property
    def fine_weight(self) -> float:
        """Weight w of the second decoder in this epoch."""
        return float(self.first ** (self.decay**self.epoch))

    def forward(self, outputs: SAMoraOutputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Judge a step.

        Args:
            outputs: of the network.
            targets: ``label`` ``[B, 1, S, S]`` union indices and ``annotated`` ``[B, K+1]`` bool.

        Returns:
            ``loss`` and its terms: ``dice``, ``ce`` of the first decoder, ``fine_dice``, ``fine_ce`` of the second.

        Raises:
            LabelError: for a label outside the classes that its sample is annotated for.
            ConfigError: for a balance without gates.
        """
        dice, ce = batch_dice_ce(outputs.logits, targets["label"], targets.get("annotated"))
        terms = {"dice": dice.detach(), "ce": ce.detach()}
        loss = self.ce * ce + self.dice * dice
        if outputs.fine is not None:
            dice, ce = batch_dice_ce(outputs.fine, targets["label"], targets.get("annotated"))
            terms |= {"fine_dice": dice.detach(), "fine_ce": ce.detach()}
            loss = (1 - self.fine_weight) * loss + self.fine_weight * (self.ce * ce + self.dice * dice)
        if self.balance > 0:
            balance = _balance(outputs.routings)
            terms["balance"] = balance.detach()
            loss = loss + self.balance * balance
        return {"loss": loss, **terms}


def _balance(routings: tuple[Routing, ...]) -> Tensor:
    if not routings:
        raise ConfigError("there is no gate to balance", where="balance", got="fuser without gates", expected=0)
    return torch.stack([load_balance(r) for r in routings]).mean()
