"""Several two-layer perceptrons on the same tokens, each token weighted over them or sent to some of them.

`y[n] = sum_e w[n, e] * (W_out[e] gelu(W_hid[e] x[n] + b_hid[e]) + b_out[e])`. Tokens pass in blocks that stay in a
CPU's cache; the hidden values are four times as wide as the tokens, so they are computed again in the backward pass
instead of being kept, unless the tokens are wide: then there are few of them, and keeping costs little. An expert whose
weight is zero everywhere is not run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ...errors import ConfigError

__all__ = ["MLPExperts"]


_WIDE = 192  # channels; a Swin's later half has more, and a sixth of all hidden values


def _blocks(rows: int, channels: int, device: torch.device) -> list[slice]:
    at_once = rows if device.type == "cuda" else 512 if channels <= 96 else 1024 if channels <= 192 else rows
    return [slice(i, min(i + at_once, rows)) for i in range(0, rows, max(at_once, 1))]


def _chosen(weights: Tensor, sparse: bool) -> list[Tensor | None]:
    """Rows that each expert is asked for; None for all of them."""
    if not sparse:
        return [None] * weights.shape[1]
    return [w.nonzero()[:, 0] for w in weights.detach().unbind(1)]


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, w_hid: Tensor, b_hid: Tensor, w_out: Tensor, b_out: Tensor, sparse: bool,
        keep: bool,
    ) -> Tensor:  # fmt: skip
        rows = _chosen(weights, sparse)
        kept = []
        out = torch.zeros_like(x)
        for e, own in enumerate(rows):
            tokens, share = (x, weights[:, e]) if own is None else (x[own], weights[own, e])
            answer = out if own is None else torch.empty_like(tokens)
            for part in _blocks(tokens.shape[0], x.shape[1], x.device):
                before = F.linear(tokens[part], w_hid[e], b_hid[e])
                said = F.linear(F.gelu(before), w_out[e], b_out[e]).mul_(share[part, None])
                kept += [before] if keep else []
                if own is None:
                    answer[part] += said
                else:
                    answer[part] = said
            if own is not None:
                out.index_add_(0, own, answer)
        ctx.rows = rows
        ctx.save_for_backward(x, weights, w_hid, b_hid, w_out, b_out, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weights, w_hid, b_hid, w_out, b_out, *saved = ctx.saved_tensors
        kept = iter(saved)
        grad_x, grad_weights = torch.zeros_like(x), torch.zeros_like(weights)
        wide = torch.promote_types(x.dtype, torch.float32)  # half precision is not enough to add many blocks
        grads = [torch.zeros_like(t, dtype=wide) for t in (w_hid, b_hid, w_out, b_out)]
        for e, own in enumerate(ctx.rows):
            tokens, share, g = (x, weights[:, e], grad) if own is None else (x[own], weights[own, e], grad[own])
            back_x, back_share = torch.empty_like(tokens), torch.empty_like(share)
            for part in _blocks(tokens.shape[0], x.shape[1], x.device):
                some, some_g, some_share = tokens[part], g[part], share[part, None]
                before = next(kept) if saved else F.linear(some, w_hid[e], b_hid[e])
                hidden = F.gelu(before)
                towards = some_g @ w_out[e]
                back_share[part] = (towards * hidden).sum(1) + some_g @ b_out[e]
                scaled = some_g * some_share
                inner = torch.ops.aten.gelu_backward(towards.mul_(some_share), before)
                back_x[part] = inner @ w_hid[e]
                grads[0][e] += inner.t() @ some
                grads[1][e] += inner.sum(0, dtype=wide)
                grads[2][e] += scaled.t() @ hidden
                grads[3][e] += scaled.sum(0, dtype=wide)
            if own is None:
                grad_x += back_x
                grad_weights[:, e] = back_share
            else:
                grad_x.index_add_(0, own, back_x)
                grad_weights[own, e] = back_share
        return grad_x, grad_weights, *(g.to(x.dtype) for g in grads), None, None


class MLPExperts(nn.Module):
    """E perceptrons C -> H -> C with GELU and stacked parameters.

    Args:
        channels: width C of the tokens.
        hidden: width H.
        experts: their number E, at least 1.

    Shapes:
        tokens [N, C], weights [N, E] -> [N, C].

    An expert that nobody asked gets a gradient of zero, not none: an optimiser's momentum and weight decay still move
    it, as they move every parameter that a batch did not need.

    Reference:
        M4oE, section 2.2, equation 3; stacking, blocks and recomputing are ours.
    """

    def __init__(self, *, channels: int, hidden: int, experts: int) -> None:
        super().__init__()
        if min(channels, hidden, experts) < 1:
            raise ConfigError("an MLP with experts needs sizes of 1 or more", got=(channels, hidden, experts))
        self.hidden_weight = nn.Parameter(torch.empty(experts, hidden, channels))
        self.hidden_bias = nn.Parameter(torch.zeros(experts, hidden))
        self.out_weight = nn.Parameter(torch.empty(experts, channels, hidden))
        self.out_bias = nn.Parameter(torch.zeros(experts, channels))
        for weight in (self.hidden_weight, self.out_weight):
            nn.init.trunc_normal_(weight, std=0.02)

    @property
    def experts(self) -> int:
        """Their number E."""
        return self.hidden_weight.shape[0]

    def forward(self, tokens: Tensor, weights: Tensor, sparse: bool = False) -> Tensor:
        """Ask the experts.

        Args:
            tokens: [N, C].
            weights: [N, E].
            sparse: only run an expert on the tokens where its weight is not zero (top-k and hard routing).

        Returns:
            [N, C], in the dtype of the tokens, or autocast's.

        Raises:
            ConfigError: for shapes that do not fit.
        """
        expected = (tokens.shape[0], self.experts)
        if tokens.ndim != 2 or tuple(weights.shape) != expected:
            got = (tuple(tokens.shape), tuple(weights.shape))
            raise ConfigError("tokens and weights do not fit", got=got, expected=f"[N, C] and {expected}")
        kind = tokens.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tokens.dtype
        tokens, weights = tokens.to(dtype), weights.to(dtype)
        parameters = [
            p.to(tokens.dtype) for p in (self.hidden_weight, self.hidden_bias, self.out_weight, self.out_bias)
        ]
        keep = torch.is_grad_enabled() and tokens.shape[1] > _WIDE
        differentiable: Callable[..., Tensor] = _Experts.apply
        return differentiable(tokens, weights, *parameters, sparse, keep)

    @torch.no_grad()
    def append(self, copy_of: int | None = None) -> None:
        """Add an expert; the others keep their values.

        Args:
            copy_of: the expert that it starts as; None starts it at random.

        Raises:
            ConfigError: when there is no expert to copy.
        """
        fresh = MLPExperts(channels=self.out_bias.shape[1], hidden=self.hidden_bias.shape[1], experts=1)
        if copy_of is not None and not 0 <= copy_of < self.experts:
            raise ConfigError("there is no such expert", got=copy_of, expected=f"0 .. {self.experts - 1}")
        for name, own in list(self.named_parameters()):
            start = getattr(fresh, name) if copy_of is None else own[copy_of : copy_of + 1]
            setattr(self, name, nn.Parameter(torch.cat([own, start.to(own)]), requires_grad=own.requires_grad))
