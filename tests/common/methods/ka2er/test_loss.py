import pytest
import torch

from common.errors import ConfigError
from common.losses.distillation import align, kl_divergence
from common.losses.segmentation import annotated_dice_ce
from common.methods.ka2er.loss import KA2ERLoss, KA2EROutputs


def outputs(student=True, teacher=True, same=False):
    f_s = (torch.randn(2, 3, 4), torch.randn(2, 5, 2))
    f_m = f_s if same else tuple(t + 0.1 for t in f_s)
    p = torch.randn(2, 3, 4, 4, 4).softmax(1) if teacher else None
    known = torch.ones(2, 3, dtype=torch.bool) if teacher else None
    logits, own = (torch.randn(2, 3, 4, 4, 4, requires_grad=True) for _ in range(2))
    return KA2EROutputs(logits, own if student else None, f_s, f_m, p, known, None)


TARGETS = {"label": torch.ones(2, 1, 4, 4, 4), "annotated": torch.tensor([[True, True, False]] * 2)}


@pytest.mark.parametrize(
    "weights", [{}, {"align": 3.0, "reg": 0.5, "student_path": 0.2, "segmentation": 2.0, "dice": 0.3}]
)
def test_the_sum_is_the_formula(weights):
    out = outputs()
    w = {"segmentation": 1.0, "align": 1.0, "reg": 0.1, "student_path": 0.5, "dice": 1.0, "ce": 1.0, **weights}

    def path(logits):
        dice, ce = annotated_dice_ce(logits, **TARGETS)
        kl = kl_divergence(logits, out.expert_probabilities, out.expert_classes, balanced=True)
        return w["segmentation"] * (w["dice"] * dice + w["ce"] * ce) + w["reg"] * kl

    want = path(out.logits) + w["align"] * align(out.f_s, out.f_m) + w["student_path"] * path(out.student_logits)
    torch.testing.assert_close(KA2ERLoss(**weights)(out, TARGETS)["loss"], want)


@pytest.mark.parametrize("balanced", [True, False])
def test_reg_is_the_divergence_asked_for(balanced):
    out = outputs()
    terms = KA2ERLoss(reg_balanced=balanced)(out, TARGETS)
    for logits, name in ((out.logits, "reg"), (out.student_logits, "student_reg")):
        want = kl_divergence(logits, out.expert_probabilities, out.expert_classes, balanced=balanced)
        torch.testing.assert_close(terms[name], want)


@pytest.mark.parametrize(("end", "done"), [(0.0, 0.5), (0.0, 1.0), (1.0, 0.25), (None, 0.7)])
def test_the_weight_of_reg_moves_to_its_end(end, done):
    scheduled, out = KA2ERLoss(reg=0.5, reg_end=end), outputs()
    scheduled.set_progress(done)
    weight = 0.5 if end is None else (1 - done) * 0.5 + done * end
    torch.testing.assert_close(scheduled(out, TARGETS)["loss"], KA2ERLoss(reg=weight)(out, TARGETS)["loss"])


def test_weaning_moves_weight_from_the_amalgamated_path_to_the_students():
    options, out = {"reg": 0.5, "align": 0.0}, outputs()
    fused = KA2ERLoss(student_path=0.0, **options)(out, TARGETS)["loss"]
    both = KA2ERLoss(student_path=1.0, **options)(out, TARGETS)["loss"]
    for wean, done in ((0.6, 0.0), (0.6, 0.5), (1.0, 1.0)):
        loss, share = KA2ERLoss(student_path=0.5, wean=wean, **options), wean * done
        loss.set_progress(done)
        wanted = (1 - share) * fused + (0.5 + share) * (both - fused)
        torch.testing.assert_close(loss(out, TARGETS)["loss"], wanted)
    alone = outputs(same=True, student=False, teacher=False)
    torch.testing.assert_close(loss(alone, TARGETS)["loss"], KA2ERLoss(student_path=0.0)(alone, TARGETS)["loss"])


@pytest.mark.parametrize("done", [-0.1, 1.1])
def test_progress_is_a_share(done):
    with pytest.raises(ConfigError, match="share of the training"):
        KA2ERLoss().set_progress(done)


def test_terms_follow_what_there_is():
    assert set(KA2ERLoss()(outputs(teacher=False), TARGETS)) == {
        "loss", "dice", "ce", "align", "student_dice", "student_ce",
    }  # fmt: skip
    assert set(KA2ERLoss()(outputs(same=True, student=False, teacher=False), TARGETS)) == {"loss", "dice", "ce"}
    assert set(KA2ERLoss(align=0.0, reg=0.0, student_path=0.0)(outputs(), TARGETS)) == {"loss", "dice", "ce"}


def test_a_weight_without_its_path_is_an_error_in_training_only():
    with pytest.raises(ConfigError, match="student_path"):
        KA2ERLoss()(outputs(student=False), TARGETS)
    with torch.no_grad():
        assert "student_dice" not in KA2ERLoss()(outputs(student=False), TARGETS)
    KA2ERLoss(student_path=0.0)(outputs(student=False), TARGETS)


@pytest.mark.parametrize(
    "options", [{"align": -1.0}, {"dice": -0.1}, {"align_kind": "l1"}, {"reg_end": -0.1}, {"wean": 1.1}, {"wean": -0.1}]
)
def test_bad_options(options):
    with pytest.raises(ConfigError):
        KA2ERLoss(**options)
