"""The loop over clicks, for training and evaluation: ask, compare, click what is wrong, ask again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...data.prompts.click_protocol import ClickProtocol
from ...data.prompts.clicks import Generators, next_click
from ...errors import PromptError
from ...overlap import dice_of_each
from .promptable import Decoded, Promptable, low_res_size

__all__ = ["ClickScores", "Decode", "Step", "click_scores", "click_steps", "simulate"]

Decode = Callable[[Tensor, Any], Decoded]


class Step(NamedTuple):
    """One question and its answer.

    Args:
        low_res: logits ``[B, 1, s, s, s]``.
        logits: the same at the crop's size ``[B, 1, S, S, S]``.
        points: all clicks so far ``[B, N, 3]``, voxels of the crop (N = 0 before the first).
        labels: of the clicks ``[B, N]``: 1 inside, 0 outside, -1 none.
        asked: whether this step showed the network a point.
        scores: of a mixture's gate ``[B, m+1]``, the general decoder first; None for other networks.
        chosen: expert per sample ``[B]``, 0 the general decoder; None for other networks.
        gate: the logits behind the scores.
    """

    low_res: Tensor
    logits: Tensor
    points: Tensor
    labels: Tensor
    asked: bool
    scores: Tensor | None = None
    chosen: Tensor | None = None
    gate: Tensor | None = None


class ClickScores(NamedTuple):
    """What an evaluation session found.

    Args:
        dice: per step and sample ``[T, B]``; NaN where neither target nor mask has a voxel.
        reported: the Dice that counts by the protocol ``[B]``.
        at: the step it is of ``[B]``, from 0.
        masks: the mask that counts ``[B, 1, S, S, S]`` bool.
        points: all clicks ``[B, N, 3]``.
        labels: of the clicks ``[B, N]``.
        scores: gate scores per step ``[T, B, m+1]``, None without a gate.
    """

    dice: Tensor
    reported: Tensor
    at: Tensor
    masks: Tensor
    points: Tensor
    labels: Tensor
    scores: Tensor | None = None


def click_steps(
    network: Promptable,
    embedding: Tensor,
    target: Tensor,
    protocol: ClickProtocol,
    *,
    boxes: Tensor | None = None,
    generator: Generators = None,
    decode: Decode | None = None,
) -> Iterator[Step]:
    """Ask ``protocol.steps`` times, feeding back the previous low-resolution logits as a mask prompt.

    With boxes the first step shows the box alone, every later one box and clicks. Mask-only steps set no click.

    Args:
        network: any promptable network.
        embedding: ``[B, C, g, g, g]`` of the crops, encoded once.
        target: ``[B, 1, S, S, S]``, inside where > 0.
        protocol: the rules.
        boxes: ``[B, 2, 3]`` voxels of the crop.
        generator: one for the batch or one per sample (CPU); torch's global one when None.
        decode: asked in the place of ``network.decode``, for example a single expert.

    Raises:
        PromptError: when embedding and target are of different batches, or the network knows no boxes.
    """
    _check(network, embedding, target, boxes)
    decode = network.decode if decode is None else decode
    skipped = _mask_only(protocol, generator)
    side = low_res_size(embedding)
    low_res = embedding.new_zeros(len(target), 1, side, side, side) if protocol.first_mask == "zeros" else None
    logits: Tensor | None = None
    points = embedding.new_zeros(len(target), 0, 3)
    labels = torch.zeros(len(target), 0, dtype=torch.int64, device=embedding.device)
    clicks = 0
    for number in range(protocol.steps):
        asked = number not in skipped and not (boxes is not None and number == 0)
        if asked:
            guess = torch.zeros_like(target, dtype=torch.bool) if logits is None else logits.detach()
            strategy = protocol.strategy_at(clicks)
            click = next_click(guess, target, strategy=strategy, threshold=protocol.threshold, generator=generator)
            points = torch.cat([points, click.points.to(points)], 1)
            labels = torch.cat([labels, click.labels.to(labels)], 1)
            clicks += 1
        first = points.shape[1] - 1 if protocol.clicks == "latest" else 0
        prompts = network.prompts(
            points=points[:, first:] if asked else None,
            labels=labels[:, first:] if asked else None,
            boxes=boxes,
            masks=low_res if low_res is None or protocol.feed_gradient else low_res.detach(),
        )
        answer = decode(embedding, prompts)
        low_res, logits = answer.masks, network.upsample(answer.masks)
        gate = [getattr(answer, name, None) for name in ("scores", "chosen", "gate")]
        yield Step(low_res, logits, points, labels, asked, *gate)


def simulate(
    network: Promptable,
    embedding: Tensor,
    target: Tensor,
    protocol: ClickProtocol,
    *,
    boxes: Tensor | None = None,
    generator: Generators = None,
    decode: Decode | None = None,
) -> list[Step]:
    """All steps of :func:`click_steps`."""
    return list(click_steps(network, embedding, target, protocol, boxes=boxes, generator=generator, decode=decode))


@torch.no_grad()
def click_scores(
    network: Promptable,
    embedding: Tensor,
    target: Tensor,
    protocol: ClickProtocol,
    *,
    boxes: Tensor | None = None,
    generator: Generators = None,
    decode: Decode | None = None,
) -> ClickScores:
    """Dice after every step, and the one that counts; only one step's logits are kept at a time.

    Args:
        network: any promptable network, in evaluation mode.
        embedding: ``[B, C, g, g, g]``.
        target: ``[B, 1, S, S, S]``.
        protocol: the rules, also whether the ``last`` or the ``best`` mask counts (of equally good ones the first).
        boxes: see :func:`click_steps`.
        generator: see :func:`click_steps`; one per sample from
            :func:`~common.data.prompts.clicks.click_generator` makes a case's clicks independent
            of all others.
        decode: see :func:`click_steps`.

    Raises:
        PromptError: see :func:`click_steps`.
    """
    dice: list[Tensor] = []
    gates: list[Tensor] = []
    masks = torch.zeros_like(target, dtype=torch.bool)
    best = torch.full((len(target),), -1.0, device=target.device)
    at = torch.zeros(len(target), dtype=torch.int64, device=target.device)
    step: Step | None = None
    for number, step in enumerate(
        click_steps(network, embedding, target, protocol, boxes=boxes, generator=generator, decode=decode)
    ):
        mask = step.logits > 0
        now = dice_of_each(mask, target)
        dice.append(now)
        gates += [] if step.scores is None else [step.scores]
        value = now.nan_to_num(nan=1.0)  # nothing there and nothing found: as good as it gets
        take = value > best if protocol.report == "best" else torch.ones_like(value, dtype=torch.bool)
        best, at = torch.where(take, value, best), torch.where(take, number, at)
        masks = torch.where(take[:, None, None, None, None], mask, masks)
    assert step is not None  # a protocol has at least one step
    every = torch.stack(dice)
    reported = every.gather(0, at[None])[0]
    scores = torch.stack(gates) if gates else None
    return ClickScores(every, reported, at, masks, step.points, step.labels, scores)


def _mask_only(protocol: ClickProtocol, generator: Generators) -> set[int]:
    """Numbers of the steps without a point; a random one is drawn for the whole batch."""
    steps = {protocol.steps - 1} if protocol.mask_only_last else set()
    if protocol.mask_only is not None:
        low, high = protocol.mask_only
        source = generator[0] if isinstance(generator, Sequence) else generator
        steps.add(int(torch.randint(low, high + 1, (1,), generator=source)))
    return steps


def _check(network: Promptable, embedding: Tensor, target: Tensor, boxes: Tensor | None) -> None:
    if len(embedding) != len(target):
        raise PromptError("one target per embedding", got=len(target), expected=len(embedding))
    side = network.image_size
    if tuple(target.shape[1:]) != (1, side, side, side):
        raise PromptError(
            "the target is not on the network's crop",
            got=tuple(target.shape),
            expected=f"[B, 1, {side}, {side}, {side}]",
        )
    if boxes is not None and not network.boxes:
        raise PromptError(
            "a checkpoint without box embeddings used with boxes", hint="train it with boxes=True first, or give points"
        )
