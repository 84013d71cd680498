"""Hierarchical attention between experts of different levels: the higher level asks the lower one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError
from ..attention.window import window_boxes
from ..attention.window_grad import put_windows, take_windows
from ..gating.routing import Routing

__all__ = ["LEVELS", "CrossLevel", "Fused", "HLAttention", "Step", "by_window", "fusion_plan"]

LEVELS = ("image", "patch", "pixel")
# From the highest level to the lowest.
ORDERS = ("2-1-1", "1-1-2", "1-2-1")
RESIDUALS = ("normal", "tokens", "queries", "none")
_FUSED = "fused"


class Fused(NamedTuple):
    """What the experts say together, ``[B, h, w, C]``, and how a gate weighed them (None without a gate)."""

    tokens: Tensor
    routing: Routing | None


class Step(NamedTuple):
    """One cross-attention: names of the asking and the answering signal, ``fused`` being the step before."""

    query: str
    context: str


def fusion_plan(levels: Sequence[str], *, order: str = "2-1-1", query_rule: str = "level") -> tuple[Step, ...]:
    """Who asks whom, and when.

    Args:
        levels: two or three of ``image``, ``patch`` and ``pixel``.
        order: one number per column image, patch, pixel: the two levels with 1 are fused first, the one with 2 joins
            them. With two levels there is one step, whose operands the order only tells apart for ``last``.
        query_rule: ``level``: the operand of the higher level asks, a fused pair counting as its higher member.
            ``last``: the operand that joins last asks; where both join at once, the higher level.

    Returns:
        One step less than there are levels.

    Raises:
        ConfigError: for unknown, repeated or too few levels, an unknown order or rule.

    Reference:
        SAMora, section 3.3 and table 4; its code has ``last``.
    """
    chosen = [name for name in LEVELS if name in levels]
    if len(chosen) != len(levels) or len(chosen) < 2:
        got = list(levels)
        expected = f"two or three of {', '.join(LEVELS)}"
        hint = "fuser='single' runs one expert alone"
        raise ConfigError("levels are fused that are different", where="levels", got=got, expected=expected, hint=hint)
    if order not in ORDERS:
        raise ConfigError("unknown order of fusion", where="order", got=order, expected=", ".join(ORDERS))
    if query_rule not in ("level", "last"):
        raise ConfigError("unknown rule for the query", where="query_rule", got=query_rule, expected="level or last")
    turn = dict(zip(LEVELS, order.split("-"), strict=True))
    if len(chosen) == 2:
        high, low = chosen
        swapped = query_rule == "last" and turn[low] > turn[high]
        return (Step(low, high) if swapped else Step(high, low),)
    last = next(name for name in LEVELS if turn[name] == "2")
    first = [name for name in LEVELS if name != last]
    asks = query_rule == "last" or LEVELS.index(last) < LEVELS.index(first[0])
    return Step(first[0], first[1]), Step(last, _FUSED) if asks else Step(_FUSED, last)


def by_window(
    tensors: Sequence[Tensor], window: int, function: Callable[..., Tensor], channels: int | None = None
) -> Tensor:
    """Apply a function to windows of a grid, without padding: the last window of an axis has what is left.

    Args:
        tensors: of one grid, ``[B, h, w, C]``.
        window: tokens along a window's side; 0, or one as large as the grid, is the whole grid.
        function: ``(windows [B', n, C], ...) -> [B', n, C']``.
        channels: C' where it differs from C.

    Returns:
        ``[B, h, w, C']``.
    """
    batch, height, width, own = tensors[0].shape
    sides = [1, min(window, height) or height, min(window, width) or width]
    boxes = window_boxes([1, height, width], sides, [0, 0, 0])
    if sides[1:] == [height, width]:
        return function(*(x.flatten(1, 2) for x in tensors)).view(batch, height, width, -1)
    result: Tensor | None = None
    for box in boxes:
        said = function(*(take_windows(x.unsqueeze(1), box) for x in tensors))
        if result is None:
            result = said.new_empty(batch, 1, height, width, channels or own)
        put_windows(result, said, box)
    assert result is not None
    return result.squeeze(1)


class CrossLevel(nn.Module):
    """Multi-head attention of one level to another in a narrow width: ``W_o(softmax(q k^T / sqrt(d)) v)``.

    ``q = W_q n(x)``, ``k, v = W_k n(c), W_v n(c)`` with ``n`` the normalisation of each token to zero mean and unit
    variance. Scale and shift of a LayerNorm, and biases, would be one with the matrices that follow; they are left out.

    Args:
        channels: width C of the tokens.
        d_attn: width of queries, keys and values, a multiple of ``heads``.
        heads: number of heads.
        residual: what is added to the result: ``normal``: ``n(x)``; ``tokens``: ``x`` itself; ``none``: nothing.
            ``queries``: ``q`` is added to what was heard, before ``W_o``, as in a Set Transformer, so that the asking
            expert is part of the answer and ``W_o = 0`` still gives zero.
        zero: start with ``W_o = 0``.

    Raises:
        ConfigError: for a width that is no multiple of the heads, or an unknown residual.

    Reference:
        SAMora, eq. 8; Lee et al., Set Transformer, 2019, eq. 6.
    """

    def __init__(
        self, *, channels: int, d_attn: int = 128, heads: int = 8, residual: str = "normal", zero: bool = False
    ) -> None:
        super().__init__()
        if heads < 1 or d_attn < heads or d_attn % heads:
            raise ConfigError(
                "the attention's width is a multiple of its heads", where="d_attn, heads", got=(d_attn, heads)
            )
        if residual not in RESIDUALS:
            raise ConfigError("unknown residual", where="residual", got=residual, expected=", ".join(RESIDUALS))
        self.heads, self.residual = heads, residual
        self.query, self.key, self.value = (nn.Linear(channels, d_attn, bias=False) for _ in range(3))
        self.out = nn.Linear(d_attn, channels, bias=False)
        for part in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(part.weight)
        if zero:
            nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, context: Tensor, window: int = 0) -> Tensor:
        """``x, context [B, h, w, C] -> [B, h, w, C]``, within windows of ``window`` tokens a side (0: all tokens)."""
        normal = _normal(x)
        q, k, v = self.query(normal), *self._answers(context)
        heard = by_window((q, k, v), window, self._attend)
        if self.residual == "queries":
            heard = heard + q
        said: Tensor = self.out(heard)
        return said + {"normal": normal, "tokens": x}[self.residual] if self.residual in ("normal", "tokens") else said

    def asked(self, x: Tensor, context: Tensor, window: int = 0) -> Tensor:
        """How much each place is asked, ``[B, h, w]``: mean over heads and askers, 1 where all are asked alike."""
        q, (k, _) = self.query(_normal(x)), self._answers(context)
        return by_window((q, k), window, self._received, channels=1)[..., 0]

    def _answers(self, context: Tensor) -> tuple[Tensor, Tensor]:
        normal = _normal(context)
        return self.key(normal), self.value(normal)

    def _split(self, x: Tensor) -> Tensor:
        split: Tensor = x.unflatten(2, (self.heads, -1))
        return split.transpose(1, 2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heard: Tensor = F.scaled_dot_product_attention(self._split(q), self._split(k), self._split(v))
        return heard.transpose(1, 2).flatten(2)

    def _received(self, q: Tensor, k: Tensor) -> Tensor:
        q, k = self._split(q), self._split(k)
        weights: Tensor = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return weights.mean((1, 2))[..., None] * k.shape[-2]


def _normal(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class HLAttention(nn.Module):
    """Fuse the signals of experts by cross-attention from the higher levels to the lower ones.

    With the paper's order, ``lo = n(R_patch) + A(R_patch, R_pixel)`` and ``E = A'(R_image, lo)``; ``A'`` starts at
    zero, so that the fused encoder starts as the frozen one. What is heard in a step is of unit size: a residual as it
    is, far smaller than its block's tokens, would be drowned by it, so that earlier steps add the normalised one.

    Args:
        channels: width C of the signals.
        levels: names of the signals, in the order in which they are given.
        order: see :func:`fusion_plan`.
        query_rule: see :func:`fusion_plan`.
        d_attn: width of the attention.
        heads: number of heads.
        residual: of the last step, see :class:`CrossLevel`. ``tokens`` adds the asking signal as it is in every step:
            the paper to the letter, which starts as the image expert and not as the frozen encoder.
        self_attention: whether each asking signal first attends to itself.

    Raises:
        ConfigError: as :func:`fusion_plan` and :class:`CrossLevel`.

    Reference:
        SAMora, section 3.3, eq. 6 to 8. Widths are not in the paper; 128 gives its table 3's parameters.
    """

    def __init__(
        self,
        *,
        channels: int,
        levels: Sequence[str] = LEVELS,
        order: str = "2-1-1",
        query_rule: str = "level",
        d_attn: int = 128,
        heads: int = 8,
        residual: str = "queries",
        self_attention: bool = False,
    ) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.plan = fusion_plan(levels, order=order, query_rule=query_rule)
        size: dict[str, Any] = {"channels": channels, "d_attn": d_attn, "heads": heads}
        kinds = ["tokens" if residual == "tokens" else "normal"] * (len(self.plan) - 1) + [residual]
        last = len(self.plan) - 1
        self.steps = nn.ModuleList(CrossLevel(**size, residual=kind, zero=i == last) for i, kind in enumerate(kinds))
        selves = [CrossLevel(**size, residual="normal", zero=True) for _ in self.plan] if self_attention else []
        self.selves = nn.ModuleList(selves)

    def forward(self, signals: Tensor, window: int = 0) -> Fused:
        """``signals [E, B, h, w, C]`` in the order of the levels -> ``[B, h, w, C]``."""
        known = self._named(signals)
        for i, step in enumerate(self.plan):
            known[_FUSED] = self.steps[i](self._asking(i, known[step.query], window), known[step.context], window)
        return Fused(known[_FUSED], None)

    @torch.no_grad()
    def asked(self, signals: Tensor, window: int = 0) -> dict[str, Tensor]:
        """``{"image asks fused": [B, h, w], ...}``: how much each place is asked in each step, 1 meaning evenly."""
        known, maps = self._named(signals), {}
        for i, step in enumerate(self.plan):
            x, context = self._asking(i, known[step.query], window), known[step.context]
            maps[f"{step.query} asks {step.context}"] = cast(CrossLevel, self.steps[i]).asked(x, context, window)
            known[_FUSED] = self.steps[i](x, context, window)
        return maps

    def _named(self, signals: Tensor) -> dict[str, Tensor]:
        if signals.ndim != 5 or signals.shape[0] != len(self.levels):
            expected = f"[{len(self.levels)}, B, h, w, C] for {', '.join(self.levels)}"
            raise ConfigError("one signal per level", got=tuple(signals.shape), expected=expected)
        named: Mapping[str, Tensor] = dict(zip(self.levels, signals.unbind(0), strict=True))
        return dict(named)

    def _asking(self, i: int, x: Tensor, window: int) -> Tensor:
        if len(self.selves):
            x = self.selves[i](x, x, window)
        return x
