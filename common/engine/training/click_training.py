"""Clicking sessions as the forward pass of a trainer and of a validator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ...data.prompts.click_protocol import ClickProtocol, click_protocol
from ...data.prompts.clicks import click_generator
from ...errors import ConfigError
from ...prompts import jitter_boxes
from ..interactive.promptable import Promptable, SelfTraining
from ..interactive.prompting import Decode, Step, click_scores, simulate

__all__ = ["TRAINED", "ClickTraining", "ClickValidation", "Sessions"]

TRAINED = {"all": ("",), "decoder": ("mask_decoder.",), "boxes": ("prompt_encoder.box_embeddings.",)}
# What may be trained of a promptable network, by the beginnings of parameters' names.

PROMPTS = ("points", "box", "both")


class Sessions(NamedTuple):
    """All answers to a batch.

    Args:
        logits: of the last step ``[B, 1, S, S, S]``.
        steps: in order; with both kinds of prompts, the one with boxes comes last.
    """

    logits: Tensor
    steps: list[Step]


class ClickTraining(nn.Module):
    """A promptable network that is clicked at until the end of its session, for a loss over all steps.

    Args:
        network: encoder, prompts, decoder; a mixture says itself what it trains.
        train: ``all``, ``decoder``, or ``boxes`` (only the embeddings of box corners, so that clicks are answered as
            before); None leaves it to the network.
        prompts: ``points``, ``box`` (one step, no clicks), or ``both`` one after the other.
        protocol: name or rules of the clicks.
        jitter: voxels by which the box's corners are moved at random.
        gate_at: ``every`` prompt asks a mixture's gate, or the ``first`` one for the whole session.

    Raises:
        ConfigError: for an unknown choice, or nothing to train.

    Reference:
        Wang et al., SAM-Med3D, 2023, public code (11 steps).
    """

    def __init__(
        self, *, network: Promptable, train: str | None = "all", prompts: str = "points",
        protocol: ClickProtocol | str = "training", jitter: float = 5.0, gate_at: str = "every",
    ) -> None:  # fmt: skip
        super().__init__()
        if prompts not in PROMPTS:
            raise ConfigError("unknown choice", where="prompts", got=prompts, expected=", ".join(PROMPTS))
        if train is not None and train not in TRAINED:
            raise ConfigError("unknown choice", where="train_what", got=train, expected=", ".join(TRAINED))
        if prompts != "points" and not network.boxes:
            problem = "a network without box embeddings cannot learn boxes"
            hint = "build it with --boxes True"
            raise ConfigError(problem, where="prompts", got=prompts, expected="points", hint=hint)
        self.network = network
        self.prompts, self.jitter, self.gate_at = prompts, jitter, gate_at
        self.protocol = click_protocol(protocol) if isinstance(protocol, str) else protocol
        self._starts = None if train is None else TRAINED[train]
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.trains(name))
        if not self.trainable() or (train == "boxes" and prompts == "points"):
            got = f"{train} with prompts={prompts}"
            expected = "all or decoder, or a network with boxes that it is shown"
            hint = "embeddings of box corners: --boxes True --prompts box"
            raise ConfigError("there is nothing to train", where="train_what", got=got, expected=expected, hint=hint)

    def trains(self, name: str) -> bool:
        """Whether the parameter of this name is trained; what the released positions are made of never is."""
        name = name.removeprefix("network.")
        if self._starts is None:
            return cast(SelfTraining, self.network).trains(name)
        return name.startswith(self._starts) and not name.startswith("prompt_encoder.pe_layer.")

    def trainable(self) -> list[nn.Parameter]:
        """Parameters for an optimizer."""
        return [p for n, p in self.named_parameters() if self.trains(n)]

    def groups(self, learning_rate: float, rest: float = 1.0) -> list[dict[str, Any]]:
        """Parameter groups: the image encoder with the learning rate, all else with ``rest`` times it."""
        encoder: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            if self.trains(name):
                (encoder if name.startswith("network.image_encoder.") else others).append(parameter)
        made = [(encoder, learning_rate), (others, learning_rate * rest)]
        return [{"params": own, "lr": rate} for own, rate in made if own]

    def forward(self, image: Tensor, label: Tensor, box: Tensor | None = None) -> Sessions:
        """Sessions with crops.

        Args:
            image: ``[B, 1, S, S, S]``.
            label: ``[B, 1, S, S, S]``, 1 inside.
            box: ``[B, 2, 3]`` voxels of the crop, for the prompts that show it.
        """
        embedding = self.network.encode(image)
        steps: list[Step] = []
        if self.prompts != "box":
            decode = _asked(self.network, self.gate_at)
            steps += simulate(self.network, embedding, label, self.protocol, decode=decode)
        if self.prompts != "points":
            if box is None:
                raise ConfigError("box prompts need boxes", where="train::prepare_batch", expected="kwargs: box")
            moved = jitter_boxes(box, self.jitter, label.shape[2:])
            steps += simulate(self.network, embedding, label, click_protocol("box"), boxes=moved)
        return Sessions(steps[-1].logits, steps)


class ClickValidation(nn.Module):
    """The mask that counts after a session whose clicks depend on case, structure and seed alone.

    Args:
        network: as for :class:`ClickTraining`.
        protocol: name or rules of the clicks.
        prompts: ``points`` or ``box``.
        gate_at: as for :class:`ClickTraining`.
        seed: another one clicks elsewhere.
    """

    def __init__(
        self, *, network: Promptable, protocol: ClickProtocol | str = "evaluation", prompts: str = "points",
        gate_at: str = "every", seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.network, self.prompts, self.gate_at, self.seed = network, prompts, gate_at, seed
        self.protocol = click_protocol(protocol) if isinstance(protocol, str) else protocol

    @torch.no_grad()
    def forward(
        self, image: Tensor, label: Tensor, case: Sequence[str], name: Sequence[str], box: Tensor | None = None
    ) -> Tensor:
        """``[B, 1, S, S, S]``, 1 inside the reported mask.

        Args:
            image: ``[B, 1, S, S, S]``.
            label: ``[B, 1, S, S, S]``.
            case: names.
            name: of the structures.
            box: ``[B, 2, 3]``, for ``prompts="box"``.
        """
        embedding = self.network.encode(image)
        boxed = self.prompts == "box"
        generators = [click_generator(self.seed, c, n) for c, n in zip(case, name, strict=True)]
        rules = click_protocol("box") if boxed else self.protocol
        asked: Mapping[str, Any] = {"boxes": box} if boxed else {"generator": generators}
        decode = _asked(self.network, self.gate_at)
        return click_scores(self.network, embedding, label, rules, decode=decode, **asked).masks.float()


def _asked(network: Promptable, gate_at: str) -> Decode | None:
    """A mixture's way to answer one session; None for other networks."""
    asker = getattr(network, "asker", None)
    return None if asker is None else asker(at=gate_at)
