"""Hierarchical attention against its equation token by token, its plans, windows and parameters."""

import math

import pytest
import torch
from torch import nn

from common.errors import ConfigError
from common.layers.fusion.hl_attention import LEVELS, CrossLevel, HLAttention, Step, by_window, fusion_plan


def cross(**options):
    torch.manual_seed(0)
    return CrossLevel(**{"channels": 6, "d_attn": 4, "heads": 2, **options}).double()


def normal(x):
    return (x - x.mean()) / (x.var(correction=0) + 1e-6).sqrt()


def naive_cross(module, x, context, window):
    """One query at a time, over the tokens of its own window."""
    batch, height, width, _ = x.shape
    out = torch.zeros_like(x)
    side = module.query.out_features // module.heads
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                rows = (
                    range(height)
                    if not window
                    else range(i // window * window, min(height, (i // window + 1) * window))
                )
                columns = (
                    range(width) if not window else range(j // window * window, min(width, (j // window + 1) * window))
                )
                q = module.query.weight @ normal(x[b, i, j])
                places = [context[b, r, c] for r in rows for c in columns]
                heard = []
                for h in range(module.heads):
                    part = slice(h * side, (h + 1) * side)
                    keys = [(module.key.weight @ normal(p))[part] for p in places]
                    values = [(module.value.weight @ normal(p))[part] for p in places]
                    logits = torch.stack([q[part] @ k / math.sqrt(side) for k in keys])
                    heard.append(sum(w * v for w, v in zip(logits.softmax(0), values, strict=True)))
                heard = torch.cat(heard) + (q if module.residual == "queries" else 0)
                said = module.out.weight @ heard
                out[b, i, j] = said + {"tokens": x[b, i, j], "normal": normal(x[b, i, j])}.get(module.residual, 0)
    return out


@pytest.mark.parametrize("window", [0, 2, 3, 9])
@pytest.mark.parametrize("residual", ["normal", "tokens", "queries", "none"])
def test_cross_attention_is_its_equation(residual, window):
    module = cross(residual=residual)
    x, context = torch.randn(2, 2, 5, 4, 6, dtype=torch.float64).unbind(0)
    assert torch.allclose(module(x, context, window), naive_cross(module, x, context, window), atol=1e-12)


@pytest.mark.parametrize("window", [0, 1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("grid", [(5, 4), (6, 6), (1, 7)])
def test_windows_hold_each_place_once(grid, window):
    x = torch.arange(2 * grid[0] * grid[1] * 3).double().view(2, *grid, 3)
    assert torch.equal(by_window([x], window, lambda part: part + 1), x + 1)
    sizes = by_window([x], window, lambda part: torch.full_like(part, part.shape[1]))[0, ..., 0]
    for i in range(grid[0]):
        for j in range(grid[1]):
            spans = [min(window or n, n) for n in grid]
            expected = math.prod(min(s, n - p // s * s) for p, s, n in zip((i, j), spans, grid, strict=True))
            assert sizes[i, j] == expected


PLANS = {
    ("2-1-1", "level"): (("patch", "pixel"), ("image", "fused")),
    ("1-1-2", "level"): (("image", "patch"), ("fused", "pixel")),
    ("1-2-1", "level"): (("image", "pixel"), ("fused", "patch")),
    ("2-1-1", "last"): (("patch", "pixel"), ("image", "fused")),
    ("1-1-2", "last"): (("image", "patch"), ("pixel", "fused")),
    ("1-2-1", "last"): (("image", "pixel"), ("patch", "fused")),
}


@pytest.mark.parametrize("case", PLANS, ids="/".join)
def test_plans(case):
    order, rule = case
    assert fusion_plan(LEVELS, order=order, query_rule=rule) == tuple(Step(*s) for s in PLANS[case])


def test_two_levels_have_one_step():
    assert fusion_plan(("pixel", "image")) == (Step("image", "pixel"),)
    assert fusion_plan(("image", "pixel"), order="1-1-2", query_rule="last") == (Step("pixel", "image"),)
    assert fusion_plan(("patch", "pixel"), query_rule="last") == (Step("patch", "pixel"),)


@pytest.mark.parametrize(
    ("levels", "options"),
    [
        (("image",), {}),
        (("image", "image"), {}),
        (("image", "voxel"), {}),
        (LEVELS, {"order": "1-2-3"}),
        (LEVELS, {"query_rule": "first"}),
    ],
)
def test_impossible_plans_are_refused(levels, options):
    with pytest.raises(ConfigError):
        fusion_plan(levels, **options)


@pytest.mark.parametrize("levels", [LEVELS, ("pixel", "image", "patch"), ("image", "pixel")])
@pytest.mark.parametrize("residual", ["queries", "tokens", "none"])
def test_levels_are_fused_by_the_plan(levels, residual):
    torch.manual_seed(1)
    module = HLAttention(channels=6, levels=levels, d_attn=4, heads=2, residual=residual).double()
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    signals = torch.randn(len(levels), 2, 3, 4, 6, dtype=torch.float64)
    own = dict(zip(levels, signals, strict=True))
    if len(levels) == 3:
        low = naive_cross(module.steps[0], own["patch"], own["pixel"], 2)
        expected = naive_cross(module.steps[1], own["image"], low, 2)
    else:
        expected = naive_cross(module.steps[0], own["image"], own["pixel"], 2)
    assert torch.allclose(module(signals, window=2).tokens, expected, atol=1e-12)


def test_self_attention_comes_before_each_question():
    torch.manual_seed(1)
    module = HLAttention(channels=6, d_attn=4, heads=2, self_attention=True).double()
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    image, patch, pixel = signals = torch.randn(3, 1, 2, 3, 6, dtype=torch.float64)
    low = naive_cross(module.steps[0], naive_cross(module.selves[0], patch, patch, 0), pixel, 0)
    expected = naive_cross(module.steps[1], naive_cross(module.selves[1], image, image, 0), low, 0)
    assert torch.allclose(module(signals).tokens, expected, atol=1e-12)


def test_it_starts_as_nothing_and_learns_from_the_first_step_on():
    signals = torch.randn(3, 1, 4, 4, 6)
    for options in ({}, {"residual": "none"}, {"self_attention": True}):
        assert bool((HLAttention(channels=6, d_attn=4, heads=2, **options)(signals).tokens == 0).all())
    asking = HLAttention(channels=6, d_attn=4, heads=2, residual="tokens")(signals).tokens
    assert torch.equal(asking, signals[0])
    module = HLAttention(channels=6, d_attn=4, heads=2)
    module(signals).tokens.sum().backward()
    assert bool((module.steps[-1].out.weight.grad != 0).any())


def test_untrained_experts_say_nothing():
    """Signals that are zero stay zero and finite whatever was learned."""
    module = HLAttention(channels=6, d_attn=4, heads=2)
    for p in module.parameters():
        nn.init.normal_(p)
    signals = torch.zeros(3, 1, 4, 4, 6, requires_grad=True)
    said = module(signals).tokens
    said.sum().backward()
    assert bool((said == 0).all()) and bool(signals.grad.isfinite().all())


def test_attention_maps_are_even_on_average():
    torch.manual_seed(0)
    module = HLAttention(channels=6, d_attn=4, heads=2)
    maps = module.asked(torch.randn(3, 2, 5, 4, 6), window=2)
    assert list(maps) == ["patch asks pixel", "image asks fused"]
    for values in maps.values():
        assert values.shape == (2, 5, 4) and torch.allclose(values.mean((1, 2)), torch.ones(2), atol=1e-5)
        assert torch.allclose(values[:, :2, :2].mean((1, 2)), torch.ones(2), atol=1e-5)  # one window


def test_attention_maps_are_the_weights_of_the_naive_way():
    module, (x, context) = cross(), torch.randn(2, 1, 2, 3, 6, dtype=torch.float64).unbind(0)
    total = torch.zeros(2, 3, dtype=torch.float64)
    for i in range(2):
        for j in range(3):
            q = module.query.weight @ normal(x[0, i, j])
            for h in (slice(0, 2), slice(2, 4)):
                keys = torch.stack([(module.key.weight @ normal(c))[h] for c in context[0].reshape(-1, 6)])
                total += (keys @ q[h] / math.sqrt(2)).softmax(0).view(2, 3)
    assert torch.allclose(module.asked(x, context)[0], total / 12 * 6)


def test_parameters_at_the_papers_size():
    """9.437 M in the twelve blocks of ViT-B, 11.0 M in the 24 blocks of Hiera-B+."""
    with torch.device("meta"):
        base = sum(p.numel() for _ in range(12) for p in HLAttention(channels=768).parameters())
        widths = [112] * 2 + [224] * 3 + [448] * 16 + [896] * 3
        hiera = sum(p.numel() for c in widths for p in HLAttention(channels=c).parameters())
    assert base == 9_437_184 and hiera == 11_010_048
    assert round((base + 2 * 147_456) / 1e6, 2) == 9.73 and round((hiera + 2 * 165_760) / 1e6, 1) == 11.3


@pytest.mark.parametrize("options", [{"d_attn": 5}, {"heads": 0}, {"d_attn": 0}, {"residual": "sum"}])
def test_impossible_attention_is_refused(options):
    with pytest.raises(ConfigError):
        cross(**options)


def test_a_missing_signal_is_refused():
    with pytest.raises(ConfigError, match="one signal per level"):
        HLAttention(channels=6, d_attn=4, heads=2)(torch.zeros(2, 1, 4, 4, 6))
