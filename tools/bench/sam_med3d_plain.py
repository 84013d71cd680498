"""What SAM-Med3D-MoE's public code and text compute: padded windows, and all decoders on every click."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.backbones.sam3d.decoder import MaskDecoder3D
from common.backbones.sam3d.encoder import Sam3DEncoder
from common.backbones.sam3d.network import Sam3D
from common.backbones.sam3d.prompt import Prompts
from common.methods.sam_med3d_moe.network import SAMMed3DMoE

__all__ = ["every_decoder", "padded_encoder", "released_decoder"]


def padded_encoder(encoder: Sam3DEncoder, image: Tensor) -> Tensor:
    """The released computation: windows padded with zeros, every bias written out, norms in elementary steps.

    Args:
        encoder: its parameters are used, its code is not.
        image: [B, 1, S, S, S].

    Returns:
        [B, C, g, g, g].
    """
    patches: Any = encoder.patch_embed.proj
    x: Tensor = F.conv3d(image, patches.weight, patches.bias, stride=patches.stride).permute(0, 2, 3, 4, 1)
    x = x + encoder.pos_embed
    for index in range(len(encoder.blocks)):
        block: Any = encoder.blocks[index]
        x = x + _windows(block.norm1(x), block)
        x = x + block.mlp(block.norm2(x))
    x = x.permute(0, 4, 1, 2, 3)
    first, norm, second, last = list(encoder.neck)
    assert isinstance(norm, nn.LayerNorm) and isinstance(last, nn.LayerNorm)
    return _norm(second(_norm(first(x), norm)), last)


def _norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    x = (x - mean) / torch.sqrt(variance + norm.eps)
    return norm.weight[:, None, None, None] * x + norm.bias[:, None, None, None]


def _windows(x: Tensor, block: Any) -> Tensor:
    # cut a grid [B, X, Y, Z, C] into padded windows, attend in each, put them back
    if block.window_size == 0:
        return _attention(x, block.attn)
    window, grid = block.window_size, x.shape[1:4]
    x = F.pad(x, (0, 0, *(pad for n in reversed(grid) for pad in (0, -n % window))))
    whole = [n // window for n in x.shape[1:4]]
    parts = x.unflatten(3, (whole[2], window)).unflatten(2, (whole[1], window)).unflatten(1, (whole[0], window))
    parts = parts.permute(0, 1, 3, 5, 2, 4, 6, 7)
    out = _attention(parts.flatten(0, 3).contiguous(), block.attn).unflatten(0, parts.shape[:4])
    merged: Tensor = out.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(x.shape)
    return merged[:, : grid[0], : grid[1], : grid[2]]


def _attention(x: Tensor, attention: Any) -> Tensor:
    batch, d, h, w, channels = x.shape
    n = d * h * w
    qkv = attention.qkv(x).reshape(batch, n, 3, attention.heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.reshape(3, batch * attention.heads, n, -1).unbind(0)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    grid = q.reshape(-1, d, h, w, q.shape[-1])
    place = torch.arange(d, device=x.device)
    rows = place[:, None] - place[None, :] + d - 1
    first = torch.einsum("bdhwc,dkc->bdhwk", grid, attention.rel_pos_d[rows])
    second = torch.einsum("bdhwc,hkc->bdhwk", grid, attention.rel_pos_h[rows])
    third = torch.einsum("bdhwc,wkc->bdhwk", grid, attention.rel_pos_w[rows])
    logits = (
        logits.view(-1, d, h, w, d, h, w)
        + first[:, :, :, :, None, None]
        + second[:, :, :, None, :, None]
        + third[:, :, :, None, None, :]
    ).view(-1, n, n)
    out = (logits.softmax(-1) @ v).view(batch, attention.heads, d, h, w, -1)
    found: Tensor = attention.proj(out.permute(0, 2, 3, 4, 1, 5).reshape(batch, d, h, w, channels))
    return found


def released_decoder(decoder: MaskDecoder3D, base: Sam3D, embedding: Tensor, prompts: Prompts) -> Tensor:
    """The released decoder on one prompt: transposed convolutions, the maps of all four mask tokens, the first mask.

    Args:
        decoder: its parameters are used, of its code the two-way transformer alone.
        base: for the grid's positions.
        embedding: [1, C, g, g, g].
        prompts: of one sample.

    Returns:
        [1, 1, 4g, 4g, 4g].
    """
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])[None]
    tokens = torch.cat([own, prompts.sparse], 1)
    source = embedding + prompts.dense
    positions = base.prompt_encoder.dense_positions()
    shape = source.shape
    answers, voxels = decoder.transformer(source.flatten(2)[..., None], positions.flatten(2)[..., None], tokens)
    first, norm, gelu, second, last = decoder.output_upscaling
    assert isinstance(norm, nn.LayerNorm)
    fine = last(second(gelu(_norm(first(voxels.transpose(1, 2).reshape(shape)), norm))))
    heads = decoder.output_hypernetworks_mlps
    weights = torch.stack([head(answers[:, 1 + i]) for i, head in enumerate(heads)], 1)
    decoder.iou_prediction_head(answers[:, 0])
    masks: Tensor = (weights @ fine.flatten(2)).view(1, -1, *fine.shape[2:])
    return masks[:, :1]


def every_decoder(moe: SAMMed3DMoE, embedding: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
    """A click as the text has it: all decoders answer, every answer is up-sampled, then the gate's choice is taken.

    Returns:
        low-resolution logits [1, 1, s, s, s] for the next click, and the answer [1, 1, S, S, S].
    """
    positions = moe.base.prompt_encoder.dense_positions()
    scores = moe.gate(embedding, positions, prompts.sparse).weights[0, int(moe.gate.general) :]
    decoders: list[Any] = [moe.base.mask_decoder, *moe.experts]
    small = [released_decoder(decoder, moe.base, embedding, prompts) for decoder in decoders]
    large = [F.interpolate(m, size=(moe.image_size,) * 3, mode="trilinear", align_corners=False) for m in small]
    best = int(scores.argmax())
    score = scores[best]
    if float(score) <= moe.tau:
        return small[0], large[0]
    low, answer = ((1 - score) * m[0] + score * m[1 + best] for m in (small, large))
    return low, answer
