"""KA2ER: what a step asks, what it learns, and what is left without experts.

Also the test of ``common.methods.ka2er.experts``.
"""

import copy

import pytest
import torch
from torch import nn

from common.errors import ConfigError, ExpertError, PromptError
from common.methods.ka2er.experts import expert_teacher
from common.methods.ka2er.loss import KA2ERLoss
from common.methods.ka2er.network import KA2ER, PROMPT_SOURCES, REGULARISERS
from common.prompts import boxes_from_label


def targets(batch):
    return {"label": batch["label"], "annotated": batch["annotated"]}


def step(network, batch, **options):
    network.train()
    terms = KA2ERLoss(**options)(network(**batch), targets(batch))
    terms["loss"].backward()
    return terms


def test_one_step_has_all_terms_and_shapes(make):
    network, batch = make.ka2er(), make.batch()
    network.train()
    out = network(**batch)
    assert out.logits.shape == out.student_logits.shape == (2, 4, 32, 32, 64)
    assert [t.shape for t in out.f_s] == [t.shape for t in out.f_m] == [(2, 2, 192)]
    assert out.expert_probabilities.shape == (2, 4, 32, 32, 64)
    torch.testing.assert_close(out.expert_probabilities.sum(1), torch.ones(2, 32, 32, 64))
    assert out.expert_classes.tolist() == [[True, True, True, False], [True, False, False, True]]
    assert out.attention is None
    terms = KA2ERLoss()(out, targets(batch))
    assert set(terms) == {"loss", "dice", "ce", "align", "reg", "student_dice", "student_ce", "student_reg"}
    want = terms["dice"] + terms["ce"] + terms["align"] + 0.1 * terms["reg"]
    want = want + 0.5 * (terms["student_dice"] + terms["student_ce"] + 0.1 * terms["student_reg"])
    torch.testing.assert_close(terms["loss"], want)


def test_only_the_batchs_own_experts_run_grouped_by_task(make):
    network = make.ka2er(reg="none", prompt_source="none", spacing=(1.5, 1.5, 2.0), axcodes="LPS")
    ct, mr, general = network.experts
    network(**make.batch((1, 1)))
    assert (ct.calls, mr.calls, general.calls) == (0, 1, 1)
    network(**make.batch((1, 0, 1)), spacing=(1.0, 1.0, 1.0))
    assert (ct.calls, mr.calls, general.calls) == (1, 2, 2)
    assert mr.seen == [(2, (1.5, 1.5, 2.0), "LPS"), (2, (1.0, 1.0, 1.0), "LPS")]
    assert ct.seen[0][0] == 1


def test_features_and_teacher_come_from_one_pass(make):
    network, batch = make.ka2er(prompt_source="none").eval(), make.batch((1, 0, 1))
    ct, mr, general = network.experts
    with torch.no_grad():
        out = network(**batch)
    assert (ct.calls, mr.calls, general.calls) == (1, 1, 1)
    crop = network._crop(batch["raw"], batch["stats"], batch["task_id"], None, None)
    alone = expert_teacher(network.experts, network.tasks, network.structures, crop)
    assert torch.equal(out.expert_probabilities, alone.probabilities)


def test_order_of_samples_does_not_matter(make):
    network, batch = make.ka2er(prompt_source="none").eval(), make.batch((1, 0, 1))
    order = [2, 0, 1]
    with torch.no_grad():
        out, moved = network(**batch), network(**{k: v[order] for k, v in batch.items()})
    torch.testing.assert_close(out.logits[order], moved.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out.expert_probabilities[order], moved.expert_probabilities)


def test_experts_are_no_part_of_the_network(make):
    network = make.ka2er()
    own = {id(p) for p in (*network.parameters(), *network.buffers())}
    assert not any(id(p) in own for e in network.experts for p in (*e.parameters(), *e.buffers()))
    assert not any("expert" in key for key in network.student.state_dict())
    assert not any(isinstance(m, type(next(iter(network.experts)))) for m in network.modules())
    with pytest.raises(ConfigError, match="part of the network"):
        make.ka2er(experts=nn.Identity())


def test_experts_are_unchanged_by_training(make):
    network, batch = make.ka2er(), make.batch()
    before, student = network.experts.fingerprint(), copy.deepcopy(network.student.state_dict())
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        step(network, batch)
        optimizer.step()
    assert network.experts.fingerprint() == before
    assert all(p.grad is None for e in network.experts for p in e.parameters())
    now = network.student.state_dict()
    frozen = {k for k in now if k.startswith("head.boxes.encoder.")}
    assert frozen
    assert {k for k in frozen if torch.equal(now[k], student[k])} == frozen
    assert not torch.equal(now["backbone.out.conv.conv.weight"], student["backbone.out.conv.conv.weight"])
    assert not torch.equal(now["head.classes"], student["head.classes"])


