"""One map of several answers: the joint map's wherever that is clear, and where experts dispute."""

from __future__ import annotations

import torch

from common.experts.answers.joint import joint
from common.experts.answers.record import expand, record, record_overlapping
from common.experts.answers.teaching import judge_of
from common.experts.answers.together import one_map
from common.experts.spec import ExpertSpec
from common.labels import LabelSpace
from common.losses.marginal import terms

NAMES = ("liver", "spleen", "aorta")


def judge(*names: str, exclusive: bool = True, regions=None):
    spec = ExpertSpec(name="e", kind="nnunet", path="e", role="external", channels=("CT",),
                      labels=LabelSpace(names, exclusive=exclusive))  # fmt: skip
    return judge_of(spec, NAMES, regions)


def drawn(classes: int, seed: int) -> torch.Tensor:
    return record(4 * torch.randn(classes, 6, 6, 6, generator=torch.Generator().manual_seed(seed)))


def test_where_experts_dispute_the_joint_map_decides() -> None:
    judges = [judge("spleen", "liver"), judge("spleen", "kidney", "aorta")]  # the student learns no kidney
    answers = [drawn(3, 0), drawn(4, 1)]
    found = one_map(answers, judges, NAMES)
    p, q = (expand(a[None], n)[0] for a, n in zip(answers, (2, 3)))
    folded = torch.stack([q[0] + q[2], q[1], q[3]])
    whole = joint([p, folded], [terms(("spleen", "liver"), NAMES), terms(("spleen", "aorta"), NAMES)]).argmax(0)
    one, two = torch.tensor([0, 2, 1])[p.argmax(0)], torch.tensor([0, 2, 0, 3])[q.argmax(0)]
    contested = (one > 0) & (two > 0) & (one != two)
    assert contested.sum() > 10 and torch.equal(found.classes[contested], whole[contested])
    settled = torch.where(one > 0, one, two)
    assert torch.equal(found.classes[~contested], settled[~contested])
    assert found.disputed == {
        (NAMES[a - 1], NAMES[b - 1]): int(((one == a) & (two == b)).sum())
        for a in (1, 2) for b in (2, 3) if a != b and ((one == a) & (two == b)).any()
    }  # fmt: skip


def test_regions_say_the_structure_that_is_in_just_these() -> None:
    logits = torch.full((3, 4, 4, 4), -5.0)
    logits[0, 0], logits[1, :2], logits[2, 0] = 5.0, 5.0, 9.0
    logits[1, 2], logits[2, 2] = 5.0, 4.0
    regions = judge("aorta", "whole", "spleen", exclusive=False, regions={"whole": ["liver", "spleen"]})
    found = one_map([record_overlapping(logits)], [regions], NAMES)
    assert (found.classes[0] == 2).all(), "no structure is in all three: the likeliest that is a region by itself"
    assert (found.classes[1] == 1).all() and (found.classes[2] == 2).all(), "the whole without the spleen, and with it"
    assert not found.classes[3].any() and not found.disputed
    unknown = judge("aorta", "whole", exclusive=False, regions={"whole": ["liver", "spleen"]})
    found = one_map([record_overlapping(logits[:2])], [unknown], NAMES)
    assert (found.classes[0] == 3).all() and not found.classes[1:].any(), "the liver or the spleen: nobody knows which"
