"""IC-MoE's objective: cross-entropy and Dice of the answer, and semantic-guided contrast of the experts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...losses.contrastive import SGCL_INDICES, semantic_guided
from ...losses.segmentation import DiceCE, annotated_dice_ce
from .network import ICMoEOutputs, with_background

__all__ = ["ICMoELoss"]


class ICMoELoss(nn.Module):
    """``L = a CE(P) + b Dice(P) + c SgCL + d sum_e (a CE(P_e) + b Dice(P_e))``.

    Args:
        ce: a >= 0; of one class it is the binary cross-entropy of its logit.
        dice: b >= 0.
        sgcl: c >= 0; 0 leaves SgCL out.
        aux_expert_loss: d >= 0, of each expert's own answer.
        sgcl_index: see :func:`~common.losses.contrastive.semantic_guided`.

    Raises:
        ConfigError: for a negative weight or an unknown index.

    Reference:
        IC-MoE, equations 9 to 11. None of the weights is given there.
    """

    def __init__(
        self,
        *,
        ce: float = 1.0,
        dice: float = 1.0,
        sgcl: float = 0.1,
        aux_expert_loss: float = 0.0,
        sgcl_index: str = "text",
    ) -> None:
        super().__init__()
        given = (ce, dice, sgcl, aux_expert_loss)
        if not min(given) >= 0:
            raise ConfigError("a weight of the loss is negative", where="ce, dice, sgcl, aux_expert_loss", got=given)
        if sgcl_index not in SGCL_INDICES:
            raise ConfigError("unknown index", where="sgcl_index", got=sgcl_index, expected=", ".join(SGCL_INDICES))
        self.ce, self.dice, self.sgcl, self.aux_expert_loss = ce, dice, sgcl, aux_expert_loss
        self.sgcl_index = sgcl_index

    def forward(self, outputs: ICMoEOutputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Judge a step.

        Args:
            outputs: of the network.
            targets: ``label`` ``[B, 1, S, S]`` class indices and ``annotated`` ``[B, K+1]`` bool (all when missing).

        Returns:
            ``loss`` and its terms ``dice``, ``ce``, and where they count ``sgcl`` with its distances and ``experts``.

        Raises:
            LabelError: for labels that do not fit.
            ConfigError: when SgCL is to count and the network has no maps for it.
        """
        dice, ce = _judge(outputs.logits, targets)
        terms = {"dice": dice.detach(), "ce": ce.detach()}
        loss = self.ce * ce + self.dice * dice
        if self.sgcl > 0:
            if outputs.contrast is None:
                raise ConfigError("the network has no maps for SgCL", where="sgcl", got=self.sgcl, expected=0)
            found = semantic_guided(*outputs.contrast, index=self.sgcl_index)
            loss = loss + self.sgcl * found.loss
            names = ("sgcl", "separated", "pulled", "pushed")
            terms |= {name: value.detach() for name, value in zip(names, found, strict=True)}
        if self.aux_expert_loss > 0:
            each = [_judge(logits, targets) for logits in outputs.experts]
            own = torch.stack([self.ce * e.ce + self.dice * e.dice for e in each]).sum()
            loss = loss + self.aux_expert_loss * own
            terms["experts"] = own.detach()
        return {"loss": loss, **terms}


def _judge(logits: Tensor, targets: Mapping[str, Tensor]) -> DiceCE:
    full, label = with_background(logits), targets["label"]
    annotated = targets.get("annotated")
    if annotated is None:
        annotated = torch.ones(full.shape[:2], dtype=torch.bool, device=full.device)
    return annotated_dice_ce(full[..., None], label[..., None], annotated)  # as volumes of one slice
