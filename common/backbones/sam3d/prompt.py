"""SAM-Med3D's prompt encoder: points, boxes and an earlier mask as tokens and as a map."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...errors import ConfigError, PromptError
from ...layers.channel_norm import ChannelNorm

__all__ = ["PositionCode3D", "PromptEncoder3D", "Prompts"]


class Prompts(NamedTuple):
    """What a user said, encoded.

    Args:
        sparse: tokens [B, N, C]: the points and a "not a point", or a box's two corners; N = 0 without either.
        dense: [B, C, g, g, g], an earlier mask or "no mask".
    """

    sparse: Tensor
    dense: Tensor


class PositionCode3D(nn.Module):
    """`[sin, cos, sin](2π (2x - 1) G)` of places x in 0..1, with a fixed random matrix G.

    The released dense code swaps the first two axes: what the map has at (i, j, k) equals the code of a point at
    (j, i, k). Public weights were trained with it, so it is kept.

    Args:
        channels: of the code, a multiple of 3.

    Raises:
        ConfigError: for another number of channels.
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        if channels % 3:
            raise ConfigError("a position code has three equal parts", got=channels, expected="a multiple of 3")
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(3, channels // 3))
        self._dense: tuple[Tensor, int, int, Tensor] | None = None

    def forward(self, places: Tensor) -> Tensor:
        """Code [..., C] of places [..., 3] in 0..1, in single precision also under autocast."""
        matrix = self.positional_encoding_gaussian_matrix
        code: Tensor
        with torch.autocast(matrix.device.type, enabled=False):
            angles = 2 * math.pi * ((2 * places.to(matrix.dtype) - 1) @ matrix)
            sine = angles.sin()
            code = torch.cat([sine, angles.cos(), sine], -1)
        return code

    def dense(self, grid: int) -> Tensor:
        """Code [1, C, g, g, g] of the centres of a cubic grid, axes swapped as released; computed once per matrix."""
        matrix = self.positional_encoding_gaussian_matrix
        version = -1 if matrix.is_inference() else matrix._version
        kept = self._dense
        if kept is not None and kept[0] is matrix and kept[1:3] == (version, grid) and version >= 0:
            return kept[3]
        with torch.inference_mode(False), torch.no_grad():  # a later training step may use what inference computed
            steps = (torch.arange(grid, device=matrix.device, dtype=matrix.dtype) + 0.5) / grid
            first, second, third = torch.meshgrid(steps, steps, steps, indexing="ij")
            code: Tensor = self(torch.stack([second, first, third], -1)).permute(3, 0, 1, 2)[None].contiguous()
        self._dense = (matrix, version, grid, code)
        return code


class PromptEncoder3D(nn.Module):
    """Points [B, N, 3], a box [B, 2, 3] and a mask [B, 1, 4g, 4g, 4g] as `Prompts`.

    Args:
        channels: C, a multiple of 3.
        image_size: voxels along each side of the image, which points refer to.
        grid: g, positions along each side of the embedding.
        mask_channels: width of the mask's convolutions, a multiple of 4.
        boxes: with two corner embeddings, which no released checkpoint has; they begin at the positive point's.

    Reference:
        Wang et al., SAM-Med3D, 2023. Its own boxes cannot run (two of the embeddings that they read do not exist).
    """

    def __init__(
        self, *, channels: int, image_size: int, grid: int, mask_channels: int = 16, boxes: bool = False
    ) -> None:
        super().__init__()
        self.channels, self.image_size, self.grid = channels, image_size, grid
        self.pe_layer = PositionCode3D(channels=channels)
        self.point_embeddings = nn.ModuleList([nn.Embedding(1, channels) for _ in range(2)])  # outside, inside
        self.not_a_point_embed = nn.Embedding(1, channels)
        self.mask_downscaling = nn.Sequential(
            nn.Conv3d(1, mask_channels // 4, 2, 2),
            ChannelNorm(mask_channels // 4),
            nn.GELU(),
            nn.Conv3d(mask_channels // 4, mask_channels, 2, 2),
            ChannelNorm(mask_channels),
            nn.GELU(),
            nn.Conv3d(mask_channels, channels, 1),
        )
        self.no_mask_embed = nn.Embedding(1, channels)
        self.box_embeddings = nn.Embedding(2, channels) if boxes else None
        self.start_boxes()

    def start_boxes(self, std: float = 0.02) -> None:
        """Corner embeddings from the positive point's, each moved by N(0, std²)."""
        if self.box_embeddings is not None:
            with torch.no_grad():
                weight = self.box_embeddings.weight
                weight.copy_(self._point(inside=True) + torch.randn_like(weight) * std)

    def dense_positions(self) -> Tensor:
        """Position code [1, C, g, g, g] of the embedding's grid."""
        return self.pe_layer.dense(self.grid)

    def forward(
        self,
        *,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> Prompts:
        """Encode what is given; the batch is 1 where nothing is.

        Args:
            points: voxels [B, N, 3] of the image, along its own axes.
            labels: [B, N]: 1 inside, 0 outside, -1 no point.
            boxes: voxels [B, 2, 3], low corner first, both inclusive; six NaN for a sample without a box.
            masks: earlier low-resolution logits [B, 1, 4g, 4g, 4g].

        Raises:
            PromptError: for shapes that do not fit, points without labels, or boxes that this network cannot read.
        """
        self._check(points, labels, boxes, masks)
        found = [given for given in (points, boxes, masks) if given is not None]
        batch = found[0].shape[0] if found else 1
        tokens = []
        if points is not None and labels is not None:
            tokens.append(self._points(points, labels, pad=boxes is None))
        if boxes is not None:
            tokens.append(self._boxes(boxes))
        sparse = torch.cat(tokens, 1) if tokens else self.no_mask_embed.weight.new_empty(batch, 0, self.channels)
        if masks is not None:
            return Prompts(sparse, self.mask_downscaling(masks))
        dense = self.no_mask_embed.weight.view(1, -1, 1, 1, 1).expand(batch, -1, *(self.grid,) * 3)
        return Prompts(sparse, dense)

    def _places(self, voxels: Tensor) -> Tensor:
        # [..., 3] voxels -> codes of their centres
        code: Tensor = self.pe_layer((voxels + 0.5) / self.image_size)
        return code

    def _point(self, *, inside: bool) -> Tensor:
        embedding = self.point_embeddings[int(inside)]
        assert isinstance(embedding, nn.Embedding)
        return embedding.weight

    def _points(self, points: Tensor, labels: Tensor, *, pad: bool) -> Tensor:
        if pad:
            points = nn.functional.pad(points, (0, 0, 0, 1))
            labels = nn.functional.pad(labels, (0, 1), value=-1)
        code = self._places(points)
        absent = self.not_a_point_embed.weight.expand_as(code)
        inside, outside = self._point(inside=True), self._point(inside=False)
        kind = labels[..., None]
        return torch.where(kind < 0, absent, code + torch.where(kind > 0, inside, outside))

    def _boxes(self, boxes: Tensor) -> Tensor:
        assert self.box_embeddings is not None
        missing = boxes.isnan().flatten(1).any(1)[:, None, None]
        code = self._places(boxes.masked_fill(missing, 0)) + self.box_embeddings.weight
        return torch.where(missing, self.not_a_point_embed.weight.expand_as(code), code)

    def _check(self, points: Tensor | None, labels: Tensor | None, boxes: Tensor | None, masks: Tensor | None) -> None:
        if (points is None) != (labels is None):
            raise PromptError("points and labels go together", got="points alone" if labels is None else "labels alone")
        if boxes is not None and self.box_embeddings is None:
            raise PromptError(
                "a checkpoint without box embeddings used with boxes",
                got=f"boxes {tuple(boxes.shape)}",
                expected="points: the released SAM-Med3D was never trained on boxes",
                hint="give points, or train a network that is built with boxes=True",
            )
        side = 4 * self.grid
        rules = (
            ("points", points, (None, 3)),
            ("labels", labels, (None if points is None else points.shape[1],)),
            ("boxes", boxes, (2, 3)),
            ("masks", masks, (1, side, side, side)),
        )
        batch = None
        for name, given, shape in rules:
            if given is None:
                continue
            batch = given.shape[0] if batch is None and given.ndim else batch
            fits = given.ndim == len(shape) + 1 and given.shape[0] == batch
            if not fits or any(want not in (None, have) for want, have in zip(shape, given.shape[1:], strict=True)):
                wanted = ", ".join("N" if n is None else str(n) for n in shape)
                raise PromptError(
                    f"{name} have another shape",
                    got=tuple(given.shape),
                    expected=f"[{'B' if batch is None else batch}, {wanted}]",
                )
