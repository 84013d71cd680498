"""What a fused encoder looks at, and what each expert changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....layers.fusion.hl_attention import HLAttention
from .network import SAMora

__all__ = ["ExpertViews", "expert_views"]


class ExpertViews(NamedTuple):
    """One slice as the network sees it with all experts, without each one, and without any.

    Args:
        answers: ``{"all experts": [S, S], "without image": ..., "no expert": ...}`` class indices; of a network without
            experts ``{"no experts": ...}``.
        asked: the same names, each ``{"image asks fused": [S, S], ...}``: how much a place is asked, mean over blocks,
            1 where all places of a window are asked alike; empty without attention.
        changed: the same names but the first: ``[S, S]`` distance ``1 - cos`` (0 .. 2) of what the decoder is given.
    """

    answers: dict[str, Tensor]
    asked: dict[str, dict[str, Tensor]]
    changed: dict[str, Tensor]


@torch.no_grad()
def expert_views(network: SAMora, image: Tensor) -> ExpertViews:
    """Look at a slice again and again, with some experts silenced.

    Args:
        network: :class:`~common.methods.samora.stage_two.network.SAMora`, in evaluation.
        image: ``[1, 1 or 3, S, S]``.
    """
    runs: dict[str, tuple[str, ...]] = {"all experts" if network.levels else "no experts": ()}
    if len(network.levels) > 1:
        runs |= {f"without {level}": (level,) for level in network.levels}
    if network.levels:
        runs["no expert"] = tuple(network.levels)
    size, views, first = image.shape[2:], ExpertViews({}, {}, {}), None
    for name, silent in runs.items():
        with network.silenced(*silent), _listening(network) as maps:
            features = network.encode(image)
            out = network.base.decode(features)
            views.answers[name] = network.base.logits(out)[0].argmax(0).cpu()
        if len(silent) < len(network.levels):
            views.asked[name] = {step: _enlarged(parts, size) for step, parts in maps.items()}
        embedding = features.embedding[0]
        if first is None:
            first = embedding
        else:
            distance = 1 - F.cosine_similarity(embedding, first, dim=0)
            views.changed[name] = _enlarged([distance[None]], size)
    return views


def _enlarged(maps: list[Tensor], size: Any) -> Tensor:
    large = [F.interpolate(m[None].float(), size=size, mode="bilinear", align_corners=False)[0, 0] for m in maps]
    return torch.stack(large).mean(0).cpu()


@contextmanager
def _listening(network: SAMora) -> Iterator[Mapping[str, list[Tensor]]]:
    """Collect the attention maps ``[1, h, w]`` of every block, by step."""
    found: dict[str, list[Tensor]] = {}

    def hear(module: nn.Module, inputs: tuple[Any, ...], _output: Any) -> None:
        assert isinstance(module, HLAttention)
        for step, asked in module.asked(*inputs).items():
            found.setdefault(step, []).append(asked)

    fusers = [f for f in network.fusers or () if isinstance(f, HLAttention)]
    hooks = [fuser.register_forward_hook(hear) for fuser in fusers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
