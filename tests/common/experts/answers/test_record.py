"""Records keep what matters of an answer; the naive twin looks at one voxel after the other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from common.errors import ExpertError
from common.experts.answers.record import decide, expand, record, record_overlapping


def naive(logits: list[float]) -> tuple[list[int], list[float]]:
    """The record of one voxel, and what it says of every class."""
    total = sum(math.exp(v) for v in logits)
    p = [math.exp(v) / total for v in logits]
    order = sorted(range(1, len(p)), key=lambda k: -p[k])[:2]
    kept = [round(255 * p[0])]
    for k in order:
        kept += [k, round(255 * p[k])]
    kept += [0, 0] if len(order) == 1 else []
    kept[2] += p[order[0]] > p[0] and kept[2] == kept[0]
    told = {0: kept[0], **{k: kept[2 + 2 * i] for i, k in enumerate(order)}}
    rest = max(0, 255 - sum(told.values()))
    others = len(p) - len(told)
    full = [told.get(k, rest / others if others else 0) for k in range(len(p))]
    return kept, [v / sum(full) for v in full]


@pytest.mark.parametrize("structures", [1, 2, 3, 7])
def test_equal_to_the_naive_twin(structures: int) -> None:
    logits = 3 * torch.randn(structures + 1, 4, 3, 2, generator=torch.Generator().manual_seed(structures))
    answer = record(logits)
    full = expand(answer[None], structures)[0]
    for at in [(0, 0, 0), (1, 2, 1), (3, 0, 1), (2, 1, 0)]:
        kept, told = naive([float(v) for v in logits[(slice(None), *at)]])
        assert answer[(slice(None), *at)].tolist() == kept
        assert full[(slice(None), *at)].tolist() == pytest.approx(told, abs=1e-6)
    assert torch.allclose(full.sum(0), torch.ones(4, 3, 2))


def test_close_to_what_the_expert_said() -> None:
    """Two named structures and background are right to a step, the decision everywhere."""
    logits = 4 * torch.randn(6, 40, 40, 40, generator=torch.Generator().manual_seed(1))
    p, answer = logits.softmax(0), record(logits)
    full = expand(answer[None], 5)[0]
    named = torch.zeros_like(p, dtype=torch.bool).scatter_(0, answer[1::2].long(), True)
    named[0] = True
    assert float((full - p)[named].abs().max()) < 0.02
    assert torch.equal(decide(answer), logits.argmax(0).to(torch.uint8))


def test_regions_are_kept_each() -> None:
    logits = torch.tensor([[0.0], [-50.0], [50.0]])
    assert record_overlapping(logits).flatten().tolist() == [128, 0, 255]


@pytest.mark.parametrize(
    "answer, structures, message",
    [
        (torch.zeros(1, 4, 2, dtype=torch.uint8), 3, "not an expert's answer"),
        (torch.zeros(1, 5, 2), 3, "not an expert's answer"),
        (torch.full((1, 5, 2), 4, dtype=torch.uint8), 3, "does not know"),
    ],
)
def test_refusals(answer: Tensor, structures: int, message: str) -> None:
    with pytest.raises(ExpertError, match=message):
        expand(answer, structures)


def test_too_many_structures_are_refused() -> None:
    with pytest.raises(ExpertError, match="one to 255"):
        record(torch.zeros(257, 2))