def test_every_trained_parameter_gets_a_gradient(make):
    network = make.ka2er(student=make.student(levels="multi"), prompt_dropout=0.0)
    step(network, make.batch())
    idle = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
    assert all(not p.requires_grad for p in network.student.head.boxes.encoder.parameters())


def test_align_reaches_the_student_alone_when_detached(make):
    network, batch = make.ka2er(reg="none", prompt_source="none"), make.batch()
    only_align = {"segmentation": 0.0, "student_path": 0.0, "reg": 0.0, "align": 1.0}
    step(network, batch, **only_align)
    assert all(p.grad is None or not p.grad.any() for p in network.amalgamation.parameters())
    assert network.student.attend[0].mlp.linear2.weight.grad.any()
    network.zero_grad()
    step(network, batch, align_detach=False, **only_align)
    assert any(p.grad.any() for p in network.amalgamation.parameters() if p.grad is not None)


def test_amalgamation_learns_from_the_amalgamated_path(make):
    network, batch = make.ka2er(reg="none", prompt_source="none"), make.batch()
    step(network, batch, align=0.0, student_path=0.0)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.amalgamation.parameters())
    assert network.amalgamation[0].experts[1].project.weight.grad.any()


def test_off_switch_is_the_student_alone(make):
    network, batch = make.ka2er(amalgamation=False, reg="none", prompt_dropout=0.0, box_jitter=0.0), make.batch()
    network.experts = None
    assert len(network.amalgamation) == 0
    network.train()
    out = network(**batch)
    assert out.f_m is out.f_s
    assert out.student_logits is None
    torch.testing.assert_close(out.logits, network.student(batch["image"], boxes_from_label(batch["label"], 3)))
    terms = KA2ERLoss()(out, targets(batch))
    assert set(terms) == {"loss", "dice", "ce"}


def test_the_students_path_is_what_inference_computes(make):
    network, batch = make.ka2er(prompt_source="none"), make.batch()
    network.train()
    out = network(**batch)
    torch.testing.assert_close(out.student_logits, network.student(batch["image"]))
    assert not torch.allclose(out.student_logits, out.logits)
    network.eval()
    assert network(**batch).student_logits is None


def test_the_initial_student_may_be_the_only_teacher(make):
    network = make.ka2er(experts=False, amalgamation=False, reg="kl_init", prompt_source="none")
    terms = step(network, make.batch())
    assert set(terms) == {"loss", "dice", "ce", "reg"}
    assert float(terms["reg"]) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("use", [("task",), ("external",), ("task", "external")])
def test_sources(make, use):
    network = make.ka2er(use=use, reg="none", prompt_source="none")
    network(**make.batch())
    ct, mr, general = network.experts
    assert (ct.calls > 0, mr.calls > 0, general.calls > 0) == ("task" in use, "task" in use, "external" in use)


@pytest.mark.parametrize("levels, count", [("bottleneck", 1), ("multi", 2)])
def test_levels(make, levels, count):
    network = make.ka2er(student=make.student(levels=levels))
    terms = step(network, make.batch())
    assert len(network.amalgamation) == count
    assert terms["loss"].isfinite()


def test_three_levels_need_three_feature_maps(make):
    with pytest.raises(ExpertError, match="too few feature maps"):
        make.ka2er(student=make.student(levels="multi_eighth"))


@pytest.mark.parametrize("reg", REGULARISERS)
def test_regularisers(make, reg):
    network, batch = make.ka2er(reg=reg), make.batch()
    terms = step(network, batch)
    assert ("reg" in terms) == (reg != "none")
    if reg == "kl_init":
        assert any(k.startswith("initial.") for k in network.state_dict())
        assert not any(p.requires_grad for p in network.initial.parameters())
        assert not network.initial.training
        network.eval()
        out = network(**batch)
        assert out.expert_classes.all()
        torch.testing.assert_close(out.expert_probabilities.sum(1), torch.ones(2, 32, 32, 64))


def test_expert_probabilities_land_at_their_names(make):
    network, batch = make.ka2er(prompt_source="none").eval(), make.batch((1,))
    with torch.no_grad():
        out = network(**batch)
        mr = network.experts.for_task("mr")
        p = mr.logits(batch["raw"], batch["stats"], (1, 1, 1)).softmax(1)
    torch.testing.assert_close(out.expert_probabilities[:, 3], p[:, 1])
    torch.testing.assert_close(out.expert_probabilities[:, 0], p[:, 0] + p[:, 2])
    assert not out.expert_probabilities[:, 1:3].any()


