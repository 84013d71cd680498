"""KA2ER's student without prompts in the part of Python that ``torch.jit.script`` compiles."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.attention.cross import AttentionBlock

__all__ = ["ScriptableStudent"]


class _Block(nn.Module):
    """An `AttentionBlock`, attending to itself or to a context; parameters are shared with it."""

    def __init__(self, *, block: AttentionBlock) -> None:
        super().__init__()
        assert block.norm_mlp is not None and block.mlp is not None
        self.norm, self.norm_mlp, self.mlp = block.norm, block.norm_mlp, block.mlp
        own = block.norm_context
        self.norm_context: nn.Module = block.norm if own is None else own
        attention = block.attention
        self.query, self.key, self.value, self.out = attention.query, attention.key, attention.value, attention.out
        self.heads: int = int(attention.heads)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, context: Tensor, position: Tensor) -> Tensor:
        """Tokens [B, N, C] that have looked at a context [B, M, C] with positions [1, M, C]."""
        value = self.norm_context(context)
        q = self._split(self.query(self.norm(x)))
        k, v = self._split(self.key(value + position)), self._split(self.value(value))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out


class ScriptableStudent(nn.Module):
    """`KA2ERStudent(image)` without boxes: same function, any window size, no SAM code.

    Args:
        student: whose modules are used, not copied.
    """

    def __init__(self, *, student: Any) -> None:
        super().__init__()
        self.backbone = student.backbone
        self.attend = nn.ModuleList([_Block(block=block) for block in student.attend])
        head = student.head
        self.look, self.hyper = _Block(block=head.look), head.hyper
        self.classes, self.null = head.classes, head.boxes.null
        self.concat, self.by_map = head.mix is not None, head.fuse_at == "map"
        self.norm = head.norm if head.norm is not None else nn.Identity()
        self.mix = head.mix if head.mix is not None else nn.Identity()

    def _fused(self, a: Tensor, b: Tensor) -> Tensor:
        if self.concat:
            mixed: Tensor = self.mix(torch.cat([a, b], -1))
        else:
            mixed = self.norm(a + b)
        return mixed

    def _kernels(self, tokens: Tensor, features: Tensor) -> Tensor:
        pooled = F.avg_pool3d(features, 8)
        position = _positions(list(pooled.shape[2:]), tokens.shape[-1], tokens)
        seen = self.look(tokens, pooled.flatten(2).transpose(1, 2), position)
        kernels: Tensor = self.hyper(seen)
        return kernels

    def _masks(self, features: Tensor, kernels: Tensor, first: int) -> Tensor:
        last = first + kernels.shape[1]
        kernels = kernels + self.backbone.out.conv.conv.weight[first:last].flatten(1)
        logits = torch.matmul(kernels, features.flatten(2).to(kernels.dtype))
        bias = self.backbone.out.conv.conv.bias
        if bias is not None:
            logits = logits + bias[first:last, None]
        masks: Tensor = logits.unflatten(2, list(features.shape[2:]))
        return masks

    def _decode(self, image: Tensor) -> Tensor:
        hidden = self.backbone.hidden_states(image)
        deepest = self.backbone.bottleneck(hidden)
        for level, block in enumerate(self.attend):
            volume = deepest if level == 0 else hidden[4 - level]
            tokens = volume.flatten(2).transpose(1, 2)
            tokens = block(tokens, tokens, torch.zeros_like(tokens[:1]))
            attended = tokens.transpose(1, 2).unflatten(2, list(volume.shape[2:]))
            if level == 0:
                deepest = attended
            else:
                hidden[4 - level] = attended
        decoded: Tensor = self.backbone.decode(image, hidden, deepest)
        return decoded

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, K+1 or K, X, Y, Z] of an image [B, C, X, Y, Z] whose sides are multiples of 32."""
        features = self._decode(image)
        batch = features.shape[0]
        if not self.by_map:
            tokens = self.classes.expand(batch, -1, -1)
            return self._masks(features, self._kernels(self._fused(tokens, self.null.expand_as(tokens)), features), 0)
        last = features.movedim(1, -1)
        mixed = self._fused(last, self.null.expand_as(last)).movedim(-1, 1)
        masks: list[Tensor] = []
        for k in range(self.classes.shape[0]):
            token = self.classes[k].expand(batch, 1, -1)
            masks.append(self._masks(mixed, self._kernels(token, mixed), k))
        return torch.cat(masks, 1)


def _positions(grid: list[int], channels: int, like: Tensor) -> Tensor:
    """`sincos_position` (its formula and its test are in `common.layers.attention.cross`)."""
    count = channels // 6
    steps = torch.arange(count, device=like.device, dtype=torch.float32) / max(count - 1, 1)
    omega = math.pi * torch.pow(32.0, steps)
    axes = [(torch.arange(n, device=like.device, dtype=torch.float32) + 0.5) / n for n in grid]
    meshes = torch.meshgrid(axes, indexing="ij")
    parts: list[Tensor] = []
    for u in meshes:
        angle = u.reshape(-1, 1) * omega
        parts += [angle.sin(), angle.cos()]
    return F.pad(torch.cat(parts, 1), [0, channels - 6 * count])[None].to(like.dtype)
