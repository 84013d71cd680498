"""Deep supervision against a loop."""

from __future__ import annotations

import pytest
import torch

from common.errors import LabelError
from common.losses.segmentation import annotated_dice_ce
from common.losses.stages import StagedDiceCE, at_stage, stage_weights


@pytest.mark.parametrize(("stages", "expected"), [(1, [1]), (2, [1, 0]), (3, [2 / 3, 1 / 3, 0]),
                                                  (4, [4 / 7, 2 / 7, 1 / 7, 0])])  # fmt: skip
def test_weights_are_nnunets(stages: int, expected: list[float]) -> None:
    assert stage_weights(stages) == pytest.approx(expected)


def test_every_stage_is_judged_at_its_own_size() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (2, 1, 8, 8, 4), generator=generator)
    label[1][label[1] == 2] = 0
    annotated = torch.tensor([[True, True, True], [True, True, False]])
    sizes = [(8, 8, 4), (4, 4, 4), (2, 2, 2)]
    stages = [torch.randn(2, 3, *size, generator=generator, requires_grad=True) for size in sizes]
    found = StagedDiceCE()(stages, {"label": label, "annotated": annotated})
    expected = torch.zeros(())
    for weight, logits in zip((2 / 3, 1 / 3), stages, strict=False):
        step = [a // b for a, b in zip((8, 8, 4), logits.shape[2:], strict=True)]
        own = label[:, :, step[0] // 2 :: step[0], step[1] // 2 :: step[1], step[2] // 2 :: step[2]]
        assert torch.equal(at_stage(label, logits.shape[2:]), own)
        terms = annotated_dice_ce(logits, own, annotated)
        expected = expected + weight * (terms.dice + terms.ce)
    torch.testing.assert_close(found["loss"], expected)
    found["loss"].backward()
    assert stages[1].grad is not None and stages[1].grad.any() and stages[2].grad is None
    one = StagedDiceCE()(stages[0].detach(), {"label": label, "annotated": annotated})
    torch.testing.assert_close(one["loss"], one["dice"] + one["ce"])
    torch.testing.assert_close(one["dice"], found["dice"].detach())


def test_a_class_that_nobody_annotated_is_refused() -> None:
    label = torch.full((1, 1, 4, 4, 4), 2)
    with pytest.raises(LabelError, match="not annotated"):
        StagedDiceCE()(torch.zeros(1, 3, 4, 4, 4), {"label": label, "annotated": torch.tensor([[True, True, False]])})