@pytest.mark.parametrize("source", PROMPT_SOURCES)
def test_prompt_sources(make, source):
    network, batch = make.ka2er(prompt_source=source).eval(), make.batch()
    boxes = torch.full((2, 3, 2, 3), torch.nan)
    boxes[:, 0] = torch.tensor([[0.0, 0, 0], [9, 9, 9]])
    seen = []
    network.student.head.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    with torch.no_grad():
        network(**batch, boxes=boxes)
    if source == "none":
        assert seen[0] is None
    elif source == "user":
        torch.testing.assert_close(seen[0], boxes, equal_nan=True)
    else:
        assert seen[0].shape == (2, 3, 2, 3)
        known = ~seen[0].isnan().any(-1).any(-1)
        allowed = batch["annotated"][:, 1:]
        assert known.any()
        assert not (known & ~allowed).any()
    if source == "gt":
        assert seen[0][0, 0].tolist() == [[4, 6, 10], [11, 19, 39]]


def test_boxes_move_and_hide_in_training_only(make):
    network, batch = make.ka2er(prompt_dropout=1.0), make.batch()
    seen = []
    network.student.head.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    network.train()
    network(**batch)
    network.prompt_dropout = 0.0
    network(**batch)
    network.eval()
    network(**batch)
    assert seen[0].isnan().all()
    moved, still = seen[2], seen[-1]
    known = ~still.isnan()
    assert torch.equal(known, ~moved.isnan())
    assert not torch.equal(moved[known], still[known])
    assert ((moved - still)[known].abs() <= 2).all()


def test_weights_of_attention_leave_the_result_alone(make):
    network, batch = make.ka2er(prompt_source="none").eval(), make.batch()
    with torch.no_grad():
        plain, shown = network(**batch), network(**batch, need_weights=True)
    torch.testing.assert_close(plain.logits, shown.logits, atol=1e-4, rtol=1e-4)
    assert [m.task for m in shown.attention[0]] == [0, 1, -1]
    pictures = network.attention_pictures(batch["image"], batch["raw"], batch["stats"], batch["task_id"])
    assert {k: v.shape for k, v in pictures.items()} == dict.fromkeys(("task", "external"), (2, 1, 32, 32, 64))
    assert all(float(v.mean()) == pytest.approx(1, rel=0.2) for v in pictures.values())


def test_overlapping_structures_to_the_letter_of_the_paper(make):
    network = make.ka2er(student=make.student(exclusive=False, fuse_at="map"), student_path=False)
    terms = step(network, make.batch(), exclusive=False, student_path=0.0, align_kind="l2", align_detach=False)
    assert set(terms) == {"loss", "dice", "ce", "align", "reg"}
    assert terms["loss"].isfinite()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"reg": "l2"}, "reg"),
        ({"prompt_source": "click"}, "prompt_source"),
        ({"prompt_dropout": 2.0}, "prompt_dropout"),
        ({"box_jitter": -1.0}, "box_jitter"),
        ({"use": ()}, "use"),
        ({"experts": False}, "no experts"),
        ({"experts": False, "amalgamation": False, "prompt_source": "expert", "reg": "none"}, "no experts"),
    ],
)
def test_bad_options(make, options, message):
    with pytest.raises(ConfigError, match=message):
        make.ka2er(**options)


def test_structures_and_tasks_must_fit(make):
    with pytest.raises(ConfigError, match="structures"):
        KA2ER(student=make.student(num_structures=2), experts=make.experts(), tasks=("ct",), structures=("a",))
    with pytest.raises(ExpertError, match="xray"):
        KA2ER(student=make.student(num_structures=1), experts=make.experts(), tasks=("xray",), structures=("a",))
    with pytest.raises(ConfigError, match="external"):
        two = [e for e in make.experts() if e.spec.role == "task"]
        make.ka2er(experts=type(make.experts())(two))


def test_missing_keys_are_named(make):
    network, batch = make.ka2er(), make.batch()
    with pytest.raises(ConfigError, match="raw, stats"):
        network(batch["image"], task_id=batch["task_id"])
    with pytest.raises(PromptError, match="label"):
        network(**{**batch, "label": None})
    with pytest.raises(ConfigError, match="task ids"):
        network(**{**batch, "task_id": torch.tensor([0, 2])})
