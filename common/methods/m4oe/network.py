"""M4oE: a Swin-Unet whose perceptrons are modality experts under a gate, with a head per label space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...backbones.swin_unet.network import FeedForward, SwinUnet
from ...errors import ConfigError, LabelError
from ...layers.gating.class_heads import ClassHeads
from ...layers.gating.mlp_mixture import MLP, MLPMixture
from ...layers.gating.routing import Routing
from ...layers.image_channels import repeated
from ...losses.balance import load_balance
from ...losses.segmentation import annotated_dice_ce

__all__ = ["M4oE", "M4oELoss", "M4oEOutputs", "swin_unet_with_experts"]


class M4oEOutputs(NamedTuple):
    """Logits ``[B, K+1, H, W]`` over the union, and who was asked in each block."""

    logits: Tensor
    routings: tuple[Routing | None, ...]


def _mixture(channels: int, *, experts: int, gate: str, gate_input: str, top_k: int | None) -> nn.Module:
    return MLPMixture(channels=channels, experts=experts, gate=gate, gate_input=gate_input, top_k=top_k)


def swin_unet_with_experts(
    *,
    experts: int,
    gate: str = "expert",
    gate_input: str = "token",
    top_k: int | None = None,
    moe_encoder: bool = True,
    moe_decoder: bool = True,
    **sizes: Any,
) -> SwinUnet:
    """A Swin-Unet with a mixture in every block of the encoder, the decoder, both or none.

    Args:
        experts: one per modality.
        gate: ``expert``, ``channel_official`` or ``none``, see
            :class:`~common.layers.gating.mlp_mixture.MLPMixture`.
        gate_input: ``token`` or ``image_mean``.
        top_k: experts per token; None for all.
        moe_encoder: mixtures in the encoder, else a plain perceptron.
        moe_decoder: mixtures in the decoder, else a plain perceptron.
        sizes: of :class:`~common.backbones.swin_unet.network.SwinUnet`.

    Reference:
        M4oE, section 2.2 and table 4.
    """
    mixture: FeedForward = partial(_mixture, experts=experts, gate=gate, gate_input=gate_input, top_k=top_k)
    forward, up = mixture if moe_encoder else MLP, mixture if moe_decoder else MLP
    return SwinUnet(feed_forward=forward, decoder_feed_forward=up, **sizes)


class M4oE(nn.Module):
    """Segment a slice with the experts of all modalities and the head of its data set.

    Args:
        backbone: from :func:`swin_unet_with_experts`.
        modalities: names of the experts, in their order.
        classes: for each data set its union indices, the background's 0 first; in the order of the heads.
        total: classes of the union K + 1.
        in_channels: image channels of the backbone; an image of one channel is repeated.
        embed: width C of the backbone's features.

    Shapes:
        image ``[B, 1 or c, H, W]``, modality ``[B]``, head ``[B]`` -> :class:`M4oEOutputs`.

    Raises:
        ConfigError: when the backbone has another number of experts than there are modalities.

    Reference:
        M4oE, section 2 (arXiv:2405.09446).
    """

    def __init__(
        self,
        *,
        backbone: SwinUnet,
        modalities: Sequence[str],
        classes: Mapping[str, Sequence[int]],
        total: int,
        in_channels: int = 3,
        embed: int = 96,
    ) -> None:
        super().__init__()
        self.modalities, self.tasks, self.in_channels = list(modalities), list(classes), in_channels
        counts = {f.experts.experts for f in backbone.feed_forwards() if isinstance(f, MLPMixture)}
        if not modalities or len(set(modalities)) != len(modalities) or counts - {len(modalities)}:
            expected = f"{counts or 'any number of'} different names"
            raise ConfigError("one expert per modality", where="modalities", got=list(modalities), expected=expected)
        self.backbone = backbone
        self.heads = ClassHeads(channels=embed, classes=list(classes.values()), total=total)

    def forward(self, image: Tensor, modality: Tensor, head: Tensor) -> M4oEOutputs:
        """Segment slices.

        Args:
            image: ``[B, 1 or c, H, W]``, sides multiples of 32.
            modality: ``[B]`` index of each sample's modality.
            head: ``[B]`` index of each sample's data set.

        Raises:
            ConfigError: for a modality or a head that there is not.
        """
        known = len(self.modalities)
        if modality.numel() and not 0 <= int(modality.min()) <= int(modality.max()) < known:
            names = f"0 .. {known - 1} ({', '.join(self.modalities)})"
            raise ConfigError("a sample's modality has no expert", got=modality.tolist(), expected=names)
        image = repeated(image, self.in_channels)
        tokens, routings = self.backbone.tokens(image, modality)
        if torch.is_grad_enabled() or image.device.type != "cpu" or head.shape != tokens.shape[:1]:
            return M4oEOutputs(self._decode(tokens, head), routings)
        # features of full size outweigh everything before them, so one sample's at a time
        logits = [self._decode(*pair) for pair in zip(tokens.split(1), head.split(1), strict=True)]
        return M4oEOutputs(torch.cat(logits), routings)

    def _decode(self, tokens: Tensor, head: Tensor) -> Tensor:
        logits: Tensor = self.heads(self.backbone.enlarge(tokens), head)
        return logits

    @torch.no_grad()
    def add_modality(
        self, name: str, task: str, classes: Sequence[int], *, total: int | None = None, copy_of: str | None = None
    ) -> None:
        """Append an expert to every mixture and a head; with hard routing the others' outputs stay bit for bit.

        That holds until the network is trained further: attention, norms and everything else is shared.

        Args:
            name: of the modality.
            task: of the data set whose label space the head has.
            classes: its union indices, the background's 0 first.
            total: classes of the union, which may have grown.
            copy_of: the modality whose experts the new ones start as; None starts them at random.

        Raises:
            ConfigError: for a name that is taken, or a modality to copy that there is not.
        """
        if name in self.modalities or task in self.tasks:
            raise ConfigError("the name is taken", got=(name, task), expected="a new modality and a new data set")
        if copy_of is not None and copy_of not in self.modalities:
            raise ConfigError("there is no such modality", got=copy_of, expected=", ".join(self.modalities))
        source = None if copy_of is None else self.modalities.index(copy_of)
        for forward in self.backbone.feed_forwards():
            if isinstance(forward, MLPMixture):
                forward.append(source)
        self.heads.append(classes, total)
        self.modalities.append(name)
        self.tasks.append(task)


class M4oELoss(nn.Module):
    """``L = a CE + b Dice + c balance``; CE and Dice over the classes of each sample's own data set.

    Args:
        ce: weight a, >= 0.
        dice: weight b, >= 0.
        balance: weight c of the mean load-balance loss of all gates, >= 0; only for learned gates.
        dice_over: ``sample`` or ``batch``, see :func:`~common.losses.segmentation.annotated_dice_ce`.

    Raises:
        ConfigError: for a negative weight.

    Reference:
        M4oE's code has 0.4 and 0.7 in training and 0.4 and 0.6, Swin-Unet's, in validation. Balancing is ours.
    """

    def __init__(self, *, ce: float = 0.4, dice: float = 0.6, balance: float = 0.0, dice_over: str = "sample") -> None:
        super().__init__()
        if min(ce, dice, balance) < 0:
            raise ConfigError("weights of a loss are not negative", got=(ce, dice, balance))
        self.ce, self.dice, self.balance, self.dice_over = ce, dice, balance, dice_over

    def forward(self, outputs: M4oEOutputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Judge a step.

        Args:
            outputs: of the network.
            targets: ``label`` ``[B, 1, H, W]`` union indices and ``annotated`` ``[B, K+1]`` bool.

        Returns:
            ``loss`` and its terms.

        Raises:
            LabelError: for a label outside the classes of its sample's head, or a head that lacks a class that its
                sample is annotated for.
        """
        unknown = (outputs.logits == -torch.inf).flatten(2).any(2) & targets["annotated"].to(outputs.logits.device)
        if bool(unknown.any()):
            sample, index = unknown.nonzero()[0].tolist()
            raise LabelError(
                "a sample is annotated for a class that its head does not have",
                where=f"sample {sample} of the batch",
                got=f"class {index}",
                hint="its head belongs to another data set: compare task_id with the order of the data sets",
            )
        dice, ce = annotated_dice_ce(
            outputs.logits[..., None], targets["label"][..., None], targets["annotated"], over=self.dice_over
        )
        terms = {"dice": dice.detach(), "ce": ce.detach()}
        loss = self.ce * ce + self.dice * dice
        if self.balance > 0:
            learned = [r for r in outputs.routings if r is not None and r.logits is not None]
            if not learned:
                raise ConfigError("there is no learned gate to balance", where="balance", got=self.balance, expected=0)
            balance = torch.stack([load_balance(r) for r in learned]).mean()
            terms["balance"] = balance.detach()
            loss = loss + self.balance * balance
        return {"loss": loss, **terms}
