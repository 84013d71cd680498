"""SAM-Med3D's mask decoder: prompts ask an embedding, mask tokens answer; also the shape of each expert."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from segment_anything.modeling import TwoWayTransformer
from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError, PromptError
from ...layers.channel_norm import ChannelNorm

__all__ = ["MaskDecoder3D", "MaskLogits", "mask_decoder_3d"]

_MASKS = 4  # one for a clear prompt, three for an ambiguous one


class MaskLogits(NamedTuple):
    """What a decoder says.

    Args:
        masks: low-resolution logits [B, 1, 4g, 4g, 4g], three for multimask.
        iou: its own estimate of each mask's overlap [B, 1] or [B, 3].
    """

    masks: Tensor
    iou: Tensor


class MaskDecoder3D(nn.Module):
    """Two-way attention between tokens and voxels, up-sampling by 4, one linear map per mask token.

    Up-sampling runs as matrix products on tokens, `[.., C] -> [.., 8, C/4] -> [.., 8, 8, C/8]`, and only the finished
    masks are put in place: a transposed convolution whose stride is its kernel computes each voxel on its own, and
    norms and GELUs do not care where a voxel lies. Only the maps of the masks that are asked for are computed, so that
    the others get no gradient.

    Args:
        channels: C, a multiple of 16.
        hidden: width of the MLPs in the attention blocks.
        iou_hidden: width of the head that estimates the overlap.
        depth: two-way blocks.
        heads: attention heads.

    Reference:
        Kirillov et al., Segment Anything, 2023; Wang et al., SAM-Med3D, 2023.
    """

    def __init__(
        self, *, channels: int = 384, hidden: int = 2048, iou_hidden: int = 256, depth: int = 2, heads: int = 8
    ) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(depth=depth, embedding_dim=channels, mlp_dim=hidden, num_heads=heads)
        self.iou_token = nn.Embedding(1, channels)
        self.mask_tokens = nn.Embedding(_MASKS, channels)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose3d(channels, channels // 4, 2, 2),
            ChannelNorm(channels // 4),
            nn.GELU(),
            nn.ConvTranspose3d(channels // 4, channels // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            [MLP(channels, channels, channels // 8, 3) for _ in range(_MASKS)]
        )
        self.iou_prediction_head = MLP(channels, iou_hidden, _MASKS, 3)

    def forward(
        self, embedding: Tensor, positions: Tensor, sparse: Tensor, dense: Tensor, *, multimask: bool = False
    ) -> MaskLogits:
        """Masks of an embedding under prompts.

        Args:
            embedding: [B, C, g, g, g], or one that all prompts share [1, C, g, g, g].
            positions: code of its grid [1, C, g, g, g].
            sparse: prompt tokens [B, N, C].
            dense: [B, C, g, g, g].
            multimask: the three masks of an ambiguous prompt instead of the one of a clear prompt.

        Raises:
            PromptError: when the batches do not fit.
        """
        batch = _batch(embedding, sparse, dense)
        grid = embedding.shape[2:]
        # no copies: what the batch shares keeps one row until an attention tells the samples apart
        shared = dense.shape[0] > 1 and dense.stride(0) == 0
        source = embedding + (dense[:1] if shared else dense)
        asked = slice(1, None) if multimask else slice(0, 1)
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])[None].expand(sparse.shape[0], -1, -1)
        tokens = torch.cat([own, sparse], 1)
        answers, voxels = self.transformer(source.flatten(2)[..., None], positions.flatten(2)[..., None], tokens)
        heads = list(self.output_hypernetworks_mlps)[asked]
        weights = torch.stack([head(answers[:, 1 + i]) for i, head in zip(range(_MASKS)[asked], heads, strict=True)], 1)
        logits = self._upscale(voxels) @ weights.mT
        iou: Tensor = self.iou_prediction_head(answers[:, 0])[:, asked]
        return MaskLogits(_put_in_place(logits, grid).expand(batch, -1, -1, -1, -1), iou.expand(batch, -1))

    def _upscale(self, voxels: Tensor) -> Tensor:
        # [B, N, C] -> [B, N * 64, C/8], the voxels of a token in two steps of 2 x 2 x 2
        first, norm, gelu, second, last = self.output_upscaling
        assert isinstance(first, nn.ConvTranspose3d) and isinstance(second, nn.ConvTranspose3d)
        assert isinstance(norm, ChannelNorm)
        coarse = gelu(norm.last(_spread(voxels, first)))
        fine: Tensor = last(_spread(coarse, second)).flatten(1, 3)
        return fine


def _spread(tokens: Tensor, convolution: nn.ConvTranspose3d) -> Tensor:
    # a transposed convolution with kernel and stride 2, [.., C] -> [.., 8, C'], nothing put in place yet
    assert convolution.bias is not None
    matrix = convolution.weight.permute(2, 3, 4, 1, 0).flatten(0, 3)
    spread: Tensor = F.linear(tokens, matrix, convolution.bias.repeat(8)).unflatten(-1, (8, -1))
    return spread


def _put_in_place(logits: Tensor, grid: Sequence[int]) -> Tensor:
    # [B, N * 64, T] -> [B, T, 4g, 4g, 4g]
    parts = logits.mT.unflatten(2, (*grid, *(2,) * 6)).permute(0, 1, 2, 5, 8, 3, 6, 9, 4, 7, 10)
    masks: Tensor = parts.reshape(*logits.mT.shape[:2], *(4 * g for g in grid))
    return masks


def _batch(embedding: Tensor, sparse: Tensor, dense: Tensor) -> int:
    sizes = {part.shape[0] for part in (embedding, sparse, dense)}
    if len(sizes - {1}) > 1:
        raise PromptError(
            "embeddings and prompts have different batches",
            got=f"{embedding.shape[0]} embeddings, {sparse.shape[0]} sets of points, {dense.shape[0]} masks",
            expected="one number, or 1 for what all share",
        )
    return max(sizes)


def mask_decoder_3d(channels: int = 384, *, hidden: int = 2048, iou_hidden: int = 256) -> MaskDecoder3D:
    """A decoder with random weights: the general one of `Sam3D`, copied for each expert.

    Args:
        channels: of the embedding, a multiple of 48.
        hidden: width of the MLPs in its attention blocks.
        iou_hidden: width of the head that estimates the overlap.

    Raises:
        ConfigError: for an impossible number of channels.
    """
    if channels <= 0 or channels % 48:
        raise ConfigError(
            "a decoder's channels are split by 3 in codes and by 16 in heads",
            got=channels,
            expected="a multiple of 48, such as 384",
        )
    return MaskDecoder3D(channels=channels, hidden=hidden, iou_hidden=iou_hidden)
