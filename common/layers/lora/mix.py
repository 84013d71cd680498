"""Several LoRA experts of one projection at once, each with a weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError
from .qkv import base_qkv, expert_matrices

__all__ = ["MIXES", "mixed_qkv"]

MIXES = ("product", "separate")


def mixed_qkv(
    qkv: nn.Module, levels: Sequence[str], weights: Tensor, normed: Tensor, *, mix: str = "product"
) -> Tensor:
    """The fused projection with a weighted mixture of experts.

    ``product``: ``W x + sum_i w_i B_i A_i x`` (what the experts add, weighed). ``separate``:
    ``W x + (sum_i w_i B_i)(sum_i w_i A_i) x``, in which experts also meet each other's matrices.

    Args:
        qkv: a block's ``attn.qkv`` with experts.
        levels: their names.
        weights: w ``[E]``.
        normed: ``[..., C]``.
        mix: ``product`` or ``separate``.

    Returns:
        ``[..., 3C']``.

    Raises:
        ConfigError: for an unknown mix, another number of weights than experts, or an expert that there is not.

    Reference:
        SAMora, table 4, LAC; Huang et al., LoRAHub, 2024, eq. 1 (``separate``).
    """
    if mix not in MIXES or len(weights) != len(levels):
        where = "mix, weights"
        expected = f"{' or '.join(MIXES)}, {len(levels)} weights"
        raise ConfigError("experts cannot be mixed so", where=where, got=(mix, len(weights)), expected=expected)
    base = base_qkv(qkv, normed)
    w = weights.to(base.dtype).unbind(0)
    pieces, end = [], 0
    for part in zip(*(expert_matrices(qkv, level) for level in levels), strict=True):
        rows = part[0][0]
        a, b = ([m[i].to(base.dtype) for m in part] for i in (1, 2))
        down, up = _product(w, a, b) if mix == "product" else (_sum(w, a), _sum(w, b))
        pieces += [base[..., end : rows.start]] if rows.start > end else []
        pieces.append(base[..., rows] + F.linear(F.linear(normed.to(base.dtype), down), up))
        end = rows.stop
    return torch.cat(pieces, -1)


def _product(w: Sequence[Tensor], a: Sequence[Tensor], b: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.cat(list(a)), torch.cat([s * m for s, m in zip(w, b, strict=True)], 1)


def _sum(w: Sequence[Tensor], matrices: Sequence[Tensor]) -> Tensor:
    return torch.stack([s * m for s, m in zip(w, matrices, strict=True)]).sum(0)
