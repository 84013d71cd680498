import itertools

import pytest
import torch

from common.errors import ConfigError, ExpertError
from common.layers.attention.cross import sincos_position
from common.layers.fusion.amalgamation import ExpertFeatures, ExpertTokens, HierarchicalAmalgamation, attention_volume

GRID = (2, 1, 3)


def block(use=("task", "external"), local=True):
    return HierarchicalAmalgamation(
        channels=12,
        expert_channels={"ct": 5, "mr": 7},
        external_channels=4,
        heads=3,
        use=use,
        local=local,
    )


def question():
    f_s = torch.randn(3, 6, 12)
    answers = {
        1: ExpertFeatures(torch.tensor([0, 2]), torch.randn(2, 7, 1, 2, 2)),
        0: ExpertFeatures(torch.tensor([1]), torch.randn(1, 5, 2, 2, 2)),
    }
    return f_s, answers, torch.randn(3, 4, 1, 1, 2)


def naive_distance(grid, other):
    """Voxel centre by voxel centre."""
    rows = []
    for here in itertools.product(*map(range, grid)):
        row = []
        for there in itertools.product(*map(range, other)):
            axes = zip(here, there, grid, other, strict=True)
            row.append(sum((((i + 0.5) / n - (j + 0.5) / m) * min(n, m)) ** 2 for i, j, n, m in axes))
        rows.append(row)
    return torch.tensor(rows)


def naive(module, f_s, answers, external):
    """Sample by sample: first the task's expert, then the external one."""
    rows = []
    for b in range(f_s.shape[0]):
        x = f_s[b : b + 1]
        here = sincos_position(GRID, 12, x)
        sources = []
        if module.ask_task is not None:
            task, (row, features) = next(
                (t, (list(a.samples).index(b), a.features)) for t, a in answers.items() if b in a.samples
            )
            sources.append((module.ask_task, module.experts[task], features[row]))
        if module.ask_external is not None:
            sources.append((module.ask_external, module.external, external[b]))
        for ask, project, volume in sources:
            tokens = torch.stack([volume[:, i, j, k] for i, j, k in itertools.product(*map(range, volume.shape[1:]))])
            tokens = project.norm(project.project(tokens)) + project.embedding
            there = sincos_position(volume.shape[1:], 12, x)
            far = naive_distance(GRID, volume.shape[1:])
            x = ask(
                x, tokens[None], position=here, context_position=there, distance=far if ask.reach is not None else None
            ).tokens
        rows.append(x)
    return torch.cat(rows)


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("use", [("task",), ("external",), ("task", "external")])
def test_equals_the_loop_over_samples(use, local):
    module, (f_s, answers, external) = block(use, local=local), question()
    torch.testing.assert_close(module(f_s, GRID, answers, external).tokens, naive(module, f_s, answers, external))


def test_weights_do_not_change_the_result_and_name_their_expert():
    module, (f_s, answers, external) = block(), question()
    plain = module(f_s, GRID, answers, external)
    shown = module(f_s, GRID, answers, external, need_weights=True)
    torch.testing.assert_close(plain.tokens, shown.tokens)
    assert plain.attention == ()
    assert [m.task for m in shown.attention] == [1, 0, -1]
    assert [m.samples.tolist() for m in shown.attention] == [[0, 2], [1], [0, 1, 2]]
    assert [m.weights.shape[-1] for m in shown.attention] == [4, 8, 2]


def test_only_the_experts_heard_get_gradients():
    module, (f_s, _answers, external) = block(), question()
    only = {1: ExpertFeatures(torch.tensor([0, 1, 2]), torch.randn(3, 7, 1, 1, 1))}
    module(f_s, GRID, only, external).tokens.sum().backward()
    assert module.experts[0].project.weight.grad is None
    assert module.experts[1].project.weight.grad is not None
    assert module.external.project.weight.grad is not None


def test_state_has_no_unused_parts():
    assert not any("external" in k for k in block(("task",)).state_dict())
    assert not any("ask_task" in k or "experts" in k for k in block(("external",)).state_dict())


@pytest.mark.parametrize(
    "samples", [{0: [0, 1]}, {0: [0, 1, 2], 1: [2]}, {}, {0: [0, 1], 1: [1]}, {0: [1, 2, 3]}], ids=str
)
def test_samples_must_cover_the_batch_once(samples):
    module, (f_s, _, external) = block(), question()
    width = {0: 5, 1: 7}
    answers = {t: ExpertFeatures(torch.tensor(s), torch.randn(len(s), width[t], 1, 1, 1)) for t, s in samples.items()}
    with pytest.raises(ConfigError, match="do not match"):
        module(f_s, GRID, answers, external)


@pytest.mark.parametrize("use", [(), ("task", "task"), ("other",)])
def test_unknown_sources(use):
    with pytest.raises(ConfigError, match="sources"):
        block(use)


def test_external_must_exist():
    with pytest.raises(ConfigError, match="external"):
        HierarchicalAmalgamation(channels=12, expert_channels={"ct": 5}, external_channels=None, heads=3)
    module, (f_s, answers, external) = block(), question()
    for wrong in (None, external[:2]):
        with pytest.raises(ConfigError, match="external"):
            module(f_s, GRID, answers, wrong)


def test_wrong_feature_width():
    tokens = ExpertTokens(expert_channels=5, channels=12)
    for wrong in (torch.zeros(1, 4, 2, 2, 2), torch.zeros(1, 5, 2, 2)):
        with pytest.raises(ExpertError, match="features"):
            tokens(wrong)


def test_attention_volume():
    even = attention_volume(torch.full((2, 3, 5, 8), 1 / 8), (2, 2, 2), (4, 6, 8))
    assert even.shape == (2, 1, 4, 6, 8)
    torch.testing.assert_close(even, torch.ones_like(even))
    corner = torch.zeros(1, 1, 1, 8)
    corner[..., 0] = 1
    assert attention_volume(corner, (2, 2, 2), (4, 4, 4)).argmax() == 0
    with pytest.raises(ConfigError):
        attention_volume(corner, (2, 2, 3), (4, 4, 4))
