"""The adapted block against its formula, and against Medical SAM Adapter's order with padded windows."""

import copy

import pytest
import torch
from segment_anything.modeling.image_encoder import window_partition, window_unpartition
from torch.nn import functional as F

from common.backbones.sam.network import sam_encoder
from common.errors import ConfigError
from common.layers.sam_adapters import BlockAdapter, Bottleneck


def published(block, adapter, x):
    """Plain torch, windows padded, the space adapter with its own skip before they are taken apart."""
    shortcut, h = x, block.norm1(x)
    window = block.window_size
    h, pad = window_partition(h, window) if window else (h, None)
    B, H, W, C = h.shape
    heads = block.attn.heads
    q, k, v = block.attn.qkv(h).reshape(B, H * W, 3, heads, -1).permute(2, 0, 3, 1, 4)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    size = torch.arange(H)[:, None] - torch.arange(H)[None] + H - 1
    rows, columns = block.attn.rel_pos_h[size], block.attn.rel_pos_w[size]
    grid = q.unflatten(2, (H, W))
    bias = (
        torch.einsum("bnhwc,hkc->bnhwk", grid, rows)[..., None]
        + torch.einsum("bnhwc,wkc->bnhwk", grid, columns)[..., None, :]
    )
    logits = logits + bias.flatten(4).flatten(2, 3)
    h = block.attn.proj((logits.softmax(-1) @ v).transpose(1, 2).reshape(B, H, W, C))
    h = h + adapter.space.up(F.gelu(adapter.space.down(h)))
    x = shortcut + (window_unpartition(h, window, pad, x.shape[1:3]) if window else h)
    normed = block.norm2(x)
    return x + block.mlp(normed) + 0.5 * adapter.mlp.up(F.gelu(adapter.mlp.down(normed)))


@pytest.mark.parametrize("index", [0, 1])
def test_it_is_the_published_block(index):
    block = sam_encoder("tiny", image_size=64, seed=0).blocks[index]  # a window of 3 on 4 x 4, and a global one
    torch.manual_seed(1)
    torch.nn.init.normal_(block.attn.rel_pos_h)
    torch.nn.init.normal_(block.attn.rel_pos_w)
    adapter, x = BlockAdapter(channels=32, init="default"), torch.randn(2, 4, 4, 32)
    assert torch.allclose(adapter(block, x), published(block, adapter, x), atol=1e-5)


def test_zero_leaves_the_block_as_it_is():
    block, x = sam_encoder("tiny", image_size=64, seed=0).blocks[0], torch.randn(1, 4, 4, 32)
    assert torch.equal(BlockAdapter(channels=32)(block, x), block(x))
    assert not torch.equal(BlockAdapter(channels=32, init="default")(block, x), block(x))


def test_only_the_adapter_s_gradients_are_its_own():
    block, adapter = sam_encoder("tiny", image_size=64, seed=0).blocks[0], BlockAdapter(channels=32)
    before = copy.deepcopy(block.state_dict())
    adapter(block.requires_grad_(False), torch.randn(1, 4, 4, 32)).sum().backward()
    assert float(adapter.space.up.weight.grad.abs().sum()) > 0 and float(adapter.mlp.up.weight.grad.abs().sum()) > 0
    assert all(torch.equal(before[k], v) for k, v in block.state_dict().items())


def test_parameters_of_the_paper():
    assert sum(p.numel() for p in BlockAdapter(channels=768).parameters()) * 12 == 7_100_928  # Table 6: 7.10 M


def test_impossible_adapters():
    with pytest.raises(ConfigError, match="adapter_ratio"):
        Bottleneck(channels=8, ratio=0.1)
    with pytest.raises(ConfigError, match="adapter_init"):
        Bottleneck(channels=8, init="one")
