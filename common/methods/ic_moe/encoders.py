"""IC-MoE's three encoders around one frozen SAM encoder: what they share is computed and kept once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...backbones.sam.encoder import SamBlock, SamEncoder
from ...errors import ConfigError
from ...layers.frozen_features import FrozenFeatures
from ...layers.lora.experts import add_experts
from ...layers.sam_adapters import BlockAdapter

__all__ = ["EXPERTS", "SAMED", "ExpertEncoders", "ExpertFeatures", "Frozen"]

EXPERTS = ("basic", "semantic", "adaptive")
SAMED = "samed"


class ExpertFeatures(NamedTuple):
    """What the experts know of images.

    Args:
        embedding: for the decoders, ``[E, B, C', h, w]``.
        tokens: before the neck, ``[E, B, h, w, C]``; None unless asked for.
    """

    embedding: Tensor
    tokens: Tensor | None


class Frozen(NamedTuple):
    """What nothing trainable comes before, ``[B, h, w, C]`` each.

    Args:
        attended: what the first block's attention says.
        shared: tokens before the blocks that the semantic expert trains; empty without basic and semantic.
        basic: tokens after the last block; empty without the basic expert.
    """

    attended: Tensor
    shared: Tensor
    basic: Tensor


class ExpertEncoders(nn.Module):
    """One frozen encoder, and what makes three experts of it.

    * **basic**: the encoder as it is.
    * **semantic**: its last blocks again, trainable; everything before them is the basic expert's, computed once.
    * **adaptive**: all its blocks with trainable adapters; patches and the first attention are the others', too.
    * **samed**: no expert of the method but a baseline, alone: LoRA on the queries and values of all blocks.

    Args:
        encoder: with its weights; frozen here.
        experts: which there are, a part of :data:`EXPERTS`, or :data:`SAMED` alone.
        semantic_blocks: how many of the last blocks the semantic expert trains, >= 1 and fewer than there are.
        adapter_ratio: width of the adapters' bottleneck over C.
        adapter_init: ``zero``: the adaptive expert begins as the basic one; ``default``: as torch draws layers.
        lora_rank: of the baseline's LoRA.
        checkpointing: in training keep only the tokens between trainable blocks and compute the rest again.
        cache_gb: gigabytes of main memory for what is frozen; pays where images repeat exactly.

    Raises:
        ConfigError: for no or unknown experts, or an impossible number of blocks.

    Reference:
        IC-MoE, section 3.2 and Table 6. Three whole encoders there, of which two and ten blocks of the third are equal.
        The baseline: SAMed (Zhang and Liu, arXiv 2304.13785).
    """

    def __init__(
        self,
        *,
        encoder: SamEncoder,
        experts: Sequence[str] = EXPERTS,
        semantic_blocks: int = 2,
        adapter_ratio: float = 0.25,
        adapter_init: str = "zero",
        lora_rank: int = 4,
        checkpointing: bool = False,
        cache_gb: float = 0.0,
    ) -> None:
        super().__init__()
        samed = tuple(experts) == (SAMED,)
        if not (samed or (experts and set(experts) <= set(EXPERTS))):
            expected = f"some of {', '.join(EXPERTS)}, or {SAMED} alone"
            raise ConfigError("unknown experts", where="experts", got=list(experts), expected=expected)
        depth = len(encoder.blocks)
        if not 1 <= semantic_blocks < depth:
            problem = "the semantic expert trains some of the last blocks"
            raise ConfigError(problem, where="semantic_blocks", got=semantic_blocks, expected=f"1 .. {depth - 1}")
        self.encoder = encoder.requires_grad_(False)
        if samed:
            add_experts(self.encoder, (SAMED,), rank=lora_rank)
        self.experts = tuple(e for e in (*EXPERTS, SAMED) if e in experts)
        self.first = depth - semantic_blocks
        self.checkpointing = checkpointing
        last: Any = encoder.blocks[self.first :]
        self.semantic = copy.deepcopy(last).requires_grad_(True) if "semantic" in experts else None
        made = partial(BlockAdapter, channels=encoder.embed_dim, ratio=adapter_ratio, init=adapter_init)
        self.adapters = nn.ModuleList([made() for _ in range(depth)]) if "adaptive" in experts else None
        self.cache = FrozenFeatures(gigabytes=cache_gb) if cache_gb and not samed else None

    @property
    def image_size(self) -> int:
        """Pixels along each side of an image."""
        return self.encoder.image_size

    def train(self, mode: bool = True) -> ExpertEncoders:
        """Switch between training and evaluation; the frozen encoder always evaluates."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, image: Tensor, *, tokens: bool = False, frozen: Frozen | None = None) -> ExpertFeatures:
        """Features of ``[B, 3, S, S]``.

        Args:
            image: as the encoder wants it.
            tokens: also return what comes before the neck.
            frozen: what :meth:`frozen` says of the same images.
        """
        with torch.no_grad():
            patches = self.encoder.embed(image)
            if frozen is None:
                frozen = self._kept(image) if self.cache is not None and self.training else self._frozen(patches)
        ends = [self._end(expert, patches, frozen) for expert in self.experts]
        embedding = torch.stack([self._neck(expert, end) for expert, end in zip(self.experts, ends, strict=True)])
        return ExpertFeatures(embedding, torch.stack(ends) if tokens else None)

    @torch.no_grad()
    def frozen(self, image: Tensor) -> Frozen:
        """What nothing trainable comes before, from memory where it is there."""
        if self.cache is not None and self.training:
            return self._kept(image)
        return self._frozen(self.encoder.embed(image))

    def _kept(self, image: Tensor) -> Frozen:
        assert self.cache is not None
        return Frozen(*self.cache(image, self._compute))

    def _compute(self, image: Tensor) -> Frozen:
        return self._frozen(self.encoder.embed(image))

    def _frozen(self, patches: Tensor) -> Frozen:
        if self.experts == (SAMED,):  # trainable from the first block on
            return Frozen(*(patches.new_empty(len(patches), 0),) * 3)
        block = cast(SamBlock, self.encoder.blocks[0])
        shortcut, normed = block.start(patches)
        attended = block.attend(block.attn.qkv(normed))
        shared = basic = attended.new_empty(len(attended), 0)
        if {"basic", "semantic"} & set(self.experts):
            shared = block.finish(shortcut, attended)
            for index in range(1, self.first):
                shared = self.encoder.blocks[index](shared)
        if "basic" in self.experts:
            basic = shared
            for index in range(self.first, len(self.encoder.blocks)):
                basic = self.encoder.blocks[index](basic)
        return Frozen(attended, shared, basic)

    def _end(self, expert: str, patches: Tensor, frozen: Frozen) -> Tensor:
        """Tokens after the last block."""
        if expert == "basic":
            return frozen.basic
        if expert == "semantic":
            tokens = frozen.shared
            for block in self.semantic or ():
                tokens = self._run(block, tokens)
            return tokens
        if expert == SAMED:
            tokens = patches
            for block in self.encoder.blocks:
                tokens = self._run(block, tokens)
            return tokens
        assert self.adapters is not None
        first: Any = self.adapters[0]
        tokens = self._run(first.finish, self.encoder.blocks[0], patches, frozen.attended)
        for adapter, block in zip(self.adapters[1:], self.encoder.blocks[1:], strict=True):
            tokens = self._run(adapter, block, tokens)
        return tokens

    def _neck(self, expert: str, tokens: Tensor) -> Tensor:
        if expert == "basic":
            with torch.no_grad():
                return self.encoder.finish(tokens)
        return self.encoder.finish(tokens)

    def _run(self, step: Any, *inputs: Any) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            again: Tensor = checkpoint(step, *inputs, use_reentrant=False)
            return again
        out: Tensor = step(*inputs)
        return out
