"""What SAM-Med3D's encoder costs: padded windows as released against real tokens only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.backbones.sam3d import Sam3D, sam3d_network
from common.backbones.sam3d_encoder import Sam3DEncoder

from .bench_measure import Case, relative

__all__ = ["LAPTOP", "PAPER", "PARTS", "cases", "growth", "network", "padded_encoder"]

PARTS = ("encoder",)
LAPTOP = {"size": 64, "variant": "small"}
PAPER = {"size": 128, "variant": "vit_b_ori"}


def network(size: int, variant: str) -> Sam3D:
    """SAM-Med3D with random weights and the released position bias, none of it zero."""
    found = sam3d_network(variant, image_size=size, rel_pos="released", seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in found.image_encoder.named_parameters():
        if "rel_pos" in name:  # zero until it is trained, and a bias of zero could not be wrong
            nn.init.normal_(parameter, std=0.05, generator=generator)
    return found


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


def _encoder(size: int, variant: str) -> Case:
    sam = network(size, variant)
    image = torch.randn(1, 1, size, size, size, generator=torch.Generator().manual_seed(1))

    @torch.inference_mode()
    def plain() -> Tensor:
        return padded_encoder(sam.image_encoder, image)

    @torch.inference_mode()
    def fast() -> Tensor:
        return sam.encode(image)

    goals = {"faster": 12.0, "tensors": 0.05}
    name = f"encoder at {size}^3 vs padded windows as released"
    return Case(name, plain, fast, lambda: relative(fast(), plain()), 1e-5, goals, tensors=True)


def cases(size: int, variant: str, count: int, parts: Sequence[str] = PARTS) -> Iterator[Case]:
    """The comparisons, built one at a time so that none pays for another's memory.

    Args:
        size: voxels along each side of the crop.
        variant: of `sam3d_network`.
        count: experts; the encoder has none.
        parts: some of :data:`PARTS`, in this order.
    """
    del count
    for part in parts:
        if part == "encoder":
            yield _encoder(size, variant)


def growth(size: int, variant: str, counts: Sequence[int]) -> Iterator[tuple[int, Callable[[], Tensor]]]:
    """Nothing yet: the encoder does not grow with experts."""
    del size, variant, counts
    yield from ()
