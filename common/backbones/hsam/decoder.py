"""H-SAM's two mask decoders: coarse masks as SAM makes them, then fine ones that build on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from segment_anything.modeling.common import LayerNorm2d, MLPBlock
from segment_anything.modeling.mask_decoder import MLP, MaskDecoder
from segment_anything.modeling.transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError
from .attention import GuidedTransformer, ImageFirstTransformer

__all__ = ["NOISE_LEVELS", "SELECTIONS", "CoarseDecoder", "CoarseMasks", "FineDecoder", "class_noise", "position_heads"]

SELECTIONS = ("positions", "released")
NOISE_LEVELS = (0.35, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.0, 0.0)


class CoarseMasks(NamedTuple):
    """What the first decoder says.

    Args:
        logits: [B,K+1,4h,4w].
        similarity: tokens times image, [B,K+1,hw].
        upscaled: image features for the second decoder, [B,C/8,4h,4w].
    """

    logits: Tensor
    similarity: Tensor
    upscaled: Tensor


class CoarseDecoder(MaskDecoder):  # type: ignore[misc]  # an untyped library's
    """SAM's mask decoder with K+1 tokens and H-SAM's order of attention.

    Args:
        classes: K+1, the background included.
        width: channels of the embedding.
        heads: of the transformer.
        mlp_dim: hidden width of the transformer.

    Raises:
        ConfigError: when a size is impossible.
    """

    def __init__(self, *, classes: int, width: int = 256, heads: int = 8, mlp_dim: int = 2048) -> None:
        _check(classes, width, heads)
        super().__init__(
            transformer_dim=width,
            transformer=ImageFirstTransformer(depth=2, embedding_dim=width, num_heads=heads, mlp_dim=mlp_dim),
            num_multimask_outputs=classes - 1,
            iou_head_hidden_dim=width,
        )
        self.iou_prediction_head.requires_grad_(False)  # its scores are never used

    def forward(self, embedding: Tensor, positions: Tensor, dense: Tensor) -> CoarseMasks:
        """Coarse masks of an embedding.

        Args:
            embedding: [B,C,h,w].
            positions: positional encoding [1,C,h,w].
            dense: embedding of "no mask", [1 or B,C,h,w].
        """
        batch, _, h, w = embedding.shape
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(batch, -1, -1)
        tokens, image = self.transformer(embedding + dense, positions, tokens)
        masks = tokens[:, 1:]
        upscaled = self.output_upscaling(image.transpose(1, 2).reshape(batch, -1, h, w))
        weights = torch.stack([mlp(masks[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        logits = (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
        return CoarseMasks(logits, masks @ image.transpose(1, 2), upscaled)


class FineDecoder(nn.Module):
    """H-SAM's second decoder: looks where the first one saw each class and answers at the image's own resolution.

    Its two self-attentions mix positions as channels, so their weights belong to one grid of tokens (14 x 14 at 224
    pixels, 32 x 32 at 512). Other grids are resized bilinearly to it and back.

    Args:
        classes: K+1, the background included.
        grid: side of the grid that the weights belong to, in tokens.
        width: channels of the embedding, a multiple of 16.
        heads: of the transformer.
        mlp_dim: hidden width of the transformer and of the positions' MLP.
        selection: ``positions`` strengthens the image by a softmax over positions; ``released`` reproduces the public
            code, where the softmax runs over one channel and is 1 everywhere: the image is doubled and the
            self-attentions have neither effect nor gradient. Weights trained by that code need it.
        noise: standard deviations of the training noise on the similarities, the rarest class first; () = none.
        dropout: probability (0..1) inside the guided transformer.
        similarity_dropout: probability (0..1) on the similarities.

    Raises:
        ConfigError: when a size or the selection is impossible.

    Reference:
        Cheng et al., H-SAM, CVPR 2024.
    """

    def __init__(
        self,
        *,
        classes: int,
        grid: int = 14,
        width: int = 256,
        heads: int = 8,
        mlp_dim: int = 2048,
        selection: str = "positions",
        noise: Sequence[float] = NOISE_LEVELS,
        dropout: float = 0.2,
        similarity_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        _check(classes, width, heads)
        if width % 16 or grid < 1:
            raise ConfigError(
                "impossible size", where="FineDecoder", got=(width, grid), expected="width n*16, grid >=1"
            )
        if selection not in SELECTIONS:
            raise ConfigError("unknown selection", where="FineDecoder", got=selection, expected=SELECTIONS)
        if any(level < 0 for level in noise):
            raise ConfigError("noise cannot be negative", where="FineDecoder", got=tuple(noise))
        self.grid, self.selection, self.noise = grid, selection, tuple(float(level) for level in noise)
        self.transformer2 = GuidedTransformer(
            depth=2, embedding_dim=width, num_heads=heads, mlp_dim=mlp_dim, dropout=dropout
        )
        self.mask_tokens = nn.Embedding(classes, width)
        self.output_upscaling = _upscaling(width, width // 4, width // 8, last_norm=False)
        self.skip_connect = _upscaling(width // 4, width // 8, width // 16, last_norm=True)
        self.output_hypernetworks_mlps2 = nn.ModuleList(MLP(width, width, width // 16, 5) for _ in range(classes))
        self.iou_prediction_head = MLP(width, width, classes, 3).requires_grad_(False)  # its scores are never used
        self._build_selection(classes, mlp_dim, similarity_dropout)

    def _build_selection(self, classes: int, mlp_dim: int, dropout: float) -> None:
        positions = self.grid**2
        self.similarity_dropout = nn.Dropout(dropout)
        self.self_attn = Attention(positions, position_heads(positions))
        self.norm1 = nn.LayerNorm(positions)
        self.self_attn2 = Attention(positions, position_heads(positions))
        self.norm2 = nn.LayerNorm(positions)
        self.mlp = MLPBlock(positions, mlp_dim, nn.ReLU)
        self.med_sel = nn.Sequential(nn.Linear(classes, 1), nn.ReLU())
        if self.selection == "released":
            for part in (self.self_attn, self.norm1, self.self_attn2, self.norm2, self.mlp, self.med_sel):
                part.requires_grad_(False)

    def forward(
        self, embedding: Tensor, positions: Tensor, dense: Tensor, coarse: CoarseMasks, labels: Tensor | None = None
    ) -> Tensor:
        """Fine logits [B,K+1,16h,16w].

        Args:
            embedding: [B,C,h,w].
            positions: positional encoding [1,C,h,w].
            dense: embedding of "no mask", [1 or B,C,h,w].
            coarse: the first decoder's answer.
            labels: [B,H,W] or [B,1,H,W], class indices that steer the noise in training; never read in eval mode.
        """
        batch, _, h, w = embedding.shape
        image = embedding + dense
        image = image + image * self.select(coarse.similarity, (h, w), labels)
        guide = F.interpolate(coarse.logits, size=(h, w), mode="bilinear").softmax(dim=1).flatten(2)
        tokens, keys = self.transformer2(image, positions, self.mask_tokens.weight.expand(batch, -1, -1), guide)
        upscaled = self.output_upscaling(keys.transpose(1, 2).reshape(batch, -1, h, w))
        upscaled = self.skip_connect(torch.cat([upscaled, coarse.upscaled], dim=1))
        weights = torch.stack([mlp(tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps2)], dim=1)
        logits: Tensor = (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
        return logits

    def select(self, similarity: Tensor, size: tuple[int, int], labels: Tensor | None = None) -> Tensor:
        """How much each position is strengthened, [B,1,h,w] (or the number 1 that the released code comes to).

        Args:
            similarity: [B,K+1,hw].
            size: (h, w).
            labels: as in :meth:`forward`.
        """
        if self.selection == "released":
            return similarity.new_ones(1, 1, 1, 1)
        if self.training:
            similarity = self.similarity_dropout(similarity)
            if labels is not None and self.noise:
                similarity = similarity + class_noise(similarity, labels, size, self.noise)
        grid = (self.grid, self.grid)
        features = _resized(similarity.unflatten(2, size), grid).flatten(2)
        features = self.norm1(self.self_attn(q=features, k=features, v=features))
        features = self.self_attn2(q=features, k=features, v=features)
        features = self.norm2(features + self.mlp(features))
        scores: Tensor = self.med_sel(features.transpose(1, 2)).transpose(1, 2).unflatten(2, grid)
        share: Tensor = _resized(scores, size).flatten(2).softmax(dim=2).unflatten(2, size)
        return share


def class_noise(similarity: Tensor, labels: Tensor, size: tuple[int, int], levels: Sequence[float]) -> Tensor:
    """Noise for the similarities: the rarer a class in the batch, the more of it.

    ``noise = mean(similarity) + σ_rank ε`` at the positions of a class, ``ε ~ N(0, 1)``, for the ``len(levels)``
    rarest classes and nothing for others.

    Args:
        similarity: [B,K+1,hw].
        labels: [B,H,W] or [B,1,H,W], class indices; sampled at the nearest pixel.
        size: (h, w).
        levels: σ, the rarest class first.

    Returns:
        [B,K+1,hw].

    Raises:
        ConfigError: when there are not as many label maps as similarities.

    Reference:
        H-SAM's released code at 224 pixels. It reads the first h w pixels of the label map instead of sampling it,
        and is hard-coded to nine classes.
    """
    labels = labels.as_subclass(Tensor)  # MONAI's labels would turn all that follows into theirs
    labels = labels if labels.ndim == 4 else labels[:, None]
    if labels.shape[:2] != (similarity.shape[0], 1):
        raise ConfigError(
            "labels do not belong to the images",
            where="H-SAM's training noise",
            got=list(labels.shape),
            expected=[similarity.shape[0], 1, "H", "W"],
        )
    sampled = F.interpolate(labels.float(), size=size, mode="nearest").flatten(2)  # [B,1,hw]
    _, inverse, counts = sampled.unique(return_inverse=True, return_counts=True)
    table = torch.zeros(max(len(counts), len(levels)), device=similarity.device, dtype=similarity.dtype)
    table[: len(levels)] = torch.as_tensor(levels, device=table.device, dtype=table.dtype)
    rank = torch.empty_like(counts).scatter_(0, counts.argsort(stable=True), torch.arange(len(counts)).to(counts))
    noised = (rank < len(levels))[inverse].to(similarity.dtype)
    return noised * similarity.mean() + table[rank][inverse] * torch.randn_like(similarity)


def position_heads(positions: int) -> int:
    """Heads of the attention over positions: the largest number up to 8 that divides them (7 at 196, 8 at 1024)."""
    return max(h for h in range(1, 9) if positions % h == 0)


def _upscaling(channels: int, hidden: int, out: int, *, last_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.ConvTranspose2d(channels, hidden, 2, 2), LayerNorm2d(hidden), nn.GELU()]
    layers += [nn.ConvTranspose2d(hidden, out, 2, 2), *([LayerNorm2d(out)] if last_norm else []), nn.GELU()]
    return nn.Sequential(*layers)


def _resized(grid: Tensor, size: tuple[int, int]) -> Tensor:
    return grid if grid.shape[2:] == size else F.interpolate(grid, size=size, mode="bilinear")


def _check(classes: int, width: int, heads: int) -> None:
    if classes < 2:
        raise ConfigError("too few classes", where="H-SAM", got=classes, expected="background and at least one more")
    if width % 8 or width % (2 * heads):
        raise ConfigError(
            "impossible width", where="H-SAM", got=width, expected=f"a multiple of 8 and of 2 x {heads} heads"
        )
