"""The released position bias of SAM-Med3D on real tokens against padded windows, one index at a time."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from common.errors import ConfigError
from common.layers.attention.released_bias import ReleasedBias
from common.layers.attention.sam import DecomposedAttention

# padding along all axes, along one, in other windows only, none, and the whole grid
CASES = [((2, 2, 2), 3), ((3, 2, 3), 3), ((2, 3, 3), 3), ((3, 3, 2), 3), ((4, 2, 3), 3), ((2, 4, 2), 2), ((3, 3, 3), 0)]


def parameters(window, bias=True):
    torch.manual_seed(0)
    tables = {f"rel_pos_{axis}": nn.Parameter(torch.randn(2 * window - 1, 2)) for axis in "dhw"}
    parts = {"qkv": nn.Linear(4, 12, bias=bias), "proj": nn.Linear(4, 4)}
    return SimpleNamespace(num_heads=2, **parts, **tables)


def released(x, module, window):
    """What the released code computes: padded windows, three biases whose key axis is always the last one."""
    grid = x.shape[1:-1]
    whole = [-(-n // window) * window for n in grid]
    full = x.new_zeros(x.shape[0], *whole, x.shape[-1])
    full[(slice(None), *(slice(0, n) for n in grid))] = x
    out = torch.empty_like(full)
    places = list(itertools.product(range(window), repeat=3))
    index = {place: i for i, place in enumerate(places)}
    row = [[window - 1 + i - j for j in range(window)] for i in range(window)]
    for corner in itertools.product(*(range(0, n, window) for n in whole)):
        part = (slice(None), *(slice(c, c + window) for c in corner))
        q, k, v = module.qkv(full[part].flatten(1, 3)).unflatten(-1, (3, module.num_heads, -1)).unbind(2)
        logits = torch.einsum("bihc,bjhc->bhij", q * q.shape[-1] ** -0.5, k)
        bias = torch.zeros_like(logits)
        for (d, h, w), (i, j, last) in itertools.product(places, repeat=2):
            here = q[:, index[d, h, w]] @ module.rel_pos_d[row[d][last]]
            at_i = q[:, index[d, h, i]] @ module.rel_pos_h[row[h][last]]
            at_j = q[:, index[d, h, j]] @ module.rel_pos_w[row[j][last]]
            bias[:, :, index[d, h, w], index[i, j, last]] = here + at_i + at_j
        attended = torch.einsum("bhij,bjhc->bihc", (logits + bias).softmax(-1), v).flatten(2)
        out[part] = module.proj(attended).unflatten(1, [window] * 3)
    return out[(slice(None), *(slice(0, n) for n in grid))]


def broadcast(x, module, window):
    """The same by broadcasting seven axes; small enough to read beside :func:`released`, fast enough for real sizes."""
    grid, batch = x.shape[1:-1], x.shape[0]
    pads = [window - n for n in grid]
    full = nn.functional.pad(x, (0, 0, 0, pads[2], 0, pads[1], 0, pads[0]))
    qkv = module.qkv(full).view(batch, window**3, 3, module.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.flatten(1, 2).unbind(0)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(1, 2)
    spread = q.unflatten(1, (window,) * 3)
    steps = torch.arange(window)
    rows = steps[:, None] - steps + window - 1
    one = torch.einsum("bxyzc,xkc->bxyzk", spread, module.rel_pos_d[rows])
    two = torch.einsum("bxyzc,ykc->bxyzk", spread, module.rel_pos_h[rows])
    three = torch.einsum("bxyzc,zkc->bxyzk", spread, module.rel_pos_w[rows])
    cube = logits.view(-1, *(window,) * 6)
    cube = cube + one[:, :, :, :, None, None] + two[:, :, :, None, :, None] + three[:, :, :, None, None, :]
    attended = cube.view_as(logits).softmax(-1) @ v
    out = module.proj(attended.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2))
    return out.unflatten(1, (window,) * 3)[(slice(None), *(slice(0, n) for n in grid))]


def close(a, b, tolerance):
    assert a.shape == b.shape
    assert ((a - b).abs().max() / b.abs().max().clamp_min(1e-9)).item() < tolerance


def ours(module, window, fold):
    return DecomposedAttention(attention=module, window=window, axes=("d", "h", "w"), fold=fold, bias=ReleasedBias)


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("grid", "window"), CASES)
def test_equals_the_padded_released_computation_with_gradients(grid, window, bias, fold):
    size = window or grid[0]
    module = parameters(size, bias)
    attention = ours(module, window, fold).double()
    x = torch.randn(2, *grid, 4, dtype=torch.float64, requires_grad=True)
    expected, got = released(x, module, size), attention(x)
    close(got, expected, 1e-12)
    weight = torch.randn_like(expected)
    wanted = [x, *attention.parameters()]
    for mine, reference in zip(
        torch.autograd.grad(got, wanted, weight), torch.autograd.grad(expected, wanted, weight), strict=True
    ):
        close(mine, reference, 1e-10)
    with torch.inference_mode():
        close(attention(x), expected, 1e-12)


@pytest.mark.parametrize("fold", [True, False])
def test_real_windows_of_fourteen_around_a_grid_of_eight(fold):
    torch.manual_seed(0)
    tables = {f"rel_pos_{axis}": nn.Parameter(torch.randn(27, 8) * 0.3) for axis in "dhw"}
    module = SimpleNamespace(num_heads=1, qkv=nn.Linear(8, 24), proj=nn.Linear(8, 8), **tables)
    attention = ours(module, 14, fold)
    x = torch.randn(1, 8, 8, 8, 8, requires_grad=True)
    expected, got = broadcast(x, module, 14), attention(x)
    close(got, expected, 1e-5)
    wanted = [x, *attention.parameters()]
    for mine, reference in zip(
        torch.autograd.grad(got.square().sum(), wanted), torch.autograd.grad(expected.square().sum(), wanted),
        strict=True,
    ):  # fmt: skip
        close(mine, reference, 2e-4)


def test_the_two_twins_agree():
    module = parameters(3)
    x = torch.randn(2, 2, 3, 2, 4)
    close(broadcast(x, module, 3), released(x, module, 3), 1e-5)


def test_the_released_bias_is_not_the_intended_one():
    module = parameters(3)
    x = torch.randn(1, 2, 2, 2, 4)
    intended = DecomposedAttention(attention=module, window=3, axes=("d", "h", "w"))(x)
    assert (ours(module, 3, False)(x) - intended).abs().max() > 0.01


def test_the_written_out_bias_is_made_in_pieces(monkeypatch):
    attention = ours(parameters(3), 3, False).double()
    x = torch.randn(1, 2, 2, 3, 4, dtype=torch.float64)
    whole = attention(x)
    for limit in (100, 150):  # pieces of three and of five queries, which begin within a row
        monkeypatch.setattr("common.layers.attention.sam._LOGITS_AT_ONCE", limit)
        close(attention(x), whole, 1e-12)


def test_large_scores_of_padded_positions_do_not_overflow():
    module = parameters(3)
    for part in (module.qkv.weight, module.rel_pos_d, module.rel_pos_h, module.rel_pos_w):
        part.data *= 8
    x = torch.randn(1, 2, 2, 2, 4)
    close(ours(module, 3, False)(x), broadcast(x, module, 3), 1e-4)


def test_windows_must_be_cubes_with_three_tables():
    q = torch.randn(1, 1, 8, 2)
    with pytest.raises(ConfigError, match="cubic windows"):
        ReleasedBias(q, [torch.randn(3, 2)] * 3, (2, 2, 2), (2, 2, 3))
    with pytest.raises(ConfigError, match="2 tables"):
        ReleasedBias(q, [torch.randn(3, 2), None, torch.randn(3, 2)], (2, 2, 2), (2, 2, 2))
