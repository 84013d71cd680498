"""The loss of stored answers against a naive twin, and what it is for: nobody's background erases another's organ."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from common.errors import ConfigError, ExpertError, LabelError
from common.experts.answers.record import expand, record, record_overlapping
from common.experts.answers.teaching import AnswersLoss, judge_of, width
from common.experts.spec import ExpertSpec
from common.labels import LabelSpace
from common.losses.marginal import marginal_dice, marginal_kl, region_loss, terms

NAMES = ("liver", "spleen", "aorta")


def spec(name: str, *structures: str, exclusive: bool = True) -> ExpertSpec:
    return ExpertSpec(
        name=name, kind="nnunet", path=name, role="external", channels=("CT",),
        labels=LabelSpace(structures, exclusive=exclusive),
    )  # fmt: skip


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def records(size: int, *classes: int, space: tuple[int, ...] = (4, 4, 4)) -> Tensor:
    """Answers of exclusive experts with so many classes each, background included."""
    return torch.cat(
        [torch.stack([record(3 * drawn(c, *space, seed=b * 10 + i)) for b in range(size)])
         for i, c in enumerate(classes)], 1,
    )  # fmt: skip


def batch(
    answers: Tensor, answered: list[list[bool]], labelled: list[bool], annotated: list[bool]
) -> dict[str, Tensor]:
    size = len(answers)
    label = torch.randint(0, 2, (size, 1, *answers.shape[2:]), generator=torch.Generator().manual_seed(3)).float()
    return {
        "label": label,
        "answers": answers,
        "answered": torch.tensor(answered),
        "labelled": torch.tensor(labelled),
        "annotated": torch.tensor([annotated] * size),
        "taught": torch.ones(size, len(annotated), dtype=torch.bool),
    }


@pytest.mark.parametrize("temperature, floor", [(1.0, 0.01), (2.0, 0.0)])
def test_every_sample_is_the_weighted_mean_of_those_who_speak_about_it(temperature: float, floor: float) -> None:
    experts = [spec("one", "spleen"), spec("two", "aorta", "liver")]
    loss = AnswersLoss(
        structures=NAMES, experts=experts, weights={"two": 3.0}, label_weight=2.0, temperature=temperature, floor=floor,
        dice=0.5,
    )  # fmt: skip
    logits, answers = drawn(3, 4, 4, 4, 4), records(3, 2, 3)
    who, labelled = [[True, True], [False, True], [False, False]], [True, False, True]
    targets = batch(answers, who, labelled, [True, True, False, False])
    found = loss(logits, targets)
    kl = dice = 0.0
    for b in range(3):
        spoken, total = [0.0, 0.0], 0.0
        for e, (known, weight) in enumerate([(("spleen",), 1.0), (("aorta", "liver"), 3.0)]):
            if who[b][e]:
                p, m = expand(answers[b : b + 1, 5 * e : 5 * e + 5], len(known)), terms(known, NAMES)
                one = marginal_kl(logits[b : b + 1], p, m, temperature=temperature, floor=floor)
                spoken = [spoken[0] + weight * one, spoken[1] + weight * marginal_dice(logits[b : b + 1], p, m)]
                total += weight
        if labelled[b]:  # the label knows the liver alone
            p = torch.nn.functional.one_hot(targets["label"][b : b + 1, 0].long(), 2).movedim(-1, 1)
            m = terms(("liver",), NAMES)
            one = marginal_kl(logits[b : b + 1], p, m, floor=0.0)
            spoken = [spoken[0] + 2 * one, spoken[1] + 2 * marginal_dice(logits[b : b + 1], p, m)]
            total += 2
        kl, dice = kl + spoken[0] / total / 3, dice + spoken[1] / total / 3
    assert float(found["kl"]) == pytest.approx(float(kl), rel=1e-4)
    assert float(found["dice"]) == pytest.approx(float(dice), rel=1e-4)
    assert float(found["loss"]) == pytest.approx(float(kl + 0.5 * dice), rel=1e-4)


def test_labels_alone_are_cross_entropy_and_dice() -> None:
    logits = drawn(2, 4, 4, 4, 4)
    targets = batch(records(2, 2), [[False]] * 2, [True] * 2, [True] * 4)
    found = AnswersLoss(structures=NAMES, experts=[spec("one", "liver")])(logits, targets)
    label = targets["label"][:, 0].long()
    assert float(found["kl"]) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, label)), rel=1e-4)
    p, t = logits.softmax(1), torch.nn.functional.one_hot(label, 4).movedim(-1, 1).float()
    both, own, true = ((x[:, 1:].flatten(2)).sum(2) for x in (p * t, p * p, t))
    assert float(found["dice"]) == pytest.approx(float(1 - ((2 * both + 1) / (own + true + 1)).mean()), rel=1e-4)


def test_regions_are_judged_by_their_sums() -> None:
    expert = spec("regions", "whole", "aorta", "unknown", exclusive=False)
    loss = AnswersLoss(structures=NAMES, experts=[expert], regions={"regions": {"whole": ["liver", "spleen"]}})
    logits = drawn(1, 4, 4, 4, 4)
    answers = record_overlapping(drawn(3, 4, 4, 4, seed=5))[None]
    found = loss(logits, batch(answers, [[True]], [False], [True] * 4))
    matrix = torch.tensor([[0.0, 1, 1, 0], [0, 0, 0, 1]])
    p = answers[:, :2].float() / 255
    assert float(found["kl"]) == pytest.approx(float(region_loss(logits, p, matrix)), rel=1e-4)
    q = torch.einsum("ek,bk...->be...", matrix, logits.softmax(1))
    both, own, true = (x.flatten(2).sum(2) for x in (p * q, p * p, q * q))
    assert float(found["dice"]) == pytest.approx(float(1 - ((2 * both + 1) / (own + true + 1)).mean()), rel=1e-4)
    assert judge_of(expert, NAMES).known == ("aorta",) and width(expert) == 3


def test_a_structure_that_the_student_has_not_is_background() -> None:
    expert = spec("more", "gallbladder", "liver")
    logits, answers = drawn(1, 4, 4, 4, 4), records(1, 3)
    found = AnswersLoss(structures=NAMES, experts=[expert])(logits, batch(answers, [[True]], [False], [True] * 4))
    p = expand(answers, 2)
    folded = torch.stack([p[:, 0] + p[:, 1], p[:, 2]], 1)
    assert float(found["kl"]) == pytest.approx(float(marginal_kl(logits, folded, terms(("liver",), NAMES))), rel=1e-4)


def test_lists_of_logits_are_held_against_the_nearest_voxels() -> None:
    loss = AnswersLoss(structures=NAMES, experts=[spec("one", "liver", "aorta")])
    fine, coarse = drawn(2, 4, 4, 4, 4), drawn(2, 4, 2, 2, 4, seed=1)
    targets = batch(records(2, 3), [[True], [False]], [False, True], [True] * 4)
    small = {**targets, **{k: targets[k][:, :, 1::2, 1::2] for k in ("label", "answers")}}
    found = float(loss([fine, coarse], targets)["loss"])
    expected = (float(loss(fine, targets)["loss"]) + 0.5 * float(loss(coarse, small)["loss"])) / 1.5
    assert found == pytest.approx(expected, rel=1e-5)
    assert float(loss(SimpleNamespace(logits=fine), targets)["loss"]) == float(loss(fine, targets)["loss"])


def test_parts_of_a_batch_add_up() -> None:
    loss = AnswersLoss(structures=NAMES, experts=[spec("one", "liver", "aorta")])
    logits, targets = drawn(2, 4, 4, 4, 4), batch(records(2, 3), [[True], [True]], [False, True], [True] * 4)
    whole = float(loss(logits, targets)["loss"])
    parts = [float(loss(logits[i : i + 1], {k: v[i : i + 1] for k, v in targets.items()})["loss"]) for i in range(2)]
    assert whole == pytest.approx(sum(parts) / 2, rel=1e-5)


def test_a_sample_that_nobody_speaks_about_teaches_nothing() -> None:
    logits = drawn(1, 4, 4, 4, 4).requires_grad_()
    found = AnswersLoss(structures=NAMES, experts=[spec("one", "liver")])(
        logits, batch(records(1, 2), [[False]], [False], [True] * 4)
    )
    found["loss"].backward()
    assert float(found["loss"].detach()) == 0 and not logits.grad.any()


def test_an_experts_background_does_not_erase_anothers_organ() -> None:
    """Two exact experts of one organ each: after free updates of the logits both organs are where they are."""
    truth = torch.zeros(4, 4, 4, dtype=torch.long)
    truth[0], truth[1] = 1, 2
    experts = [spec("one", "liver"), spec("two", "spleen")]
    sure = [torch.nn.functional.one_hot((truth == k).long(), 2).movedim(-1, 0) * 12.0 for k in (1, 2)]
    answers = torch.cat([record(s) for s in sure])[None]
    targets = batch(answers, [[True, True]], [False], [True] * 4)
    logits = torch.zeros(1, 4, 4, 4, 4, requires_grad=True)
    optimizer, loss = torch.optim.Adam([logits], lr=0.3), AnswersLoss(structures=NAMES, experts=experts)
    for _ in range(60):
        optimizer.zero_grad()
        loss(logits, targets)["loss"].backward()
        optimizer.step()
    known = logits.detach()[0, :3]  # nobody spoke of the third structure
    assert torch.equal(known.argmax(0), truth)


def test_a_class_that_nobody_teaches_in_a_modality_takes_no_background_over() -> None:
    """Two modalities share a background: what only the first knows stays out of the second's, and of the shared one."""
    experts = [spec("one", "liver", "spleen"), spec("two", "aorta")]
    space = (4, 4, 4)
    sure = record(torch.stack([torch.full(space, 12.0), *[torch.zeros(space)] * 2]))  # all is background
    alone = record(torch.stack([torch.full(space, 12.0), torch.zeros(space)]))
    answers = torch.stack([torch.cat([sure, torch.zeros_like(alone)]), torch.cat([torch.zeros_like(sure), alone])])
    targets = batch(answers, [[True, False], [False, True]], [False, False], [True] * 4)
    loss, logits = AnswersLoss(structures=NAMES, experts=experts), torch.zeros(1, 4, 1, 1, 1)
    logits[0, 2] = 2.0  # the spleen has a start in the features that both backgrounds share
    moved = {}
    for key, taught in (("all", [[True] * 4] * 2), ("own", [[True, True, True, False], [True, False, False, True]])):
        shared = logits.clone().requires_grad_()
        loss(shared.expand(2, -1, *space), {**targets, "taught": torch.tensor(taught)})["loss"].backward()
        moved[key] = shared.grad[0, :, 0, 0, 0]
    other = logits.clone().requires_grad_()  # what the first modality's expert alone asks of the spleen
    first = {k: v[:1] for k, v in targets.items()}
    loss(other.expand(1, -1, *space), {**first, "taught": torch.tensor([[True, True, True, False]])})["loss"].backward()
    assert float(moved["own"][2]) == pytest.approx(float(other.grad[0, 2]) / 2, rel=1e-5)
    assert float(moved["all"][2]) < float(moved["own"][2]), "without it the second modality pulls the spleen up"


