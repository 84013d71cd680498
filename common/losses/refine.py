"""The loss of a served network that goes on learning from corrected label maps."""

from __future__ import annotations

from collections.abc import Mapping

from monai.data import MetaTensor
from torch import Tensor, nn

from .segmentation import annotated_dice_ce

__all__ = ["RefineLoss"]


class RefineLoss(nn.Module):
    """``Dice + CE`` over annotated classes, of volumes or pictures.

    Args:
        exclusive: whether a voxel belongs to one structure at most.
    """

    def __init__(self, *, exclusive: bool = True) -> None:
        super().__init__()
        self.exclusive = exclusive

    def forward(self, logits: Tensor, target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Judge.

        Args:
            logits: ``[B, K+1, X, Y, Z]`` or ``[B, K+1, X, Y]``; K where structures overlap.
            target: ``label`` ``[B, 1, ...]`` and ``annotated`` ``[B, K+1]``.

        Returns:
            ``loss``, ``dice`` and ``ce``.

        Raises:
            LabelError: see :func:`~.segmentation.annotated_dice_ce`.
        """
        label = target["label"]
        logits, label = (t.as_tensor() if isinstance(t, MetaTensor) else t for t in (logits, label))
        if logits.ndim == 4:
            logits, label = logits[..., None], label[..., None]
        dice, ce = annotated_dice_ce(logits, label, target["annotated"], exclusive=self.exclusive)
        return {"loss": dice + ce, "dice": dice.detach(), "ce": ce.detach()}
