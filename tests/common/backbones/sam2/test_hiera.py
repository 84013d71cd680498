"""Hiera without padded tokens against SAM2's own modules, which pad."""

import copy

import pytest
import torch

from common.errors import ConfigError
from common.layers.lora.experts import add_experts, set_expert
from common.layers.lora.qkv import base_qkv, batched_qkv

pytest.importorskip("sam2", reason="Meta's package sam2 is not installed")

from sam2.modeling.backbones.hieradet import MultiScaleBlock
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine

from common.backbones.sam2.hiera import HieraBlock, Sam2Encoder
from common.backbones.sam2.network import sam2_encoder

# dim, dim_out, q_stride, window, grid
CASES = {
    "one window": (8, 8, None, 4, (4, 4)),
    "whole windows": (8, 8, None, 4, (8, 12)),
    "remainders": (8, 8, None, 4, (6, 9)),
    "larger than the grid": (8, 8, None, 14, (5, 3)),
    "everywhere": (8, 8, None, 0, (5, 6)),
    "pooled": (8, 16, (2, 2), 4, (8, 8)),
    "pooled with remainders": (8, 16, (2, 2), 4, (6, 10)),
    "pooled, larger than the grid": (8, 16, (2, 2), 14, (6, 4)),
    "wider": (8, 16, None, 4, (6, 6)),
}


def blocks(dim, dim_out, q_stride, window, bias=True):
    torch.manual_seed(0)
    theirs = MultiScaleBlock(dim, dim_out, 2, q_stride=q_stride, window_size=window)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    if not bias:
        theirs.attn.qkv = torch.nn.Linear(dim, 3 * dim_out, bias=False)
    return theirs, HieraBlock(block=copy.deepcopy(theirs))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bias", [True, False])
def test_a_block_is_sam2s_forward_and_backward(case, bias):
    dim, dim_out, q_stride, window, grid = CASES[case]
    theirs, ours = (block.double() for block in blocks(dim, dim_out, q_stride, window, bias))
    x = torch.randn(2, *grid, dim, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    expected, found = theirs(inputs[0]), ours(inputs[1])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    probe = torch.randn_like(expected)
    (expected * probe).sum().backward()
    (found * probe).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-8, atol=1e-8)
    for (name, a), b in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-8, atol=1e-8, msg=name)


@pytest.mark.parametrize("case", ["remainders", "pooled with remainders", "everywhere"])
def test_parts_make_the_whole(case):
    dim, dim_out, q_stride, window, grid = CASES[case]
    _, block = blocks(dim, dim_out, q_stride, window)
    x = torch.randn(2, *grid, dim)
    shortcut, normed = block.start(x)
    qkv = block.attn.qkv(normed)
    assert (normed.shape, qkv.shape) == (x.shape, (2, *grid, 3 * dim_out))
    attended = block.attend(qkv)
    assert shortcut.shape == attended.shape
    assert torch.equal(block.finish(shortcut, attended), block(x))
    assert torch.equal(block.attn(normed), attended)


def test_pooling_everywhere_is_pooling_in_one_window():
    """SAM2's own block divides by its window size there."""
    _, windowed = blocks(8, 16, (2, 2), 6)
    _, everywhere = blocks(8, 16, (2, 2), 0)
    x = torch.randn(2, 6, 6, 8)
    torch.testing.assert_close(everywhere(x), windowed(x))
    assert everywhere(torch.randn(2, 4, 10, 8)).shape == (2, 2, 5, 16)


def test_names_are_sam2s():
    theirs, ours = blocks(8, 16, (2, 2), 4)
    assert list(theirs.state_dict()) == list(ours.state_dict())


def test_odd_windows_and_grids_cannot_be_pooled():
    with pytest.raises(ConfigError, match="pooled in twos"):
        blocks(8, 16, (2, 2), 7)
    with pytest.raises(ConfigError, match="pooled in twos"):
        blocks(8, 16, (2, 2), 4)[1](torch.zeros(1, 5, 6, 8))


