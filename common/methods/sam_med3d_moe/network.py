"""SAM-Med3D-MoE: fine-tuned mask decoders join the general one behind a gate, which decides who answers a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...backbones.sam3d.decoder import MaskDecoder3D, MaskLogits
from ...backbones.sam3d.network import Sam3D
from ...backbones.sam3d.prompt import Prompts
from ...errors import ConfigError, ExpertError
from ...layers.frozen_features import FrozenFeatures
from ...layers.gating.prompt_gate import PromptGate
from ...layers.gating.routing import Routing

__all__ = ["FUSIONS", "TRAINS", "MoELogits", "SAMMed3DMoE", "fuse"]

FUSIONS = ("weighted", "avg", "aft_weight")
TRAINS = ("gate", "joint")


class MoELogits(NamedTuple):
    """What the mixture says.

    Args:
        masks: low-resolution logits ``[B, 1, s, s, s]``.
        iou: the general decoder's estimate ``[B, 1]``.
        scores: of the gate ``[B, m+1]``, the general decoder first.
        chosen: who answered besides the general decoder ``[B]``; 0: nobody.
        gate: the logits behind the scores ``[B, m+1]`` (``[B, m]`` without a general logit).
    """

    masks: Tensor
    iou: Tensor
    scores: Tensor
    chosen: Tensor
    gate: Tensor


def fuse(general: Tensor, expert: Tensor, score: Tensor, fusion: str) -> Tensor:
    """Masks of a sample that its expert answers.

    ``weighted``: ``(1 - s) M_g + s M_e``; ``avg``: ``(M_g + M_e) / 2``; ``aft_weight``: each voxel's
    ``softmax([M_g, M_e])`` as weights of the two.

    Args:
        general: logits ``[B, 1, s, s, s]`` of the general decoder.
        expert: of the chosen one.
        score: ``[B]`` the expert's.
        fusion: which rule.

    Raises:
        ConfigError: for another rule.

    Reference:
        SAM-Med3D-MoE, section 2.3 and table 3.
    """
    if fusion == "weighted":
        share = score.view(-1, 1, 1, 1, 1).to(general.dtype)
        return (1 - share) * general + share * expert
    if fusion == "avg":
        return (general + expert) / 2
    if fusion == "aft_weight":
        both = torch.stack([general, expert])
        return (both.softmax(0) * both).sum(0)
    raise ConfigError("unknown choice", where="fusion", got=fusion, expected=", ".join(FUSIONS))


class SAMMed3DMoE(nn.Module):
    """A promptable network whose gate adds an expert's answer to the general one where it is sure of it.

    The gate runs first. Where its best expert scores above ``tau`` that decoder runs too, on those samples alone, and
    both masks are fused before the one up-sampling; everywhere else the answer is the general decoder's, bit for bit.

    Args:
        base: the general model; its encoder, prompt encoder and decoder stay as they are.
        experts: decoders by name, of the base's shape.
        gate: for as many experts.
        tau: an expert answers above this score, 0 <= tau < 1.
        fusion: ``weighted``, ``avg`` or ``aft_weight``.
        train: ``gate`` alone, or ``joint`` with the experts' decoders.
        cache_gb: memory for embeddings of crops that come again (the encoder never changes); 0 keeps none.
        settings: plain values that build another one like it, kept for a model's card.

    Raises:
        ConfigError: for a threshold out of range, or an unknown choice.
        ExpertError: for names that do not fit the gate, or decoders of another shape.

    Reference:
        SAM-Med3D-MoE: Towards a Non-Forgetting Segment Anything Model via Mixture of Experts for 3D Medical Image
        Segmentation, section 2.
    """

    def __init__(
        self, *, base: Sam3D, experts: Mapping[str, MaskDecoder3D], gate: PromptGate, tau: float = 0.5,
        fusion: str = "weighted", train: str = "gate", cache_gb: float = 0.0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if not 0 <= tau < 1:
            raise ConfigError("the threshold is a score", where="tau", got=tau, expected="0 <= tau < 1")
        for value, choices, name in ((fusion, FUSIONS, "fusion"), (train, TRAINS, "train")):
            if value not in choices:
                raise ConfigError("unknown choice", where=name, got=value, expected=", ".join(choices))
        if gate.experts != len(experts):
            raise ExpertError("the gate is for another number of experts", got=gate.experts, expected=len(experts))
        wanted = {k: v.shape for k, v in base.mask_decoder.state_dict().items()}
        for name, decoder in experts.items():
            _check_shape(name, decoder, wanted)
        self.base, self.gate = base, gate
        self.settings = dict(settings or {})
        self.names = tuple(experts)
        self.experts = nn.ModuleList(experts.values())
        self.tau, self.fusion, self.train_what = tau, fusion, train
        self.kept = FrozenFeatures(gigabytes=cache_gb) if cache_gb > 0 else None
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.trains(name))

    def trains(self, name: str) -> bool:
        """Whether the parameter of this name is trained."""
        return name.startswith("gate.") or (self.train_what == "joint" and name.startswith("experts."))

    def trainable(self) -> list[nn.Parameter]:
        """Parameters for an optimizer."""
        return [p for n, p in self.named_parameters() if self.trains(n)]

    @property
    def image_size(self) -> int:
        """Voxels along each side of a crop."""
        return self.base.image_size

    @property
    def boxes(self) -> bool:
        """Whether box prompts can be read."""
        return self.base.boxes

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Embedding ``[B, C, g, g, g]`` of ``[B, 1, S, S, S]``; the encoder is frozen."""
        if self.kept is None or not self.training:
            return self.base.encode(image)
        return self.kept(image, self._encode_alone)[0]

    def _encode_alone(self, image: Tensor) -> tuple[Tensor]:
        return (self.base.encode(image),)

    def prompts(
        self, *, points: Tensor | None = None, labels: Tensor | None = None, boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> Prompts:  # fmt: skip
        """As :meth:`Sam3D.prompts <common.backbones.sam3d.network.Sam3D.prompts>`."""
        return self.base.prompts(points=points, labels=labels, boxes=boxes, masks=masks)

    def upsample(self, low_res: Tensor) -> Tensor:
        """Logits ``[B, 1, S, S, S]`` of ``[B, 1, s, s, s]``."""
        return self.base.upsample(low_res)

    def score(self, embedding: Tensor, prompts: Prompts) -> Routing:
        """What the gate says; one embedding may serve all prompts."""
        image = embedding.expand(len(prompts.sparse), -1, -1, -1, -1)
        routing: Routing = self.gate(image, self.base.prompt_encoder.dense_positions(), prompts.sparse)
        return routing

    def decode(self, embedding: Tensor, prompts: Prompts, *, routing: Routing | None = None) -> MoELogits:
        """Answer prompts.

        Args:
            embedding: ``[B, C, g, g, g]``, or ``[1, C, g, g, g]`` that all prompts share.
            prompts: from :meth:`prompts`.
            routing: an earlier answer of the gate in the place of a new one.
        """
        routing = self.score(embedding, prompts) if routing is None else routing
        scores = self._with_general(routing.weights)
        general = self.base.decode(embedding, prompts)
        best, top = scores[:, 1:].max(1)
        chosen = torch.where(best > self.tau, top + 1, 0)
        masks = general.masks
        for number in chosen.unique().tolist():
            if number:
                at = (chosen == number).nonzero()[:, 0]
                answer = self._ask(number - 1, embedding, prompts, at)
                fused = fuse(general.masks[at], answer.masks, best[at], self.fusion)
                masks = masks.index_copy(0, at, fused.to(masks.dtype))
        return MoELogits(masks, general.iou, scores, chosen, _logits(routing))

    def asker(self, *, at: str = "every") -> Callable[[Tensor, Prompts], MoELogits]:
        """`decode` for one session: ``every`` prompt asks the gate, or the ``first`` one for the whole session.

        Raises:
            ConfigError: for another choice.
        """
        if at not in ("every", "first"):
            raise ConfigError("unknown choice", where="gate_at", got=at, expected="every, first")
        kept: list[Routing] = []

        def ask(embedding: Tensor, prompts: Prompts) -> MoELogits:
            if at == "every":
                return self.decode(embedding, prompts)
            if not kept:
                kept.append(self.score(embedding, prompts))
            return self.decode(embedding, prompts, routing=kept[0])

        return ask

    def decode_with(self, name: str | None, embedding: Tensor, prompts: Prompts) -> MaskLogits:
        """One decoder alone: an expert by its name, or the general one (None).

        Raises:
            ExpertError: for an unknown name.
        """
        if name is None:
            return self.base.decode(embedding, prompts)
        if name not in self.names:
            raise ExpertError("no expert of that name", got=name, expected=", ".join(self.names))
        return self._ask(self.names.index(name), embedding, prompts, None)

    def add_expert(self, name: str, decoder: MaskDecoder3D) -> None:
        """One more expert, which is asked by nobody until the gate has been trained.

        Raises:
            ExpertError: for a name that there is already, or a decoder of another shape.
        """
        if name in self.names:
            raise ExpertError("there is an expert of that name already", got=name, expected="another name")
        _check_shape(name, decoder, {k: v.shape for k, v in self.base.mask_decoder.state_dict().items()})
        self.names = (*self.names, name)
        self.experts.append(decoder)
        self.gate.add_expert()
        if "experts" in self.settings:
            self.settings["experts"] = list(self.names)

    def _with_general(self, weights: Tensor) -> Tensor:
        return weights if self.gate.general else torch.cat([weights.new_zeros(len(weights), 1), weights], 1)

    def _ask(self, index: int, embedding: Tensor, prompts: Prompts, at: Tensor | None) -> MaskLogits:
        if at is not None:
            embedding = embedding if len(embedding) == 1 else embedding[at]
            dense = prompts.dense if len(prompts.dense) == 1 else prompts.dense[at]
            prompts = Prompts(prompts.sparse[at], dense)
        decoder = self.experts[index]
        assert isinstance(decoder, MaskDecoder3D)
        return self.base.decode(embedding, prompts, decoder=decoder)

    def forward(self, image: Tensor, points: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """Logits ``[B, 1, S, S, S]`` of an image and its first clicks."""
        prompts = self.prompts(points=points, labels=labels)
        return self.upsample(self.decode(self.encode(image), prompts).masks)


def _logits(routing: Routing) -> Tensor:
    assert routing.logits is not None  # a gate has them
    return routing.logits


def _check_shape(name: str, decoder: nn.Module, wanted: Mapping[str, torch.Size]) -> None:
    found = {k: v.shape for k, v in decoder.state_dict().items()}
    if found != dict(wanted):
        other = next((k for k in wanted if found.get(k) != wanted[k]), "more tensors")
        got = f"{other}: {found.get(other)}"
        expected = f"{wanted.get(other)}, as the general decoder has it"
        raise ExpertError("the expert is a decoder of another shape", where=name, got=got, expected=expected)
