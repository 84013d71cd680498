"""What IC-MoE costs: three whole passes of segment-anything's encoder per picture, against what we share among them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from segment_anything.modeling.image_encoder import window_partition, window_unpartition
from torch import Tensor, nn

from common.backbones.sam.encoder import SamEncoder
from common.backbones.sam.head import SamHead
from common.backbones.sam.network import sam_decoder
from common.layers.fusion.voting import PixelVoting
from common.methods.ic_moe.encoders import ExpertEncoders, ExpertFeatures, Frozen
from common.methods.ic_moe.loss import ICMoELoss
from common.methods.ic_moe.network import ContrastMaps, ICMoE, needed

from .measure import Case, relative
from .sam import library_encoder

__all__ = ["LAPTOP", "PAPER", "PARTS", "cases", "growth"]

GOALS = {
    "inference_256": {"faster": 2.1},
    "inference_512": {"faster": 1.8},
    "training": {"faster": 1.9},
    "training_cached": {"faster": 2.8},
}
PARTS = tuple(GOALS)
LAPTOP = {"size": 256, "embed": 192, "depth": 6}
PAPER = {"size": 256, "embed": 768, "depth": 12}
_CACHE_GB = 1.0


class PublishedEncoders(nn.Module):
    """Three whole encoders, as published: padded windows, the space adapter on them, nothing shared.

    Args:
        encoder: segment-anything's.
        ours: whose trainable blocks and adapters are used, so that both are one function.
    """

    def __init__(self, *, encoder: Any, ours: ExpertEncoders) -> None:
        super().__init__()
        self.experts, self.image_size, self.cache, self.semantic = ours.experts, ours.image_size, None, ours.semantic
        self.basic, self.last = encoder, copy.deepcopy(encoder.blocks[ours.first :])
        self.first = ours.first
        self.adapters: Any = ours.adapters

    def frozen(self, image: Tensor) -> Frozen:
        """Nothing: everything is computed in each pass."""
        return Frozen(*(image.new_empty(len(image), 0) for _ in Frozen._fields))

    def forward(self, image: Tensor, *, tokens: bool = False, frozen: Frozen | None = None) -> ExpertFeatures:
        """Embeddings ``[3, B, C, h, w]`` of ``[B, 3, S, S]``."""
        del tokens, frozen
        first, blocks = self.first, self.basic.blocks
        passes = (
            blocks,
            [*blocks[:first], *self.last],
            [partial(_adapted, b, a) for b, a in zip(blocks, self.adapters)],
        )
        found = []
        for steps in passes:
            x = self.basic.patch_embed(image) + self.basic.pos_embed
            for step in steps:
                x = step(x)
            found.append(self.basic.neck(x.permute(0, 3, 1, 2)))
        return ExpertFeatures(torch.stack(found), None)


def _adapted(block: Any, adapter: Any, x: Tensor) -> Tensor:
    shortcut, x = x, block.norm1(x)
    size, pad = x.shape[1:3], None
    if block.window_size:
        x, pad = window_partition(x, block.window_size)
    x = block.attn(x)
    x = x + adapter.space(x)
    if block.window_size:
        x = window_unpartition(x, block.window_size, pad, size)
    x = shortcut + x
    normed = block.norm2(x)
    out: Tensor = x + block.mlp(normed) + 0.5 * adapter.mlp(normed)
    return out


@dataclass(frozen=True)
class Pair:
    """The same function twice; trained parameters of the encoders are two copies, all others are shared."""

    published: ICMoE
    ours: ICMoE

    def trained(self, network: ICMoE) -> list[nn.Parameter]:
        """What both train, in one order."""
        encoders: Any = network.encoders
        maps: Any = network.contrast
        last = encoders.last if isinstance(encoders, PublishedEncoders) else encoders.semantic
        parts = (last, encoders.adapters, network.heads, maps)
        return [p for part in parts for p in part.parameters()]


def _pair(size: int, embed: int, depth: int, *, cache_gb: float = 0.0) -> Pair:
    library = library_encoder(size, embed, depth).eval().requires_grad_(False)
    encoders = ExpertEncoders(
        encoder=SamEncoder(encoder=copy.deepcopy(library)), adapter_init="default", cache_gb=cache_gb
    )
    assert encoders.semantic is not None
    with torch.no_grad():
        for parameter in encoders.semantic.parameters():  # the same as the basic expert's could not be wrong
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    published = PublishedEncoders(encoder=library, ours=encoders)
    published.last.load_state_dict(encoders.semantic.state_dict())
    published.last.requires_grad_(True)
    heads = {}
    for number, expert in enumerate(needed("vote")):
        prompts, decoder = sam_decoder("vit_b", image_size=size, classes=2, seed=number)
        heads[expert] = SamHead(prompt_encoder=prompts, mask_decoder=decoder)
    options: dict[str, Any] = {"heads": heads, "voting": PixelVoting(balance="never"),
                               "contrast": ContrastMaps(channels=256, width=768)}  # fmt: skip
    both = [ICMoE(encoders=e, **options) for e in (published, encoders)]  # type: ignore[arg-type]
    return Pair(*both)


def _inference(size: int, embed: int, depth: int, goals: dict[str, float]) -> Case:
    pair, image = _pair(size, embed, depth), torch.rand(1, 3, size, size)

    @torch.inference_mode()
    def run(network: ICMoE) -> Tensor:
        logits: Tensor = network(image).logits
        return logits

    plain, fast = partial(run, pair.published.eval()), partial(run, pair.ours.eval())
    name = f"inference at {size} vs three passes of segment-anything's encoder"
    return Case(name, plain, fast, lambda: relative(fast(), plain()), 1e-5, goals, tensors=True)


def _training(size: int, embed: int, depth: int, goals: dict[str, float], *, cached: bool) -> Case:
    pair = _pair(size, embed, depth, cache_gb=_CACHE_GB if cached else 0.0)
    image, label = torch.rand(1, 3, size, size), torch.zeros(1, 1, size, size)
    label[..., size // 4 : size // 2, size // 4 :] = 1
    loss = ICMoELoss()

    def backward(network: ICMoE) -> None:
        loss(network(image, label), {"label": label})["loss"].backward()

    def step(network: ICMoE) -> None:
        backward(network)
        for parameter in pair.trained(network):
            parameter.grad = None

    def gradients(network: ICMoE) -> Tensor:
        backward(network)
        trained = pair.trained(network)
        found = torch.cat([p.grad.flatten() for p in trained if p.grad is not None])
        for parameter in trained:
            parameter.grad = None
        return found

    def difference() -> float:
        given, own = gradients(pair.published), gradients(pair.ours)
        return float((own - given).norm() / given.norm())

    plain, fast = partial(step, pair.published.train()), partial(step, pair.ours.train())
    name = f"training step at {size}" + (", frozen features kept" if cached else "") + " vs three passes"
    return Case(name, plain, fast, difference, 1e-4, goals, tensors=True)


def cases(size: int, embed: int, depth: int, count: int, parts: Sequence[str] = PARTS) -> Iterator[Case]:
    """The comparisons, built one at a time so that none pays for another's memory.

    Args:
        size: pixels along each side of the image for both training steps.
        embed: width C of the encoder.
        depth: blocks, at least 3; every third one is global.
        count: of experts; there are always three.
        parts: some of :data:`PARTS`, in this order.
    """
    del count
    for part in parts:
        goals = GOALS[part] if embed >= PAPER["embed"] else {}  # narrow encoders leave most of the time to the decoders
        if part.startswith("inference"):
            yield _inference(int(part[-3:]), embed, depth, goals)
        else:
            yield _training(size, embed, depth, goals, cached=part == "training_cached")


def growth(size: int, embed: int, depth: int, counts: Sequence[int]) -> Iterator[tuple[int, Callable[[], Tensor]]]:
    """Inference of the adaptive expert alone, and of all three."""
    whole, image = _pair(size, embed, depth).ours.eval(), torch.rand(1, 3, size, size)
    alone = ExpertEncoders(encoder=whole.encoders.encoder, experts=("adaptive",), adapter_init="default")
    single = ICMoE(encoders=alone, heads={"adaptive": whole.heads["adaptive"]}, answer="adaptive").eval()

    @torch.inference_mode()
    def run(network: ICMoE) -> Tensor:
        logits: Tensor = network(image).logits
        return logits

    for count in sorted({1 if c < len(needed("vote")) else len(needed("vote")) for c in counts}):
        yield count, partial(run, single if count == 1 else whole)
