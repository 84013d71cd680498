"""An M4oE network from plain values, as a configuration or a trained model's card gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...backbones.swin_unet.network import start_weights
from ...errors import LabelError
from ...labels import LabelSpace
from .network import M4oE, swin_unet_with_experts

__all__ = ["m4oe_network"]


def m4oe_network(
    *,
    labels: LabelSpace,
    modalities: Sequence[str],
    heads: Mapping[str, Sequence[str]] | Sequence[tuple[str, Sequence[str]]],
    in_channels: int = 3,
    embed: int = 96,
    depths: Sequence[int] = (2, 2, 2, 2),
    num_heads: Sequence[int] = (3, 6, 12, 24),
    window: int = 7,
    drop_path: float = 0.2,
    gate: str = "expert",
    gate_input: str = "token",
    top_k: int | None = None,
    moe_encoder: bool = True,
    moe_decoder: bool = True,
    init: str = "swin",
) -> M4oE:
    """Compose Swin-Unet, experts, gates and heads.

    Args:
        labels: the union of all label spaces.
        modalities: names of the experts, in their order.
        heads: structures of each data set's head, in the order of the heads; the background is added. Also as pairs,
            as a card keeps them, whose entries have no order.
        in_channels: image channels of the backbone.
        embed: width C of the first tokens, a multiple of the first stage's heads.
        depths: blocks per stage.
        num_heads: attention heads per stage.
        window: tokens along a window's side.
        drop_path: rate of the deepest block, rising linearly from 0.
        gate: ``expert``, ``channel_official`` or ``none``.
        gate_input: ``token`` or ``image_mean``.
        top_k: experts per token; None for all.
        moe_encoder: mixtures in the encoder, else a plain perceptron.
        moe_decoder: mixtures in the decoder, else a plain perceptron.
        init: ``swin``, or ``fan_in`` for narrow networks, see
            :func:`~common.backbones.swin_unet.network.start_weights`.

    Raises:
        LabelError: for a structure of a head that the union lacks.
    """
    heads = dict(heads)
    unknown = {f"{task}: {name}" for task, names in heads.items() for name in names if name not in labels.names}
    if unknown:
        raise LabelError(
            "a head has structures that the union lacks", got=sorted(unknown), expected=", ".join(labels.names)
        )
    backbone = swin_unet_with_experts(
        experts=len(modalities), gate=gate, gate_input=gate_input, top_k=top_k, moe_encoder=moe_encoder,
        moe_decoder=moe_decoder, in_channels=in_channels, embed=embed, depths=depths, num_heads=num_heads,
        window=window, drop_path=drop_path,
    )  # fmt: skip
    classes = {task: [0, *(labels.names.index(n) + 1 for n in names)] for task, names in heads.items()}
    network = M4oE(backbone=backbone, modalities=modalities, classes=classes, total=labels.num_classes,
                   in_channels=in_channels, embed=embed)  # fmt: skip
    start_weights(network, init)
    return network
