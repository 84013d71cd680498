"""One 1x1 convolution per label space; every sample is decoded by its own data set's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import ConfigError

__all__ = ["ClassHeads"]


class ClassHeads(nn.Module):
    """Logits over the union of all label spaces, of the classes that the sample's own head knows and no others.

    A class that the head does not know gets minus infinity, so that a softmax over the union is a softmax over the
    head's own classes. Samples are grouped by head.

    Args:
        channels: width C of the features.
        classes: for each head its union indices, the background's 0 first.
        total: classes of the union K + 1.

    Shapes:
        features ``[B, C, H, W]``, head ``[B]`` -> logits ``[B, K+1, H, W]``.

    Raises:
        ConfigError: for heads without background, repeated or unknown classes.

    Reference:
        M4oE, section 2.3 ("dynamic selection"); the union in place of padding is ours.
    """

    def __init__(self, *, channels: int, classes: Sequence[Sequence[int]], total: int) -> None:
        super().__init__()
        self.total = total
        self.outputs = nn.ModuleList()
        self.classes: list[tuple[int, ...]] = []
        self.channels = channels
        for own in classes:
            self.append(own)

    def append(self, classes: Sequence[int], total: int | None = None) -> None:
        """Add a head; the others stay as they are.

        Args:
            classes: its union indices, the background's 0 first.
            total: classes of the union, which may have grown; as before when None.

        Raises:
            ConfigError: for a head without background, repeated or unknown classes.
        """
        total = self.total if total is None else total
        own = tuple(int(c) for c in classes)
        if (
            total < self.total
            or not own
            or own[0] != 0
            or len(set(own)) != len(own)
            or not 0 <= min(own) <= max(own) < total
        ):
            problem = "a head's classes are union indices with the background first"
            raise ConfigError(problem, got=own, expected=f"0, then different ones below {total}")
        like = next((p for p in self.outputs.parameters()), None)
        head = nn.Conv2d(self.channels, len(own), 1, bias=False)
        nn.init.trunc_normal_(head.weight, std=0.02)
        self.outputs.append(head if like is None else head.to(like))
        self.classes.append(own)
        self.total = total

    def forward(self, features: Tensor, head: Tensor) -> Tensor:
        """Decode every sample by its own head."""
        if head.shape != features.shape[:1] or head.is_floating_point():
            got = f"{tuple(head.shape)} {head.dtype}"
            raise ConfigError("one head's number per sample", got=got, expected=f"{tuple(features.shape[:1])} integers")
        asked = sorted(set(head.tolist()))
        if asked and not 0 <= asked[0] <= asked[-1] < len(self.outputs):
            raise ConfigError(
                "a sample asks for a head that there is not", got=asked, expected=f"0 .. {len(self.outputs) - 1}"
            )
        shape = [features.shape[0], self.total, *features.shape[2:]]
        logits = features.new_full(shape, -torch.inf)
        for h in asked:
            rows = (head == h).nonzero()[:, 0]
            own = torch.tensor(self.classes[h], device=features.device)
            logits[rows[:, None], own] = self.outputs[h](features[rows]).to(logits.dtype)
        return logits
