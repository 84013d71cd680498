"""The loss over a session, written out."""

from typing import NamedTuple

import pytest
import torch

from common.engine.interactive.prompting import Step
from common.errors import ConfigError
from common.methods.sam_med3d_moe.loss import SessionLoss


class Output(NamedTuple):
    steps: list[Step]


def session(steps=3, batch=4, experts=2, gate=None):
    """Random answers; ``gate`` is ``general`` (m+1 logits), ``literal`` (m) or None."""
    torch.manual_seed(0)
    found = []
    for _ in range(steps):
        logits = torch.randn(batch, 1, 8, 8, 8, requires_grad=True)
        routed = None if gate is None else torch.randn(batch, experts + (gate == "general"), requires_grad=True)
        scores = None if routed is None else routed.softmax(1)
        if gate == "literal":
            scores = torch.cat([torch.zeros(batch, 1), scores], 1)
        found.append(Step(logits, logits, torch.zeros(batch, 0, 3), torch.zeros(batch, 0), True, scores, None, routed))
    label = (torch.rand(batch, 1, 8, 8, 8) > 0.7).float()
    return Output(found), {"label": label, "expert": torch.tensor([0, 2, 1, 0])[:batch]}


def dice_ce(logits, label):
    """``1 - 2 Σ p y / (Σ p² + Σ y²)`` plus cross entropy, sample by sample."""
    total = 0.0
    for z, y in zip(logits.flatten(1).double(), label.flatten(1).double(), strict=True):
        p = 1 / (1 + (-z).exp())
        dice = 1 - (2 * (p * y).sum() + 1e-5) / ((p * p).sum() + (y * y).sum() + 1e-5)
        cross = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
        total = total + dice + cross
    return total / len(logits)


def cross_entropy(logits, wanted):
    chosen = [z.double().exp()[w] / z.double().exp().sum() for z, w in zip(logits, wanted, strict=True)]
    return -torch.stack(chosen).log().mean()


def close(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
def test_masks_are_summed_over_steps(mean, batch):
    output, target = session(batch=batch)
    terms = SessionLoss(mean=mean)(output, target)
    every = [dice_ce(s.logits, target["label"]) for s in output.steps]
    assert set(terms) == {"loss", "mask"} and torch.equal(terms["loss"], terms["mask"])
    close(terms["mask"], sum(every) / (3 if mean else 1))
    close(SessionLoss(mean=mean)(output, target["label"])["mask"], sum(every) / (3 if mean else 1))  # an expert's


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_the_gate_learns_whom_it_should_have_asked(mean, weight):
    output, target = session(gate="general")
    terms = SessionLoss(gate=weight, mean=mean)(output, target)
    gate = sum(cross_entropy(s.gate, target["expert"]) for s in output.steps) / (3 if mean else 1)
    close(terms["gate"], gate)
    close(terms["loss"], terms["mask"] + weight * gate)
    terms["loss"].backward()
    assert all(s.logits.grad is not None and s.gate.grad is not None for s in output.steps)


def test_the_literal_gate_learns_from_samples_that_have_an_expert():
    output, target = session(gate="literal")
    terms = SessionLoss()(output, target)
    expected = sum(cross_entropy(s.gate[1:3], [1, 0]) for s in output.steps)
    close(terms["gate"], expected)
    terms["loss"].backward()
    assert not output.steps[0].gate.grad[[0, 3]].any() and output.steps[0].gate.grad[1:3].any()


def test_without_such_samples_its_term_is_zero_and_can_be_differentiated():
    output, target = session(gate="literal")
    terms = SessionLoss()(output, {**target, "expert": torch.zeros(4, dtype=torch.int64)})
    assert float(terms["gate"].detach()) == 0 and torch.equal(terms["loss"], terms["mask"])
    terms["loss"].backward()
    assert not output.steps[0].gate.grad.any()


def test_a_weight_of_zero_leaves_the_masks():
    output, target = session(gate="general")
    assert set(SessionLoss(gate=0)(output, target)) == {"loss", "mask"}
    with pytest.raises(ConfigError, match="gate_weight"):
        SessionLoss(gate=-0.1)
