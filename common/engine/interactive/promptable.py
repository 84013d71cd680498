"""What a network must offer to be clicked at: four calls and two facts, whatever its class."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

__all__ = ["Decoded", "Promptable", "SelfTraining", "low_res_size"]


class Decoded(Protocol):
    """A decoder's answer; a mixture's has ``scores`` ``[B, m+1]`` and ``chosen`` ``[B]`` besides."""

    @property
    def masks(self) -> Tensor:
        """Low-resolution logits ``[B, 1, s, s, s]``."""


class Promptable(Protocol):
    """A network that encodes an image once and answers prompts on the embedding."""

    @property
    def image_size(self) -> int:
        """Voxels along each side of a crop, S."""

    @property
    def boxes(self) -> bool:
        """Whether it knows box prompts."""

    def encode(self, image: Tensor) -> Tensor:
        """``[B, 1, S, S, S]`` -> ``[B, C, g, g, g]``."""

    def prompts(
        self,
        *,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> Any:
        """Points ``[B, N, 3]`` with labels ``[B, N]``, boxes ``[B, 2, 3]``, masks ``[B, 1, s, s, s]`` to tokens."""

    def decode(self, embedding: Tensor, prompts: Any) -> Decoded:
        """Low-resolution logits for an embedding and prompts."""

    def upsample(self, low_res: Tensor) -> Tensor:
        """``[B, 1, s, s, s]`` -> ``[B, 1, S, S, S]``."""


class SelfTraining(Protocol):
    """A network, such as a mixture, that says itself what of it is trained."""

    def trains(self, name: str) -> bool:
        """Whether the parameter of this name is."""


def low_res_size(embedding: Tensor) -> int:
    """Side s of the low-resolution logits: four times the embedding's."""
    return 4 * int(embedding.shape[-1])
