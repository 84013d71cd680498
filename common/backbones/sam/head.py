"""SAM's prompt encoder and mask decoder for one embedding per image, with no prompt or one box each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import PromptError

__all__ = ["SamHead"]


class SamHead(nn.Module):
    """Logits of K classes from an image's embedding.

    One class is SAM's mask of a single object (token 0 of the K + 1), several are the tokens 1 to K.

    Args:
        prompt_encoder: segment-anything's.
        mask_decoder: segment-anything's with K + 1 mask tokens.
    """

    def __init__(self, *, prompt_encoder: nn.Module, mask_decoder: nn.Module) -> None:
        super().__init__()
        self.prompt_encoder: Any = prompt_encoder
        self.mask_decoder: Any = mask_decoder

    @property
    def classes(self) -> int:
        """K, without the background."""
        return int(self.mask_decoder.num_mask_tokens) - 1

    def forward(self, embedding: Tensor, box: Tensor | None = None) -> Tensor:
        """Logits ``[B, K, 4h, 4w]``.

        Args:
            embedding: ``[B, C, h, w]``.
            box: low and high corner ``[B, 2, 2]``, pixels along the two axes; None for no prompt.

        Raises:
            PromptError: for boxes that are not one per image.
        """
        decoder, batch = self.mask_decoder, len(embedding)
        if box is not None and box.shape != (batch, 2, 2):
            raise PromptError("one box per image", got=tuple(box.shape), expected=(batch, 2, 2))
        # segment-anything names the last axis first
        sparse, dense = self.prompt_encoder(None, None if box is None else box.flip(-1).flatten(1), None)
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], 1)
        answers, source = decoder.transformer(embedding + dense, self.prompt_encoder.get_dense_pe(), tokens)
        pixels = decoder.output_upscaling(source.transpose(1, 2).reshape(embedding.shape))
        wanted = range(1) if self.classes == 1 else range(1, self.classes + 1)
        weights = torch.stack([decoder.output_hypernetworks_mlps[i](answers[:, 1 + i]) for i in wanted], 1)
        return torch.einsum("bkc,bcyx->bkyx", weights.expand(batch, -1, -1), pixels)
