"""The refinement's loss against its parts."""

import pytest
import torch

from common.losses.refine import RefineLoss
from common.losses.segmentation import annotated_dice_ce


@pytest.mark.parametrize("shape", [(4, 4, 4), (6, 5)])
@pytest.mark.parametrize("exclusive", [True, False])
def test_dice_and_ce_of_volumes_and_pictures(shape, exclusive):
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3 if exclusive else 2, *shape), torch.randint(0, 3, (2, 1, *shape))
    target = {"label": label, "annotated": torch.ones(2, 3, dtype=torch.bool)}
    found = RefineLoss(exclusive=exclusive)(logits, target)
    deep = (logits, label) if len(shape) == 3 else (logits[..., None], label[..., None])
    dice, ce = annotated_dice_ce(*deep, target["annotated"], exclusive=exclusive)
    assert (
        torch.allclose(found["loss"], dice + ce) and torch.equal(found["dice"], dice) and torch.equal(found["ce"], ce)
    )


def test_logits_of_minus_infinity_do_not_count_where_nothing_is_annotated():
    logits = torch.randn(1, 3, 4, 4, 4)
    logits[:, 2] = -torch.inf
    logits.requires_grad_()
    target = {"label": torch.randint(0, 2, (1, 1, 4, 4, 4)), "annotated": torch.tensor([[True, True, False]])}
    loss = RefineLoss()(logits, target)["loss"]
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()
