"""What SAM-Med3D-MoE costs: its encoder, a click, a session of clicks and a step of the gate's training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.backbones.sam3d.network import VARIANTS, Sam3D, sam3d_network
from common.backbones.sam3d.prompt import Prompts
from common.layers.gating.prompt_gate import PromptGate
from common.methods.sam_med3d_moe.network import SAMMed3DMoE

from .measure import Case, relative
from .sam_med3d_plain import every_decoder, padded_encoder

__all__ = ["LAPTOP", "PAPER", "PARTS", "cases", "growth", "mixture", "network"]

PARTS = ("encoder", "click", "click_general", "session", "gate_training")
LAPTOP = {"size": 64, "variant": "small"}
PAPER = {"size": 128, "variant": "vit_b_ori"}
CLICKS = 10


def network(size: int, variant: str) -> Sam3D:
    """SAM-Med3D with random weights and the released position bias, none of it zero."""
    found = sam3d_network(variant, image_size=size, rel_pos="released", seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in found.image_encoder.named_parameters():
        if "rel_pos" in name:  # zero until it is trained, and a bias of zero could not be wrong
            nn.init.normal_(parameter, std=0.05, generator=generator)
    return found


def mixture(size: int, variant: str, count: int, *, tau: float = 0.0, cache_gb: float = 0.0) -> SAMMed3DMoE:
    """A mixture of `count` experts whose decoders all differ.

    Args:
        size: voxels along each side of the crop.
        variant: of `sam3d_network`.
        count: experts.
        tau: 0 lets an expert answer every click; near 1 the general decoder answers alone.
        cache_gb: memory for embeddings in training.
    """
    base = network(size, variant)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        gate = PromptGate(channels=base.prompt_encoder.channels, experts=count, hidden=VARIANTS[variant]["hidden"])
        experts = {}
        for number in range(count):
            decoder = copy.deepcopy(base.mask_decoder)
            with torch.no_grad():
                for parameter in decoder.parameters():
                    parameter.mul_(1 + 0.1 * torch.randn(1))
            experts[f"expert {number}"] = decoder
    return SAMMed3DMoE(base=base, experts=experts, gate=gate, tau=tau, cache_gb=cache_gb).eval()


class _Clicked(NamedTuple):
    # a crop and clicks in it, in order
    image: Tensor
    points: Tensor
    labels: Tensor


def _clicked(size: int) -> _Clicked:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, 1, size, size, size, generator=generator)
    points = torch.randint(0, size, (1, CLICKS, 3), generator=generator).float()
    labels = (torch.arange(CLICKS) % 3 != 2).long()[None]
    return _Clicked(image, points, labels)


def _asked(moe: SAMMed3DMoE, given: _Clicked, clicks: int, before: Tensor | None) -> Prompts:
    return moe.prompts(points=given.points[:, :clicks], labels=given.labels[:, :clicks], masks=before)


def _encoder(size: int, variant: str) -> Case:
    sam = network(size, variant)
    image = _clicked(size).image

    @torch.inference_mode()
    def plain() -> Tensor:
        return padded_encoder(sam.image_encoder, image)

    @torch.inference_mode()
    def fast() -> Tensor:
        return sam.encode(image)

    goals = {"faster": 12.0, "tensors": 0.05}
    name = f"encoder at {size}^3 vs padded windows as released"
    return Case(name, plain, fast, lambda: relative(fast(), plain()), 1e-5, goals, tensors=True)


def _click(size: int, variant: str, count: int, *, general: bool) -> Case:
    moe = mixture(size, variant, count, tau=0.999 if general else 0.0)
    given = _clicked(size)
    with torch.inference_mode():
        embedding = moe.encode(given.image)
        before = moe.base.decode(embedding, _asked(moe, given, 2, None)).masks

    @torch.inference_mode()
    def plain() -> Tensor:
        return every_decoder(moe, embedding, _asked(moe, given, 3, before))[1]

    @torch.inference_mode()
    def fast() -> Tensor:
        return moe.upsample(moe.decode(embedding, _asked(moe, given, 3, before)).masks)

    who = "the general decoder answers" if general else "an expert answers"
    name = f"click, {count} experts, {who} vs all decoders"
    return Case(name, plain, fast, lambda: relative(fast(), plain()), 1e-5, {"faster": 8.0}, tensors=True)


def _session(size: int, variant: str, count: int) -> Case:
    moe = mixture(size, variant, count)
    given = _clicked(size)

    @torch.inference_mode()
    def plain() -> Tensor:
        embedding, low = padded_encoder(moe.base.image_encoder, given.image), None
        for clicks in range(1, CLICKS + 1):
            low, answer = every_decoder(moe, embedding, _asked(moe, given, clicks, low))
        return answer

    @torch.inference_mode()
    def fast() -> Tensor:
        embedding, low = moe.encode(given.image), None
        for clicks in range(1, CLICKS + 1):
            low = moe.decode(embedding, _asked(moe, given, clicks, low)).masks
            answer = moe.upsample(low)
        return answer

    name = f"session of {CLICKS} clicks, {count} experts vs the released encoder once and all decoders each time"
    return Case(name, plain, fast, lambda: relative(fast(), plain()), 1e-4, {"faster": 11.0}, tensors=True)


def _gate_training(size: int, variant: str, count: int) -> Case:
    moe = mixture(size, variant, count, cache_gb=1.0)
    given = _clicked(size)
    wanted = (given.image > 0).float()
    expert = torch.ones(1, dtype=torch.long)

    def step(train: bool) -> Tensor:
        # embeddings are kept in training only
        moe.gate.zero_grad()
        moe.train(train)
        embedding = moe.encode(given.image)
        answer = moe.decode(embedding, _asked(moe, given, 1, None))
        loss = F.binary_cross_entropy_with_logits(moe.upsample(answer.masks), wanted)
        (loss + F.cross_entropy(answer.gate, expert)).backward()
        return torch.cat([p.grad.flatten() for p in moe.gate.parameters() if p.grad is not None])

    def plain() -> Tensor:
        return step(False)

    def fast() -> Tensor:
        return step(True)

    name = f"step of the gate's training on one crop, {count} experts, embedding kept vs encoded (our encoder)"
    return Case(name, plain, fast, lambda: relative(fast(), plain()), 1e-6, {"faster": 1.0}, tensors=True)


def cases(size: int, variant: str, count: int, parts: Sequence[str] = PARTS) -> Iterator[Case]:
    """The comparisons, built one at a time so that none pays for another's memory.

    Args:
        size: voxels along each side of the crop.
        variant: of `sam3d_network`.
        count: experts.
        parts: some of :data:`PARTS`, in this order.
    """
    for part in parts:
        if part == "encoder":
            yield _encoder(size, variant)
        elif part == "session":
            yield _session(size, variant, count)
        elif part == "gate_training":
            yield _gate_training(size, variant, count)
        else:
            yield _click(size, variant, count, general=part == "click_general")


def growth(size: int, variant: str, counts: Sequence[int]) -> Iterator[tuple[int, Callable[[], Tensor]]]:
    """Our click with more and more experts: one answers, however many there are."""
    for count in counts:
        yield count, _click(size, variant, count, general=False).fast  # type: ignore[misc]
