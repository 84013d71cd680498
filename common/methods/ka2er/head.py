"""KA2ER's mask decoder: class tokens and boxes meet the decoded feature map."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from segment_anything.modeling import PromptEncoder
from torch import Tensor, nn

from ...errors import ConfigError, PromptError
from ...layers.attention.cross import AttentionBlock, sincos_position, to_tokens

__all__ = ["FUSE", "FUSE_AT", "BoxTokens", "MaskHead", "Prompts"]

FUSE = ("add_norm", "concat")
FUSE_AT = ("token", "map")
EVERY = slice(None)
STRIDE = 8
INSIDE, OUTSIDE = 0, 1


class Prompts(NamedTuple):
    """Prompt embeddings of every axial slice, stored without repetition.

    ``tokens [B, P, 2, C]`` holds one embedding for the slices that the box crosses and one for all others;
    ``inside [B, P, Z]`` says which is which. Without a box both are the learned null embedding.
    """

    tokens: Tensor
    inside: Tensor


class BoxTokens(nn.Module):
    """Boxes to per-slice prompt embeddings by the frozen 2-D prompt encoder of SAM.

    Slices inside ``[z1, z2]`` get the corner embeddings of ``(x1, y1), (x2, y2)``, normalised by the in-plane size, the
    others ``not_a_point``; the mean over both corners goes through ``Linear(256 -> C)``. No box: a learned embedding.

    Args:
        encoder: SAM's prompt encoder; frozen here.
        channels: width C.
    """

    def __init__(self, *, encoder: PromptEncoder, channels: int) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.project = nn.Linear(encoder.embed_dim, channels)
        self.null = nn.Parameter(torch.zeros(channels))
        nn.init.trunc_normal_(self.null, std=0.02)

    def train(self, mode: bool = True) -> BoxTokens:
        """The encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, boxes: Tensor, shape: tuple[int, ...]) -> Prompts:
        """``boxes [B, P, 2, 3]`` (NaN: none) in a window of ``shape`` voxels -> prompts of all Z slices."""
        missing = boxes.isnan().any(-1).any(-1)
        known = boxes.nan_to_num().float()
        corners = known[..., :2].flatten(0, 1) + 0.5
        embedded = self.encoder.pe_layer.forward_with_coords(corners, (shape[1], shape[0]))
        kinds = torch.cat([self.encoder.point_embeddings[i].weight for i in (2, 3)])
        crossed = (embedded + kinds).mean(1).reshape(*missing.shape, -1)
        outside = self.encoder.not_a_point_embed.weight[0].expand_as(crossed)
        tokens = self.project(torch.stack([crossed, outside], 2).to(self.project.weight.dtype))
        tokens = torch.where(missing[:, :, None, None], self.null.to(tokens.dtype), tokens)
        z = torch.arange(shape[2], device=boxes.device)
        inside = (z >= known[:, :, 0, 2:] - 0.5) & (z <= known[:, :, 1, 2:] + 0.5)
        return Prompts(tokens, inside & ~missing[:, :, None])


