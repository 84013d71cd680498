"""What SAMora costs: four passes of segment-anything's blocks per block, against what we share among them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from common.backbones.sam.encoder import SamEncoder
from common.backbones.sam.network import Sam, sam_network
from common.layers.fusion.hl_attention import LEVELS, HLAttention
from common.layers.lora.experts import add_experts, expert_parameters, set_expert
from common.methods.samora.stage_two.network import SAMora
from common.methods.samora.stage_two.plain import plain_features

from .measure import Case, relative
from .sam import library_encoder

__all__ = ["LAPTOP", "PAPER", "PARTS", "cases", "growth"]

PARTS = ("inference_224", "inference_512", "training", "low_memory", "switching")
LAPTOP = {"size": 224, "embed": 192, "depth": 3}
PAPER = {"size": 224, "embed": 768, "depth": 12}


@dataclass(frozen=True)
class Pair:
    """The same function twice: segment-anything's encoder with PEFT's adapters, and our network around a copy of it."""

    published_encoder: ImageEncoderViT
    network: SAMora

    def step(self, index: int, tokens: Tensor) -> Tensor:
        """A block as published: one whole pass of segment-anything's block per expert and one without."""
        block = self.published_encoder.blocks[index]
        set_expert(block, None)
        own = block(tokens)
        signals = []
        for level in self.network.levels:
            set_expert(block, level)
            signals.append(block(tokens) - own)
        window, fusers = self.network.window_of(index, tokens.shape[1], own.shape[1]), self.network.fusers
        assert fusers is not None
        total: Tensor = own + fusers[index](torch.stack(signals), window).tokens
        return total

    def published(self, image: Tensor) -> Tensor:
        """Logits the published way."""
        logits: Tensor = self.network.base.decode(self.network.base.encode(image, self.step)).coarse
        return logits

    def ours(self, image: Tensor) -> Tensor:
        """Logits our way."""
        logits: Tensor = self.network(image).logits
        return logits


def _pair(size: int, embed: int, depth: int, count: int, *, checkpointing: bool = False) -> Pair:
    levels = LEVELS[:count]
    library = library_encoder(size, embed, depth).eval()
    whole = sam_network("tiny", image_size=size, classes=9, seed=0)
    decoder = sam_network("vit_b", image_size=size, classes=9, seed=0) if embed == PAPER["embed"] else whole
    if decoder is whole:  # the tiny decoder reads 32 channels
        library.neck = nn.Sequential(library.neck, nn.Conv2d(256, 32, 1))
    base = Sam(image_encoder=SamEncoder(encoder=copy.deepcopy(library)), prompt_encoder=decoder.prompt_encoder,
               mask_decoder=decoder.mask_decoder)  # fmt: skip
    for encoder in (library, base.image_encoder):
        add_experts(encoder, levels)
    fusers = [
        HLAttention(channels=embed, levels=levels, d_attn=128 if decoder is not whole else 32) for _ in range(depth)
    ]
    for parameter in nn.ModuleList(fusers).parameters():  # an output of zeros could not be wrong
        nn.init.normal_(parameter, std=0.05)
    for level in levels:
        theirs = expert_parameters(library, level)
        for name, parameter in expert_parameters(base.image_encoder, level).items():
            nn.init.normal_(parameter, std=0.1)
            theirs[name].data.copy_(parameter.data)
    library.requires_grad_(False)
    network = SAMora(base=base, levels=levels, fusers=fusers, checkpointing=checkpointing)
    return Pair(library, network)


def _inference(size: int, embed: int, depth: int, count: int, goals: dict[str, float]) -> Case:
    pair, image = _pair(size, embed, depth, count), torch.rand(1, 3, size, size)
    pair.network.eval()
    plain = torch.inference_mode()(partial(pair.published, image))
    fast = torch.inference_mode()(partial(pair.ours, image))
    name = f"inference at {size} vs four passes of segment-anything's blocks"
    return Case(name, plain, fast, lambda: relative(fast(), plain()), 1e-4, goals, tensors=True)


def _training(size: int, embed: int, depth: int, count: int, *, checkpointing: bool) -> Case:
    pair, image = _pair(size, embed, depth, count, checkpointing=checkpointing), torch.rand(1, 3, size, size)
    pair.network.train()
    trained = pair.network.trainable()
    weight = torch.randn(1, 9, size // 4, size // 4)

    def backward(way: Callable[[Tensor], Tensor]) -> None:
        (way(image) * weight).sum().backward()

    def step(way: Callable[[Tensor], Tensor]) -> None:
        backward(way)
        pair.network.zero_grad(set_to_none=True)

    def gradients(way: Callable[[Tensor], Tensor]) -> Tensor:
        backward(way)
        found = torch.cat([p.grad.flatten() for p in trained if p.grad is not None])
        pair.network.zero_grad(set_to_none=True)
        return found

    def difference() -> float:
        given, ours = gradients(pair.published), gradients(pair.ours)
        return float((ours - given).norm() / given.norm())

    goals = {"tensors": 0.2} if checkpointing else {"faster": 1.15}
    name = f"training step at {size}" + (", blocks computed again" if checkpointing else "") + " vs four passes"
    return Case(name, partial(step, pair.published), partial(step, pair.ours), difference, 1e-4, goals, tensors=True)


def _switching(size: int, embed: int, depth: int, count: int) -> Case:
    pair, image = _pair(size, embed, depth, count), torch.rand(1, 3, size, size)
    pair.network.eval()

    @torch.inference_mode()
    def switched() -> Tensor:
        found: Tensor = plain_features(pair.network, image).embedding
        return found

    @torch.inference_mode()
    def at_once() -> Tensor:
        found: Tensor = pair.network.encode(image).embedding
        return found

    name = f"encoder at {size}, experts at once vs our blocks with experts switched by PEFT"
    return Case(name, switched, at_once, lambda: relative(at_once(), switched()), 1e-4, {}, tensors=True)


def cases(size: int, embed: int, depth: int, count: int, parts: Sequence[str] = PARTS) -> Iterator[Case]:
    """The comparisons, built one at a time so that none pays for another's memory.

    Args:
        size: pixels along each side of the image for `training`, `low_memory` and `switching`.
        embed: width C of the encoder.
        depth: blocks; every third one is global.
        count: experts, 2 or 3.
        parts: some of :data:`PARTS`, in this order.
    """
    sizes = {"embed": embed, "depth": depth, "count": count}
    for part in parts:
        if part.startswith("inference"):
            yield _inference(int(part[-3:]), **sizes, goals={"faster": 1.15 if part.endswith("224") else 1.45})
        elif part == "switching":
            yield _switching(size, **sizes)
        else:
            yield _training(size, **sizes, checkpointing=part == "low_memory")


def growth(size: int, embed: int, depth: int, counts: Sequence[int]) -> Iterator[tuple[int, Callable[[], Tensor]]]:
    """Inference with a growing number of experts (2 or 3: one needs no fuser)."""
    for count in sorted({max(2, min(c, len(LEVELS))) for c in counts}):
        pair, image = _pair(size, embed, depth, count), torch.rand(1, 3, size, size)
        pair.network.eval()
        yield count, torch.inference_mode()(partial(pair.ours, image))
