import pytest
import torch
from torch import nn

from common.errors import ExpertError
from common.experts.ensemble import ExpertEnsemble, finest_spacing
from common.experts.expert_set import ExpertSet
from common.experts.spec import ExpertSpec
from common.labels import LabelSpace


class Told(nn.Module):
    """An expert that answers what it was told."""

    def __init__(self, name, names, logits, spacing=None, exclusive=True):
        super().__init__()
        labels = LabelSpace(names, exclusive=exclusive)
        self.spec = ExpertSpec(name, "torchscript", "x.pt", labels, ("image",), task=name, spacing=spacing)
        self.answer, self.asked = logits, []

    def logits(self, raw, stats, spacing, axcodes):
        self.asked.append((tuple(stats.shape), spacing, axcodes))
        return self.answer.expand(raw.shape[0], -1, *raw.shape[2:])


LABELS = LabelSpace(("liver", "spleen", "atrium"))


def _logits(*values):
    return torch.tensor(values).float()[None, :, None, None, None]


def _ensemble(*experts):
    return ExpertEnsemble(experts=ExpertSet(experts), labels=LABELS, spacing=(1, 2, 3), axcodes="LPS")


def test_margins_are_means_over_the_experts_that_know_a_structure():
    ct = Told("ct", ("liver", "spleen"), torch.randn(1, 3, 4, 4, 4))
    mr = Told("mr", ("atrium", "liver"), torch.randn(1, 3, 4, 4, 4))
    got = _ensemble(ct, mr)(torch.zeros(2, 1, 4, 4, 4), torch.zeros(1, 1, 10))
    p, q = ct.answer.softmax(1)[0], mr.answer.softmax(1)[0]
    naive = torch.stack([0 * p[0], ((p[1] - p[0]) + (q[2] - q[0])) / 2, p[2] - p[0], q[1] - q[0]])
    assert torch.allclose(got[0], naive) and torch.equal(got[0], got[1])
    assert ct.asked == [((2, 1, 10), (1, 2, 3), "LPS")]


def test_an_expert_of_other_structures_does_not_outvote_the_one_that_knows():
    sure = Told("ct", ("liver", "spleen"), _logits(0.0, 1.0, -9.0))
    other = Told("heart", ("atrium",), _logits(9.0, -9.0))
    got = _ensemble(sure, other)(torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 1, 10))
    assert (got.argmax(1) == 1).all()


def test_one_expert_alone_decides_against_background():
    ct = Told("ct", ("liver", "spleen", "atrium"), torch.randn(1, 4, 5, 5, 5))
    got = _ensemble(ct)(torch.zeros(1, 1, 5, 5, 5), torch.zeros(1, 1, 10))
    assert torch.equal(got.argmax(1), ct.answer.argmax(1))


@pytest.mark.parametrize(
    ("experts", "words"),
    [
        ((), "needs experts"),
        ((Told("a", ("liver",), _logits(0.0, 0.0)),), "no expert knows"),
        ((Told("a", ("liver", "spleen", "atrium"), _logits(0.0, 0.0), exclusive=False),), "exclude each other"),
    ],
)
def test_what_cannot_be_put_together_is_refused(experts, words):
    with pytest.raises(ExpertError, match=words):
        _ensemble(*experts)


def test_the_finest_spacing_along_each_axis():
    a = Told("a", ("liver",), _logits(0.0, 0.0), spacing=(1.0, 2.0, 3.0))
    b = Told("b", ("liver",), _logits(0.0, 0.0), spacing=(2.0, 1.0, 3.0))
    none = Told("c", ("liver",), _logits(0.0, 0.0))
    assert finest_spacing(ExpertSet([a, b, none]), (9, 9, 9)) == [1.0, 1.0, 3.0]
    assert finest_spacing(ExpertSet([none]), (9, 9, 9)) == [9.0, 9.0, 9.0]
