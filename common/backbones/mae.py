"""The masked autoencoder's vision transformer, in the layout of the public weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from ..errors import ConfigError
from ..weights import Coverage, load_weights, read_state_dict

__all__ = ["MAE", "MAEOutputs", "load_mae", "mae_encoder", "sine_positions"]

_DECODER = ("decoder_", "mask_token")


class MAEOutputs(NamedTuple):
    """Prediction ``[B, h, w, p p 3]`` (rows, columns, channels), and which patches were hidden ``[B, h, w]``."""

    prediction: Tensor
    hidden: Tensor


def sine_positions(*, width: int, side: int) -> Tensor:
    """Fixed position embedding of a square grid, with zeros for the class token before it.

    The first half of the channels encodes the column, the second the row, each as sines and cosines of
    ``position / 10000^(2 i / (width / 2))``.

    Args:
        width: channels, a multiple of 4.
        side: patches along a side.

    Returns:
        ``[1, 1 + side^2, width]``.

    Reference:
        He et al., Masked Autoencoders, 2022, section A.1.
    """
    if width % 4:
        raise ConfigError("sines and cosines of two axes need a width of 4 n", where="width", got=width)
    quarter = width // 4
    rate = 10000 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    angle = torch.arange(side, dtype=torch.float64)[:, None] * rate
    axis = torch.cat([angle.sin(), angle.cos()], 1)
    columns = axis[None].expand(side, side, -1)
    both = torch.cat([columns, columns.transpose(0, 1)], 2).flatten(0, 1)
    return torch.cat([torch.zeros(1, width), both.float()])[None]


def mae_encoder(
    *, image_size: int = 224, patch: int = 16, width: int = 1024, depth: int = 24, heads: int = 16
) -> VisionTransformer:
    """A vision transformer with a class token and a final norm; ViT-L/16 by default: 303.3 M parameters.

    Args:
        image_size: pixels along a side, a multiple of ``patch``.
        patch: pixels along a patch's side.
        width: channels of the tokens, a multiple of ``heads``.
        depth: blocks.
        heads: of the attention.
    """
    return VisionTransformer(**_sizes(image_size, patch, width, depth, heads))


def _sizes(image_size: int, patch: int, width: int, depth: int, heads: int) -> dict[str, Any]:
    if image_size % patch or width % heads:
        got = (image_size, patch, width, heads)
        expected = "image_size a multiple of patch, width a multiple of heads"
        raise ConfigError("these sizes make no network", where="teacher", got=got, expected=expected)
    return {
        "img_size": image_size, "patch_size": patch, "embed_dim": width, "depth": depth, "num_heads": heads,
        "num_classes": 0, "norm_layer": partial(nn.LayerNorm, eps=1e-6),
    }  # fmt: skip


class MAE(VisionTransformer):
    """A vision transformer that encodes the visible patches, and a light one that rebuilds the others from them.

    Args:
        image_size: pixels along a side.
        patch: p, pixels along a patch's side.
        width: channels of the encoder.
        depth: blocks of the encoder.
        heads: of the encoder.
        decoder_width: channels of the decoder, a multiple of ``decoder_heads`` and of 4.
        decoder_depth: blocks of the decoder.
        decoder_heads: of the decoder.
        mask_ratio: share of the patches that is hidden, above 0 and below 1.

    Shapes:
        ``[B, 3, H, W] -> `` :class:`MAEOutputs`.

    Reference:
        He et al., Masked Autoencoders Are Scalable Vision Learners, 2022, section 3. Positions are fixed there; here
        the encoder's are what the weights say and are not trained either.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch: int = 16,
        width: int = 1024,
        depth: int = 24,
        heads: int = 16,
        decoder_width: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        mask_ratio: float = 0.75,
    ) -> None:
        super().__init__(**_sizes(image_size, patch, width, depth, heads))
        side = image_size // patch
        self.side, self.visible = side, side**2 - round(mask_ratio * side**2)
        if not 0 < self.visible < side**2:
            problem = "some patches are hidden and some are not"
            expected = f"1 .. {side**2 - 1} of {side**2} patches hidden"
            raise ConfigError(problem, where="mask_ratio", got=mask_ratio, expected=expected)
        self.pos_embed = nn.Parameter(sine_positions(width=width, side=side), requires_grad=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        nn.init.normal_(self.mask_token, std=0.02)
        self.decoder_embed = nn.Linear(width, decoder_width)
        positions = sine_positions(width=decoder_width, side=side)
        self.decoder_pos_embed = nn.Parameter(positions, requires_grad=False)
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        blocks = (Block(decoder_width, decoder_heads, qkv_bias=True, norm_layer=norm) for _ in range(decoder_depth))
        self.decoder_blocks = nn.ModuleList(blocks)
        self.decoder_norm = norm(decoder_width)
        self.decoder_pred = nn.Linear(decoder_width, patch**2 * 3)

    def forward(self, image: Tensor, hidden: Tensor | None = None) -> MAEOutputs:  # type: ignore[override]
        """Hide, encode what is visible, rebuild.

        Args:
            image: normalised as the weights want it.
            hidden: ``[B, h, w]`` bool with equally many in each sample; drawn when None.

        Raises:
            ConfigError: for samples with different numbers of hidden patches.
        """
        positions: Any = self.pos_embed
        tokens = self.patch_embed(image) + positions[:, 1:]
        order = torch.rand(len(image), self.side**2, device=image.device) if hidden is None else hidden.flatten(1)
        if hidden is not None and len(set(hidden.flatten(1).sum(1).tolist())) != 1:
            raise ConfigError(
                "each sample hides as many patches", where="hidden", got=hidden.flatten(1).sum(1).tolist()
            )
        visible = self.visible if hidden is None else int((~hidden[0]).sum())
        shuffled = order.argsort(dim=1, stable=True)
        seen = shuffled[:, :visible]
        kept = tokens.gather(1, seen[..., None].expand(-1, -1, tokens.shape[2]))
        class_token: Any = self.cls_token
        first = (class_token + positions[:, :1]).expand(len(image), -1, -1)
        encoded = self.norm(self.blocks(torch.cat([first, kept], 1)))
        unseen = torch.ones(order.shape, dtype=torch.bool, device=image.device).scatter(1, seen, False)
        return MAEOutputs(self._rebuilt(encoded, seen), unseen.unflatten(1, (self.side, self.side)))

    def _rebuilt(self, encoded: Tensor, seen: Tensor) -> Tensor:
        small = self.decoder_embed(encoded)
        every = self.mask_token.to(small.dtype).expand(len(small), self.side**2, -1)
        every = every.scatter(1, seen[..., None].expand(-1, -1, small.shape[2]), small[:, 1:])
        tokens = torch.cat([small[:, :1], every], 1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            tokens = block(tokens)
        patches: Tensor = self.decoder_pred(self.decoder_norm(tokens))[:, 1:]
        grid: Tensor = patches.unflatten(1, (self.side, self.side))
        return grid


def load_mae(network: VisionTransformer, source: str | Path | Mapping[str, Tensor]) -> Coverage:
    """Fill a transformer from MAE's public weights; positions are resized when the image has another size.

    Args:
        network: an encoder, or an :class:`MAE`, whose decoder stays as it is when the source has none.
        source: ``mae_pretrain_vit_large.pth`` (``{"model": ...}``), the variant with a decoder, or what this
            collection wrote.

    Raises:
        WeightError: when the weights are of another network.
    """
    given = source if isinstance(source, Mapping) else read_state_dict(Path(source))[0]
    where: object = "state dict" if isinstance(source, Mapping) else source
    state = {key.removeprefix("module."): value for key, value in given.items()}
    decoder = {key for key in state if key.startswith(_DECODER)}
    whole = isinstance(network, MAE)
    if not whole:
        state = {k: v for k, v in state.items() if k not in decoder}
    own = network.state_dict()
    for key in ("pos_embed", "decoder_pos_embed"):
        if key in state and key in own and state[key].ndim == 3 and state[key].shape[1] != own[key].shape[1]:
            side = round((own[key].shape[1] - 1) ** 0.5)
            state[key] = resample_abs_pos_embed(state[key], new_size=[side, side], num_prefix_tokens=1)
    missing = ("decoder_*", "mask_token") if whole and not decoder else ()
    return load_weights(network, state, where=where, allow_missing=missing)
