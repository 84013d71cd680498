import math
import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from common.engine.run.distributed import start
from common.errors import ConfigError
from common.losses.contrastive import nt_xent, semantic_guided


def naive(first, second, temperature):
    z = [v / math.sqrt(sum(x * x for x in v)) for v in [torch.tensor(v) for v in [*first.tolist(), *second.tolist()]]]
    n, total = len(first), 0.0
    for i in range(2 * n):
        j = i + n if i < n else i - n
        scores = {k: math.exp(float(z[i] @ z[k]) / temperature) for k in range(2 * n) if k != i}
        total -= math.log(scores[j] / sum(scores.values()))
    return total / (2 * n)


@pytest.mark.parametrize("samples, width", [(2, 3), (5, 8), (7, 1)])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_equals_the_loop(samples, width, temperature):
    first, second = torch.randn(samples, width), torch.randn(samples, width)
    got = float(nt_xent(first, second, temperature=temperature))
    assert got == pytest.approx(naive(first, second, temperature), rel=1e-4)


def test_vectors_that_are_all_alike():
    same = torch.ones(4, 6)
    assert float(nt_xent(same, same)) == pytest.approx(math.log(7), rel=1e-5)


def test_length_does_not_matter_and_the_order_of_views_neither():
    first, second = torch.randn(4, 6), torch.randn(4, 6)
    assert torch.allclose(nt_xent(first, second), nt_xent(3 * first, 0.1 * second))
    assert torch.allclose(nt_xent(first, second), nt_xent(second, first))
    assert nt_xent(first, first, temperature=0.1) < nt_xent(first, second, temperature=0.1)


@pytest.mark.parametrize(
    "first, second, temperature",
    [(torch.ones(2, 3), torch.ones(2, 3), 0.0), (torch.ones(2, 3), torch.ones(3, 3), 0.1),
     (torch.ones(1, 3), torch.ones(1, 3), 0.1), (torch.ones(3), torch.ones(3), 0.1)],
)  # fmt: skip
def test_what_makes_no_sense(first, second, temperature):
    with pytest.raises(ConfigError):
        nt_xent(first, second, temperature=temperature)


def test_two_processes_compute_what_one_would(monkeypatch):
    """With what the others gathered put in by hand; the slow test gathers."""
    whole = torch.randn(2, 4, 5)
    first, second = (v.clone().requires_grad_() for v in whole)
    loss = nt_xent(first, second)
    loss.backward()
    shared = whole.clone().requires_grad_()  # what each process's part of the graph leads to
    losses = []
    for rank in (0, 1):
        every = torch.nn.functional.normalize(shared, dim=2)
        monkeypatch.setattr("common.losses.contrastive._every_process", lambda own, e=every, r=rank: (e, r))
        losses.append(nt_xent(*shared[:, 2 * rank : 2 * rank + 2]))
    (sum(losses) / 2).backward()
    assert torch.allclose(sum(losses) / 2, loss, atol=1e-6)
    assert torch.allclose(shared.grad, torch.stack([first.grad, second.grad]), atol=1e-6)


def _process(rank, port, whole, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    start("cpu")
    first, second = (v[2 * rank : 2 * rank + 2].clone().requires_grad_() for v in whole)
    loss = nt_xent(first, second)
    loss.backward()
    results[rank] = (loss.detach(), first.grad / 2, second.grad / 2)  # DDP averages over processes
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.selected
def test_gradients_travel_between_processes():
    whole = tuple(torch.randn(2, 4, 5))
    first, second = (v.clone().requires_grad_() for v in whole)
    loss = nt_xent(first, second)
    loss.backward()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_process, args=(port, whole, results), nprocs=2)
        parts = [results[0], results[1]]
    assert torch.allclose(torch.stack([p[0] for p in parts]).mean(), loss.detach(), atol=1e-6)
    assert torch.allclose(torch.cat([p[1] for p in parts]), first.grad, atol=1e-6)
    assert torch.allclose(torch.cat([p[2] for p in parts]), second.grad, atol=1e-6)


def guided_naive(fg, bg, pull, push, index):
    """Equations 6 to 9, token by token."""

    def apart(a, b):
        total, count = 0.0, 0
        for x, y in zip(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]), strict=True):
            total += float((x / x.norm() - y / y.norm()).abs().sum())
            count += 1
        return total / count

    near, far = (0, 2) if index == "text" else (2, 0)
    one = sum(apart(fg[e], bg[e]) for e in range(4)) / 4
    two = [apart(pull[j], pull[near]) for j in range(4) if j != near]
    three = [apart(push[k], push[far]) for k in (1, 3)]
    two, three = sum(two) / len(two), sum(three) / len(three)
    return two / (one + three + 1e-6), one, two, three


@pytest.mark.parametrize("index", ["text", "equation"])
@pytest.mark.parametrize(("batch", "tokens", "width"), [(1, 1, 3), (2, 5, 8), (3, 4, 16)])
def test_semantic_guided_contrast_is_its_formula(index, batch, tokens, width):
    torch.manual_seed(batch)
    features = [torch.randn(4, batch, tokens, width) for _ in range(4)]
    found = semantic_guided(*features, index=index)
    assert [float(v) for v in found] == pytest.approx(guided_naive(*features, index), rel=1e-5)
    assert all(0 <= float(v) <= 2 * width**0.5 for v in found[1:])


def test_semantic_guided_contrast_pulls_and_pushes():
    features = [torch.randn(4, 2, 3, 8, requires_grad=True) for _ in range(4)]
    _fg, _bg, _pull, push = features
    before = semantic_guided(*features)
    before.loss.backward()
    moved = [(f - 1e-3 * f.grad).detach() for f in features]
    after = semantic_guided(*moved)
    assert after.pulled < before.pulled and after.pushed > before.pushed and after.separated > before.separated
    assert float(push.grad[0].abs().sum()) == 0  # the basic expert is neither pushed nor pushed from


def test_equal_experts_have_no_contrast():
    same = torch.randn(1, 2, 3, 8).expand(4, -1, -1, -1)
    assert float(semantic_guided(same, -same, same, same).loss) == 0


def test_semantic_guided_contrast_refuses_what_it_cannot_take():
    good = torch.randn(4, 1, 2, 3)
    for wrong in (
        ((good, good, good, good), {"index": "both"}),
        ((good, good, good, good), {"eps": 0}),
        ((good[:3],) * 4, {}),
        ((good, good, good, good[..., :2]), {}),
    ):
        with pytest.raises(ConfigError):
            semantic_guided(*wrong[0], **wrong[1])