class MaskHead(nn.Module):
    """Logits of every target from one feature map.

    ``logit[k, x] = <h(t_k) + w_k, F[x]> + b_k``, where ``t_k`` is the class token fused with its prompt, refined by one
    attention to the feature map at stride 8, ``h`` a three-layer MLP and ``w, b`` a 1x1x1 convolution (folded into the
    product, so that it costs nothing).

    Args:
        channels: width C of the feature map and the tokens.
        outputs: targets P: K + 1 with the background's own token, or K.
        encoder: SAM's prompt encoder.
        fuse: ``add_norm`` (``LN(a + b)``) or ``concat`` (``W [a, b]``).
        fuse_at: ``token`` fuses prompt and class token: all targets in one pass. ``map`` is the paper's way: the prompt
            embedding ``[B, C, 1, 1, Z]`` meets the feature map itself, one pass per target.
        heads: attention heads.

    Raises:
        ConfigError: for unknown fusions.

    Reference:
        KA2ER, section 3.3. Class tokens and the single pass are ours.
    """

    def __init__(
        self,
        *,
        channels: int,
        outputs: int,
        encoder: PromptEncoder,
        fuse: str = "add_norm",
        fuse_at: str = "token",
        heads: int = 4,
    ) -> None:
        super().__init__()
        for name, value, known in (("prompt_fuse", fuse, FUSE), ("fuse_at", fuse_at, FUSE_AT)):
            if value not in known:
                raise ConfigError("unknown choice", where=name, got=value, expected=", ".join(known))
        self.fuse, self.fuse_at, self.outputs = fuse, fuse_at, outputs
        self.classes = nn.Parameter(torch.zeros(outputs, channels))
        nn.init.trunc_normal_(self.classes, std=0.02)
        self.boxes = BoxTokens(encoder=encoder, channels=channels)
        self.norm = nn.LayerNorm(channels) if fuse == "add_norm" else None
        self.mix = nn.Linear(2 * channels, channels) if fuse == "concat" else None
        self.look = AttentionBlock(channels=channels, heads=heads, cross=True, mlp_ratio=2.0)
        wide = [nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels), nn.GELU()]
        last = nn.Linear(channels, channels)
        nn.init.trunc_normal_(last.weight, std=0.02)
        nn.init.zeros_(last.bias)
        self.hyper = nn.Sequential(*wide, last)

    def forward(self, features: Tensor, boxes: Tensor | None, out: nn.Conv3d) -> Tensor:
        """Decode masks.

        Args:
            features: ``[B, C, X, Y, Z]``.
            boxes: ``[B, K, 2, 3]`` window voxels, NaN where a structure has none; None when no structure has one.
            out: 1x1x1 convolution C -> P.

        Returns:
            ``[B, P, X, Y, Z]`` logits.

        Raises:
            PromptError: when the boxes do not have that shape.
        """
        prompts = None if boxes is None else self.boxes(self._with_background(boxes, features), features.shape[2:])
        if self.fuse_at == "map":
            return self._by_map(features, prompts, out)
        tokens = self.classes.expand(features.shape[0], -1, -1)
        if prompts is None:
            kernels = self._kernels(self._fused(tokens, self.boxes.null.expand_as(tokens)), features)
            return _masks(features, kernels, out)
        fused = self._fused(tokens[:, :, None].expand_as(prompts.tokens), prompts.tokens)
        kernels = self._kernels(fused.flatten(1, 2), features).reshape(fused.shape)
        inner, outer = (_masks(features, kernels[:, :, side], out) for side in (INSIDE, OUTSIDE))
        return torch.where(prompts.inside[:, :, None, None], inner, outer)

    def _with_background(self, boxes: Tensor, features: Tensor) -> Tensor:
        background = self.outputs - boxes.shape[1] if boxes.ndim == 4 else -1
        if background not in (0, 1) or boxes.shape[2:] != (2, 3) or boxes.shape[0] != features.shape[0]:
            raise PromptError("boxes do not fit the network", got=tuple(boxes.shape), expected="[B, K, 2, 3]")
        return F.pad(boxes, (0, 0, 0, 0, background, 0), value=torch.nan)

    def _fused(self, a: Tensor, b: Tensor) -> Tensor:
        """``a`` and ``b`` ``[..., C]`` to one."""
        if self.mix is not None:
            mixed: Tensor = self.mix(torch.cat([a, b], -1))
            return mixed
        summed: Tensor = (a + b) if self.norm is None else self.norm(a + b)
        return summed

    def _kernels(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Tokens ``[B, N, C]`` that have looked at the feature map, through the hyper-MLP."""
        pooled = F.avg_pool3d(features, STRIDE)
        where = sincos_position(pooled.shape[2:], tokens.shape[-1], tokens)
        seen, _ = self.look(tokens, to_tokens(pooled), context_position=where)
        kernels: Tensor = self.hyper(seen)
        return kernels

    def _by_map(self, features: Tensor, prompts: Prompts | None, out: nn.Conv3d) -> Tensor:
        last, masks = features.movedim(1, -1), []
        for k in range(self.outputs):
            embedding = self.boxes.null.expand(features.shape[0], features.shape[4], -1)
            if prompts is not None:
                inner, outer = prompts.tokens[:, k, INSIDE, None], prompts.tokens[:, k, OUTSIDE, None]
                embedding = torch.where(prompts.inside[:, k, :, None], inner, outer)
            mixed = self._fused(last, embedding[:, None, None].expand_as(last)).movedim(-1, 1)
            token = self.classes[k].expand(features.shape[0], 1, -1)
            masks.append(_masks(mixed, self._kernels(token, mixed), out, slice(k, k + 1)))
        return torch.cat(masks, 1)


def _masks(features: Tensor, kernels: Tensor, out: nn.Conv3d, part: slice = EVERY) -> Tensor:
    """``<kernel + w, F> + b``: ``[B, C, X, Y, Z], [B, P, C]`` -> ``[B, P, X, Y, Z]``."""
    weight, bias = out.weight[part].flatten(1), out.bias
    kernels = kernels + weight
    logits = torch.matmul(kernels, features.flatten(2).to(kernels.dtype))
    if bias is not None:
        logits = logits + bias[part, None]
    return logits.reshape(*logits.shape[:2], *features.shape[2:])
