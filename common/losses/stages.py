"""Deep supervision: one loss for the logits of all decoder stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .segmentation import annotated_dice_ce

__all__ = ["StagedDiceCE", "at_stage", "stage_weights"]


def stage_weights(stages: int) -> tuple[float, ...]:
    """nnU-Net's weights of decoder stages, finest first: ``2^-s``, the coarsest 0, together 1.

    Args:
        stages: their number, >= 1; one alone has all the weight.
    """
    raw = [0.5**s for s in range(stages)]
    if stages > 1:
        raw[-1] = 0.0
    return tuple(w / sum(raw) for w in raw)


def at_stage(label: Tensor, size: Sequence[int]) -> Tensor:
    """A label map ``[B, 1, X, Y, Z]`` at a stage's size, each voxel the nearest one's."""
    if tuple(label.shape[2:]) == tuple(size):
        return label
    return F.interpolate(label.float(), tuple(size), mode="nearest-exact").to(label.dtype)


class StagedDiceCE(nn.Module):
    """``L = sum_s w_s (Dice + CE)(logits_s, label at s)`` over the classes that a case is annotated for.

    The loss of a student that learns from labels alone; its network gives a list in training and one map otherwise.

    Shape:
        prediction: list of ``[B, K+1, X, Y, Z]``, finest first, or one such tensor; target ``label [B, 1, X, Y, Z]``
        and ``annotated [B, K+1]``.
    """

    def forward(self, prediction: Tensor | Sequence[Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``loss``, and the ``dice`` and ``ce`` of the finest stage.

        Raises:
            LabelError: as :func:`~.segmentation.annotated_dice_ce`.
        """
        stages = [prediction] if isinstance(prediction, Tensor) else list(prediction)
        label, annotated = torch.as_tensor(target["label"]), target["annotated"]
        weighed = [(w, p) for w, p in zip(stage_weights(len(stages)), stages, strict=True) if w > 0]
        parts = [(w, annotated_dice_ce(p, at_stage(label, p.shape[2:]), annotated)) for w, p in weighed]
        loss = torch.stack([w * (found.dice + found.ce) for w, found in parts]).sum()
        return {"loss": loss, "dice": parts[0][1].dice, "ce": parts[0][1].ce}
