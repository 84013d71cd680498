"""The loss over a clicking session: masks at every step, and whom the gate should have asked."""

from __future__ import annotations

from typing import Any

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError

__all__ = ["SessionLoss"]


class SessionLoss(nn.Module):
    """``L = Σ_t DiceCE(M_t, y) + w Σ_t CE(gate_t, expert)``.

    DiceCE is MONAI's with a sigmoid and squared predictions, at the crop's size. The second term exists for mixtures
    alone; without a general logit, samples of no expert have no part in it.

    Args:
        gate: weight w, >= 0.
        mean: over the steps in the place of the sum, so that sessions of any length weigh alike.

    Raises:
        ConfigError: for a negative weight.

    Reference:
        SAM-Med3D's public code (sum over 11 clicks); SAM-Med3D-MoE, section 2.2 (cross entropy of the expert).
    """

    def __init__(self, *, gate: float = 1.0, mean: bool = False) -> None:
        super().__init__()
        if gate < 0:
            raise ConfigError("a loss has a weight >= 0", where="gate_weight", got=gate)
        self.gate, self.mean = gate, mean
        self.mask = DiceCELoss(sigmoid=True, squared_pred=True)

    def forward(self, output: Any, target: Any) -> dict[str, Tensor]:
        """The terms.

        Args:
            output: has ``steps``.
            target: ``{"label": [B, 1, S, S, S], "expert": [B]}``, or the label map alone.

        Returns:
            ``loss``, ``mask`` and, with a gate, ``gate``.
        """
        label = target["label"] if isinstance(target, dict) else target
        masks = torch.stack([self.mask(step.logits, label) for step in output.steps])
        mask = masks.mean() if self.mean else masks.sum()
        gates = [step.gate for step in output.steps if step.gate is not None]
        if not gates or not self.gate:
            return {"loss": mask, "mask": mask}
        each = torch.stack([_choice(step.gate, step.scores, target["expert"]) for step in output.steps])
        gate = each.mean() if self.mean else each.sum()
        return {"loss": mask + self.gate * gate, "mask": mask, "gate": gate}


def _choice(logits: Tensor, scores: Tensor, expert: Tensor) -> Tensor:
    if logits.shape[1] == scores.shape[1]:
        return F.cross_entropy(logits, expert)
    known = expert > 0  # the text's gate knows specific experts only
    return F.cross_entropy(logits[known], expert[known] - 1) if bool(known.any()) else logits.sum() * 0