def reference(encoder):
    """SAM2's own image encoder with the same weights."""
    from sam2.modeling.backbones.hieradet import Hiera

    trunk = Hiera(
        embed_dim=16,
        num_heads=1,
        stages=(1, 1, 3, 1),
        global_att_blocks=(3,),
        window_pos_embed_bkg_spatial_size=(7, 7),
        window_spec=(8, 4, 6, 3),
    )
    neck = FpnNeck(
        position_encoding=PositionEmbeddingSine(num_pos_feats=32),
        d_model=32,
        backbone_channel_list=trunk.channel_list,
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    theirs = ImageEncoder(trunk=trunk, neck=neck, scalp=1)
    theirs.load_state_dict(encoder.state_dict())
    return theirs


@pytest.mark.parametrize("size", [32, 64, 96, 160])
def test_the_encoder_is_sam2s(size):
    encoder = sam2_encoder("tiny", image_size=size, seed=0)
    image = torch.rand(2, 3, size, size)
    with torch.no_grad():
        found, expected = encoder(image, inner=True), reference(encoder)(image)
    for ours, theirs in zip((*found.fine, found.embedding), expected["backbone_fpn"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert found.embedding.shape == (2, 32, size // 16, size // 16)
    assert found.tokens.shape == (2, size // 16, size // 16, encoder.embed_dim)
    assert [t.shape[-1] for t in found.inner] == [16, 32, 64, 64, 64, 128]


def test_tokens_are_what_the_neck_projects():
    encoder = sam2_encoder("tiny", image_size=64, seed=0)
    with torch.no_grad():
        out = encoder(torch.rand(1, 3, 64, 64))
        third, fourth = encoder.neck.convs[1].conv, encoder.neck.convs[0].conv
        kernel = torch.cat([third.weight, fourth.weight], 1)[:, :, 0, 0]
        joined = out.tokens @ kernel.T + third.bias + fourth.bias
    torch.testing.assert_close(joined.permute(0, 3, 1, 2), out.embedding, rtol=1e-5, atol=1e-6)


def test_a_step_runs_the_blocks():
    encoder = sam2_encoder("tiny", image_size=64, seed=0)
    image, seen = torch.rand(1, 3, 64, 64), []

    def step(index, tokens):
        seen.append(index)
        return encoder.run_block(index, tokens)

    with torch.no_grad():
        assert torch.equal(encoder(image, step).embedding, encoder(image).embedding)
        tokens = encoder.embed(image)
    assert seen == list(range(6))
    assert tokens.shape == (1, 16, 16, 16)


def test_recomputing_changes_nothing():
    image = torch.rand(1, 3, 64, 64)
    gradients = []
    for checkpointing in (False, True):
        encoder = sam2_encoder("tiny", image_size=64, seed=0, checkpointing=checkpointing)
        out = encoder(image)
        sum(x.square().sum() for x in (out.embedding, *out.fine)).backward()
        gradients.append([p.grad for p in encoder.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(list(encoder.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("size", [0, 16, 48, 224 + 16])
def test_sizes_that_are_no_multiple_of_32_are_refused(size):
    with pytest.raises(ConfigError, match="multiple of 32"):
        sam2_encoder("tiny", image_size=size)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ConfigError, match="encoder's size"):
        sam2_encoder("tiny", image_size=64)(torch.rand(1, 3, 32, 32))


def test_experts_keep_the_function_and_the_names_until_they_are_trained():
    encoder = sam2_encoder("tiny", image_size=96, seed=0).eval()
    image = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        before, names = encoder(image).embedding, dict(encoder.state_dict())
        add_experts(encoder)
        torch.testing.assert_close(encoder(image).embedding, before, rtol=1e-5, atol=1e-5)
    after = encoder.state_dict()
    assert all(torch.equal(after[name], value) for name, value in names.items())


def test_batched_experts_are_experts_one_by_one():
    """What stage 2 does in every block, against PEFT's switching, where padding and pooling are involved."""
    encoder = sam2_encoder("tiny", image_size=96, seed=0).eval()
    add_experts(encoder, rank=2)
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    levels, image = ("image", "patch", "pixel"), torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        tokens = encoder.embed(image)
        for block in encoder.blocks:
            shortcut, normed = block.start(tokens)
            base = base_qkv(block.attn.qkv, normed)
            every = torch.cat([base[None], batched_qkv(block.attn.qkv, levels, normed, base)])
            out = block.finish(shortcut.repeat(4, 1, 1, 1), block.attend(every.flatten(0, 1))).unflatten(0, (4, 2))
            for part, level in zip(out, (None, *levels), strict=True):
                set_expert(encoder, level)
                torch.testing.assert_close(part, block(tokens), rtol=1e-4, atol=1e-5)
            tokens = out[0]


def test_the_encoder_needs_its_own_blocks():
    assert all(isinstance(block, HieraBlock) for block in sam2_encoder("tiny", image_size=32).blocks)
    assert Sam2Encoder.patch_size == 16
