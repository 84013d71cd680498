"""A promptable network without weights worth training: grows over what looks like the voxel that was clicked first."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Asked(NamedTuple):
    points: Tensor | None
    labels: Tensor | None
    boxes: Tensor | None
    masks: Tensor | None


class Answer(NamedTuple):
    masks: Tensor
    iou: Tensor


class Routed(NamedTuple):
    masks: Tensor
    iou: Tensor
    scores: Tensor
    chosen: Tensor


class GrowingNetwork(nn.Module):
    """``logit = 3 - sharp (x - x_click)^2 - (d / reach)^2`` around the first inside click, a bump at all later clicks.

    The embedding ``[B, 64, g, g, g]`` is the image at the low resolution s = 4 g, folded; it counts its calls.
    """

    def __init__(self, image_size: int = 32, cells: int = 4, boxes: bool = True, experts: int = 0) -> None:
        super().__init__()
        self.image_size, self.cells, self.boxes, self.experts = image_size, cells, boxes, experts
        self.sharp = nn.Parameter(torch.tensor(4.0))
        self.carry = nn.Parameter(torch.tensor(0.3))
        self.reach = 0.6 * image_size
        self.encoded: list[Tensor] = []
        self.asked: list[Asked] = []

    def encode(self, image: Tensor) -> Tensor:
        self.encoded.append(image)
        g = self.cells
        small = F.adaptive_avg_pool3d(image, 4 * g).reshape(len(image), g, 4, g, 4, g, 4)
        return small.permute(0, 2, 4, 6, 1, 3, 5).reshape(len(image), 64, g, g, g)

    def prompts(
        self,
        *,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> Asked:
        assert (points is None) == (labels is None)
        self.asked.append(Asked(points, labels, boxes, masks))
        return self.asked[-1]

    def decode(self, embedding: Tensor, prompts: Asked) -> Any:
        B, g = len(embedding), self.cells
        image = embedding.reshape(B, 4, 4, 4, g, g, g).permute(0, 4, 1, 5, 2, 6, 3).reshape(B, 4 * g, 4 * g, 4 * g)
        step = self.image_size / (4 * g)
        line = (torch.arange(4 * g) + 0.5) * step - 0.5
        at = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1)
        logits = torch.stack([self._one(image[b], at, prompts, b, step) for b in range(B)])[:, None]
        if prompts.masks is not None:
            logits = logits + self.carry * prompts.masks.clamp(-4, 4)
        iou = torch.full((B, 1), 0.5)
        if not self.experts:
            return Answer(logits, iou)
        clicks = 0 if prompts.points is None else prompts.points.shape[1]
        scores = torch.softmax(torch.arange(self.experts + 1.0) * 0.5 * clicks, 0).expand(B, -1)
        return Routed(logits, iou, scores, scores.argmax(1))

    def _one(self, image: Tensor, at: Tensor, prompts: Asked, b: int, step: float) -> Tensor:
        logits = torch.full(image.shape, -2.0)
        if prompts.boxes is not None:
            low, high = prompts.boxes[b]
            logits = torch.where(((at >= low - 0.5) & (at <= high + 0.5)).all(-1), 3.0, logits)
        if prompts.points is None or prompts.labels is None:
            return logits
        first = True
        for point, label in zip(prompts.points[b], prompts.labels[b], strict=True):
            far = ((at - point) ** 2).sum(-1)
            if label == 1 and first:
                cell = [min(int(c / step), image.shape[0] - 1) for c in point]
                like = 3.0 - self.sharp * (image - image[tuple(cell)]) ** 2 - far / self.reach**2
                logits, first = torch.maximum(logits, like), False
            elif label >= 0:
                logits = logits + (12.0 * label - 6.0) * torch.exp(-far / (2 * step**2))
        return logits

    def upsample(self, low_res: Tensor) -> Tensor:
        return F.interpolate(low_res, size=(self.image_size,) * 3, mode="trilinear", align_corners=False)


@pytest.fixture
def growing() -> Callable[..., GrowingNetwork]:
    """Builds a promptable network; ``growing(experts=2)`` answers with gate scores."""
    return GrowingNetwork