def test_what_speaks_about_a_sample_is_allowed_whatever_its_modality_was_found_to_show() -> None:
    experts, logits = [spec("one", "liver", "spleen")], drawn(2, 4, 4, 4, 4)
    targets = batch(records(2, 3), [[True], [False]], [False, True], [True, False, False, True])
    targets["label"] = targets["label"] * 3
    nothing = {**targets, "taught": torch.zeros(2, 4, dtype=torch.bool)}
    found = AnswersLoss(structures=NAMES, experts=experts)(logits, nothing)
    cut = logits.clone()
    cut[0, 3] = cut[1, 1] = cut[1, 2] = -1e4
    assert float(found["loss"]) == pytest.approx(
        float(AnswersLoss(structures=NAMES, experts=experts)(cut, targets)["loss"]), rel=1e-5
    )


@pytest.mark.parametrize(
    "given", [{"weights": {"other": 1.0}}, {"regions": {"other": {}}}, {"label_weight": -1.0}, {"temperature": 0.0},
              {"floor": 1.0}, {"weights": {"one": -1.0}}, {"dice": -1.0}],
)  # fmt: skip
def test_impossible_settings(given: dict) -> None:
    with pytest.raises(ConfigError):
        AnswersLoss(structures=NAMES, experts=[spec("one", "liver")], **given)


