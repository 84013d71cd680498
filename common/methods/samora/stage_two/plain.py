"""SAMora's encoder the long way: one whole pass of each block per expert, switched by PEFT."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ....backbones.sam.encoder import BlockParts
from ....layers.image_channels import repeated
from ....layers.lora.experts import set_expert
from .network import SAMora

__all__ = ["plain_features"]


def plain_features(network: SAMora, image: Tensor) -> Any:
    """What ``network.encode`` computes, without sharing anything: the reference for tests and benchmarks.

    ``product`` mixtures of several experts, which PEFT does not run without merging, are run as they are.

    Args:
        network: with fusers, one expert, or none.
        image: ``[B, 1 or 3, S, S]``.
    """
    return network.base.encode(repeated(image, 3), _PlainSteps(network))


class _PlainSteps:
    def __init__(self, network: SAMora) -> None:
        self.network = network

    def __call__(self, index: int, tokens: Tensor) -> Tensor:
        network = self.network
        encoder, block = network.base.image_encoder, network.blocks[index]
        try:
            if network.fusers is None:
                if len(network.levels) > 1:
                    return network.one_branch(index, tokens)
                set_expert(encoder, network.levels[0] if network.levels else None)
                return block(tokens)
            set_expert(encoder, None)
            own = self._said(block, tokens)
            signals = []
            for level in network.levels:
                set_expert(encoder, level)
                said = self._said(block, tokens)
                signals.append(said if network.expert_signal == "block" else said - own)
        finally:
            set_expert(encoder, None) if network.levels else None
        window = network.window_of(index, tokens.shape[1], own.shape[1])
        total: Tensor = own + network.fusers[index](torch.stack(signals), window).tokens
        return block.finish(block.start(tokens).shortcut, total) if network.expert_signal == "attn_residual" else total

    def _said(self, block: BlockParts, tokens: Tensor) -> Tensor:
        if self.network.expert_signal == "attn_residual":
            return block.attend(block.attn.qkv(block.start(tokens).normed))
        return block(tokens)
