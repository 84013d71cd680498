"""Attention on real tokens against segment-anything's padded windows, and against a naive padded twin in 3-D."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from segment_anything.modeling.image_encoder import Attention, get_rel_pos, window_partition, window_unpartition
from torch import nn

from common.errors import ConfigError
from common.layers.attention.sam import AxisBias, DecomposedAttention, axis_positions, axis_scores, padding_score

# remainders along one and both axes, none, larger windows than the grid (also along one axis), the whole grid
CASES = [((4, 4), 3), ((7, 5), 3), ((6, 3), 3), ((2, 2), 5), ((1, 7), 4), ((5, 6), 0)]


def attention(grid, window, bias=True, positions=True):
    torch.manual_seed(0)
    size = grid if window == 0 else (window, window)
    module = Attention(8, num_heads=2, qkv_bias=bias, use_rel_pos=positions, input_size=size).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.7)
    return module


def padded(module, x, window):
    if window == 0:
        return module(x)
    windows, size = window_partition(x, window)
    return window_unpartition(module(windows), window, size, x.shape[1:3])


def naive(x, qkv, proj, tables, window, heads):
    """Padded windows in any number of dimensions, one query at a time; the bias as an explicit sum over axes."""
    grid = x.shape[1:-1]
    whole = [-(-n // window) * window for n in grid]
    full = x.new_zeros(x.shape[0], *whole, x.shape[-1])
    full[(slice(None), *(slice(0, n) for n in grid))] = x
    out = torch.empty_like(full)
    offsets = list(itertools.product(range(window), repeat=len(grid)))
    for corner in itertools.product(*(range(0, n, window) for n in whole)):
        place = (slice(None), *(slice(c, c + window) for c in corner))
        q, k, v = qkv(full[place].flatten(1, -2)).unflatten(-1, (3, heads, -1)).unbind(2)
        logits = torch.einsum("bihc,bjhc->bhij", q * q.shape[-1] ** -0.5, k)
        for i, j in itertools.product(range(len(offsets)), repeat=2):
            for axis, table in enumerate(tables):
                row = table[offsets[i][axis] - offsets[j][axis] + window - 1]
                logits[:, :, i, j] = logits[:, :, i, j] + q[:, i] @ row
        attended = torch.einsum("bhij,bjhc->bihc", logits.softmax(-1), v).flatten(2)
        out[place] = proj(attended).unflatten(1, [window] * len(grid))
    return out[(slice(None), *(slice(0, n) for n in grid))]


def close(a, b, tolerance=1e-11):
    assert a.shape == b.shape
    assert ((a - b).abs().max() / b.abs().max().clamp_min(1e-9)).item() < tolerance


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"positions": False}], ids=str)
@pytest.mark.parametrize(("grid", "window"), CASES)
def test_equals_segment_anything_with_gradients(grid, window, options, fold):
    theirs = attention(grid, window, **options)
    ours = DecomposedAttention(attention=theirs, window=window, fold=fold)
    x = torch.randn(2, *grid, 8, dtype=torch.float64, requires_grad=True)
    expected, got = padded(theirs, x, window), ours(x)
    close(got, expected)
    weight = torch.randn_like(expected)
    wanted = [x, *theirs.parameters()]
    for mine, reference in zip(
        torch.autograd.grad(got, wanted, weight), torch.autograd.grad(expected, wanted, weight), strict=True
    ):
        close(mine, reference, 1e-10)
    with torch.no_grad():
        close(ours(x), expected)
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize(("grid", "window"), [((3, 2, 4), 3), ((2, 2, 2), 3), ((2, 4, 2), 2)])
@pytest.mark.parametrize("fold", [True, False])
def test_equals_the_naive_padded_twin_in_three_dimensions(grid, window, fold):
    torch.manual_seed(0)
    parts = {"qkv": nn.Linear(4, 12), "proj": nn.Linear(4, 4)}
    tables = {f"rel_pos_{axis}": nn.Parameter(torch.randn(2 * window - 1, 2)) for axis in "dhw"}
    module = SimpleNamespace(num_heads=2, **parts, **tables)
    ours = DecomposedAttention(attention=module, window=window, axes=("d", "h", "w"), fold=fold).double()
    assert set(ours.state_dict()) == {*tables, "qkv.weight", "qkv.bias", "proj.weight", "proj.bias"}
    x = torch.randn(2, *grid, 4, dtype=torch.float64, requires_grad=True)
    expected, got = naive(x, ours.qkv, ours.proj, list(tables.values()), window, 2), ours(x)
    close(got, expected)
    wanted = [x, *ours.parameters()]
    for mine, reference in zip(
        torch.autograd.grad(got.square().sum(), wanted), torch.autograd.grad(expected.square().sum(), wanted),
        strict=True,
    ):  # fmt: skip
        close(mine, reference, 1e-10)


def test_the_naive_twin_is_segment_anythings_computation_in_two_dimensions():
    theirs = attention((4, 2), 3)
    x = torch.randn(1, 4, 2, 8, dtype=torch.float64)
    twin = naive(x, theirs.qkv, theirs.proj, [theirs.rel_pos_h, theirs.rel_pos_w], 3, 2)
    close(twin, padded(theirs, x, 3))


@pytest.mark.parametrize("rows", [27, 9, 41])
def test_tables_of_another_length_are_interpolated_as_segment_anything_does(rows):
    table = torch.randn(rows, 6)
    torch.testing.assert_close(axis_positions(table, 14, 14), get_rel_pos(14, 14, table))
    torch.testing.assert_close(axis_positions(table, 5, 14), get_rel_pos(14, 14, table)[:5])


def test_the_padding_score_is_the_log_sum_over_padded_positions():
    torch.manual_seed(0)
    lengths, sizes = [2, 1, 3], [2, 3, 4]
    q = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    tables = [torch.randn(n, s, 4, dtype=torch.float64) for n, s in zip(lengths, sizes, strict=True)]
    scores = axis_scores(q, tables, lengths)
    total = torch.zeros(2, 3, 6, dtype=torch.float64)
    for place in itertools.product(*(range(s) for s in sizes)):
        if any(p >= n for p, n in zip(place, lengths, strict=True)):
            total += sum(s[..., p] for s, p in zip(scores, place, strict=True)).exp()
    torch.testing.assert_close(padding_score(scores, lengths, sizes, q), total.log())
    # without scores it counts the padded positions
    torch.testing.assert_close(padding_score([None] * 3, lengths, sizes, q), torch.full_like(total, 24 - 6).log())


def test_large_scores_of_padded_positions_do_not_overflow():
    theirs = attention((4, 4), 3).float()
    for parameter in theirs.parameters():
        parameter.data *= 8
    ours = DecomposedAttention(attention=theirs, window=3)
    x = torch.randn(1, 4, 4, 8)
    close(ours(x), padded(theirs, x, 3), 1e-4)


def test_the_written_out_bias_is_made_in_pieces(monkeypatch):
    theirs = attention((5, 6), 0)
    x = torch.randn(1, 5, 6, 8, dtype=torch.float64)
    ours = DecomposedAttention(attention=theirs, window=0, fold=False)
    whole = ours(x)
    monkeypatch.setattr("common.layers.attention.sam._LOGITS_AT_ONCE", 100)
    close(ours(x), whole)


def test_folding_is_chosen_where_gradients_flow():
    ours = DecomposedAttention(attention=attention((4, 4), 3), window=3)
    q = torch.randn(1, 2, 9, 4)
    assert not ours._folds(q)
    assert ours._folds(q.requires_grad_())
    with torch.no_grad():
        assert not ours._folds(q)


def test_no_padded_token_is_computed():
    theirs = attention((4, 4), 3)
    seen = []
    theirs.qkv.register_forward_hook(lambda _m, args, _o: seen.append(args[0].shape[:-1].numel()))
    theirs.proj.register_forward_hook(lambda _m, args, _o: seen.append(args[0].shape[:-1].numel()))
    DecomposedAttention(attention=theirs, window=3)(torch.randn(2, 4, 4, 8, dtype=torch.float64))
    assert seen == [32, 32]


def test_half_precision_under_autocast_stays_close():
    theirs = attention((4, 5), 3).float()
    ours = DecomposedAttention(attention=theirs, window=3)
    x = torch.randn(2, 4, 5, 8, requires_grad=True)
    expected = padded(theirs, x, 3)
    for fold in (True, False):
        ours.fold = fold
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = ours(x)
        close(got.float(), expected, 0.06)


def test_another_bias_can_take_the_place_of_the_axes():
    class Halved(AxisBias):
        def __init__(self, q, tables, lengths, sizes):
            super().__init__(q, [None if t is None else t / 2 for t in tables], lengths, sizes)

    theirs, half = attention((4, 4), 3), attention((4, 4), 3)
    half.rel_pos_h.data /= 2
    half.rel_pos_w.data /= 2
    x = torch.randn(1, 4, 4, 8, dtype=torch.float64)
    close(DecomposedAttention(attention=theirs, window=3, bias=Halved)(x), padded(half, x, 3))


@pytest.mark.parametrize("arguments", [{"axes": ("w",)}, {"axes": ("t", "d", "h", "w")}, {"window": -1}], ids=str)
def test_ill_arguments(arguments):
    with pytest.raises(ConfigError):
        DecomposedAttention(attention=attention((4, 4), 3), **arguments)
