"""What SAM's parts cost: our encoder against segment-anything's, experts at once against experts switched by PEFT."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from common.backbones.sam.encoder import SamBlock, SamEncoder
from common.layers.lora.experts import add_experts, expert_names, expert_parameters, set_expert
from common.layers.lora.qkv import base_qkv, batched_qkv

from .measure import Case, relative

__all__ = ["LAPTOP", "PAPER", "PARTS", "cases", "growth", "library_encoder"]

ENCODERS = {
    "encoder_224": (224, {"faster": 1.0}),
    "encoder_256": (256, {"faster": 1.4, "multiply_adds": 1.4}),
    "encoder_512": (512, {"faster": 1.2, "tensors": 0.5}),
    "encoder_1024": (1024, {"faster": 1.5, "tensors": 0.2}),
}
PARTS = (*ENCODERS, "training", "experts")
LAPTOP = {"size": 256, "embed": 192, "depth": 3}
PAPER = {"size": 256, "embed": 768, "depth": 12}


def library_encoder(size: int, embed: int, depth: int) -> ImageEncoderViT:
    """Segment-anything's encoder with random weights and positions."""
    torch.manual_seed(0)
    encoder = ImageEncoderViT(
        img_size=size, embed_dim=embed, depth=depth, num_heads=max(1, embed // 64), out_chans=256,
        norm_layer=partial(nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=14,
        global_attn_indexes=tuple(range(2, depth, 3)),
    )  # fmt: skip
    for name, parameter in encoder.named_parameters():
        if "pos" in name:  # zero until it is trained, and a bias of zero could not be wrong
            nn.init.normal_(parameter, std=0.05)
    return encoder


def _encoder(part: str, embed: int, depth: int) -> Case:
    size, goals = ENCODERS[part]
    plain = library_encoder(size, embed, depth).eval()
    fast, image = SamEncoder(encoder=copy.deepcopy(plain)), torch.rand(1, 3, size, size)

    @torch.inference_mode()
    def theirs() -> Tensor:
        found: Tensor = plain(image)
        return found

    @torch.inference_mode()
    def ours() -> Tensor:
        found: Tensor = fast(image).embedding
        return found

    name = f"encoder at {size} vs segment-anything"
    return Case(name, theirs, ours, lambda: relative(ours(), theirs()), 1e-5, goals, tensors=True)


def _training(size: int, embed: int, depth: int) -> Case:
    plain = library_encoder(size, embed, depth)
    plain.requires_grad_(False)  # as beneath LoRA experts: gradients pass through, weights get none
    plain.patch_embed.requires_grad_(True)
    fast, image = SamEncoder(encoder=copy.deepcopy(plain)), torch.rand(1, 3, size, size)

    weight = torch.randn(1, 256, size // 16, size // 16)  # the mean square of normed features would be constant

    def backward(network: nn.Module) -> None:
        out = network(image)
        embedding: Tensor = out if isinstance(out, Tensor) else out.embedding
        (embedding * weight).sum().backward()

    def step(network: nn.Module) -> None:
        backward(network)
        network.zero_grad(set_to_none=True)  # here, so that the gradients are part of the next peak

    def gradients(network: nn.Module) -> Tensor:
        backward(network)
        found = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        network.zero_grad(set_to_none=True)
        return found

    def difference() -> float:
        given, ours = gradients(plain), gradients(fast)
        return float((ours - given).norm() / given.norm())

    goals = {"cpu_faster": 1.3, "tensors": 0.7} if size == 256 else {}
    name = f"gradients through frozen blocks at {size} vs segment-anything"
    return Case(name, partial(step, plain), partial(step, fast), difference, 1e-5, goals, tensors=True)


def _block(size: int, embed: int, count: int) -> tuple[SamBlock, Tensor]:
    block = SamEncoder(encoder=library_encoder(size, embed, 1)).blocks[0]
    assert isinstance(block, SamBlock)
    add_experts(block, [f"expert{i}" for i in range(count)])
    for level in expert_names(block):
        for parameter in expert_parameters(block, level).values():
            nn.init.normal_(parameter, std=0.1)
    return block.eval(), torch.randn(1, size // 16, size // 16, embed)


def _at_once(block: SamBlock, tokens: Tensor) -> Tensor:
    shortcut, normed = block.start(tokens)
    base = base_qkv(block.attn.qkv, normed)
    levels = expert_names(block)
    every = torch.cat([base[None], batched_qkv(block.attn.qkv, levels, normed, base)]).flatten(0, 1)
    return block.finish(shortcut.repeat(len(levels) + 1, 1, 1, 1), block.attend(every))


def _switched(block: SamBlock, tokens: Tensor) -> Tensor:
    found = []
    for level in (None, *expert_names(block)):
        set_expert(block, level)
        found.append(block(tokens))
    return torch.cat(found)


def _experts(size: int, embed: int, count: int) -> Case:
    block, tokens = _block(size, embed, count)

    @torch.inference_mode()
    def plain() -> Tensor:
        return _switched(block, tokens)

    @torch.inference_mode()
    def fast() -> Tensor:
        return _at_once(block, tokens)

    name = f"block with its {count} experts and without, at once vs switched by PEFT"
    return Case(name, plain, fast, lambda: relative(fast(), plain()), 1e-5, {}, tensors=True)


def cases(size: int, embed: int, depth: int, count: int, parts: Sequence[str] = PARTS) -> Iterator[Case]:
    """The comparisons, built one at a time so that none pays for another's memory.

    Args:
        size: pixels along each side of the image for `training` and `experts`.
        embed: width C of the encoder.
        depth: blocks; every third one is global.
        count: LoRA experts.
        parts: some of :data:`PARTS`, in this order.
    """
    for part in parts:
        if part in ENCODERS:
            yield _encoder(part, embed, depth)
        else:
            yield _training(size, embed, depth) if part == "training" else _experts(size, embed, count)


def growth(size: int, embed: int, depth: int, counts: Sequence[int]) -> Iterator[tuple[int, Callable[[], Tensor]]]:
    """A block with a growing number of experts, all at once."""
    del depth
    for count in counts:
        yield count, partial(_at_once, *_block(size, embed, count))