@pytest.mark.parametrize(
    "expert, regions", [(spec("e", "kidney"), {}), (spec("e", "liver"), {"liver": ["liver"]}),
                        (spec("e", "whole", exclusive=False), {"other": ["liver"]}),
                        (spec("e", "whole", exclusive=False), {"whole": ["kidney"]})],
)  # fmt: skip
def test_experts_that_teach_nothing(expert: ExpertSpec, regions: dict) -> None:
    with pytest.raises(ExpertError, match="'e'"):
        judge_of(expert, NAMES, regions)


def test_what_does_not_fit_is_refused() -> None:
    loss = AnswersLoss(structures=NAMES, experts=[spec("one", "liver")])
    targets = batch(records(1, 2), [[True]], [True], [True, False, True, True])
    with pytest.raises(LabelError, match="not annotated"):
        loss(drawn(1, 4, 4, 4, 4), targets)
    with pytest.raises(LabelError, match="out of range"):
        loss(drawn(1, 4, 4, 4, 4), {**targets, "label": targets["label"] + 7})
    with pytest.raises(LabelError, match="annotates no structure"):
        nothing = {"label": targets["label"] * 0, "annotated": torch.tensor([[True, False, False, False]])}
        loss(drawn(1, 4, 4, 4, 4), {**targets, **nothing})
    with pytest.raises(ConfigError, match="one logit"):
        loss(drawn(1, 3, 4, 4, 4), targets)
    with pytest.raises(ConfigError, match="answers"):
        loss(drawn(1, 4, 4, 4, 4), {**targets, "answers": targets["answers"][:, :4]})
