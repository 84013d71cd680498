"""Our encoder against segment-anything's, whole and in parts."""

import copy

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling.image_encoder import Block, ImageEncoderViT
from torch import nn

from common.backbones.sam.encoder import SamBlock, SamEncoder
from common.backbones.sam.network import VARIANTS, sam_encoder
from common.errors import ConfigError


def library(size=64, window=3, depth=3):
    torch.manual_seed(0)
    made = ImageEncoderViT(
        img_size=size, embed_dim=16, depth=depth, num_heads=2, out_chans=8, use_rel_pos=True, window_size=window,
        global_attn_indexes=(1,),
    )  # fmt: skip
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


def image(size=64, batch=2):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("size", "window"), [(64, 3), (48, 3), (80, 2), (32, 5), (112, 4)])
def test_equals_segment_anything_with_gradients(size, window):
    theirs = library(size, window)
    ours = SamEncoder(encoder=copy.deepcopy(theirs))
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    expected, got = theirs(image(size)), ours(image(size))
    torch.testing.assert_close(got.embedding, expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(ours(image(size)).embedding, expected, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(expected)
    (expected * weight).sum().backward()
    (got.embedding * weight).sum().backward()
    for (name, mine), reference in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        scale = reference.grad.abs().max()
        assert (mine.grad - reference.grad).abs().max() <= 2e-5 * scale, name


def test_a_block_is_its_parts():
    block = SamBlock(block=Block(16, 2, use_rel_pos=True, window_size=3, input_size=(4, 4)))
    x = torch.randn(2, 4, 5, 16)
    shortcut, normed = block.start(x)
    assert shortcut is x
    assert block.window_size == 3
    assert torch.equal(block.finish(shortcut, block.attend(block.attn.qkv(normed))), block(x))


def test_a_caller_can_run_the_blocks():
    encoder = SamEncoder(encoder=library())
    expected = encoder(image(), inner=True)
    seen = []

    def step(index, tokens):
        seen.append((index, tokens.clone()))
        return encoder.run_block(index, tokens) + (index == 2)

    got = encoder(image(), step)
    assert [i for i, _ in seen] == [0, 1, 2]
    assert torch.equal(seen[0][1], encoder.embed(image()))
    for (_, before), after in zip(seen[1:], expected.inner, strict=False):
        torch.testing.assert_close(before, after)
    torch.testing.assert_close(got.tokens, expected.tokens + 1)
    assert got.inner == ()
    assert torch.equal(expected.inner[-1], expected.tokens)
    assert torch.equal(expected.embedding, encoder.finish(expected.tokens))
    assert expected.tokens.shape == (2, 4, 4, 16)
    assert expected.embedding.shape == (2, 8, 4, 4)


def test_checkpointing_changes_neither_values_nor_gradients():
    plain = SamEncoder(encoder=library())
    lean = copy.deepcopy(plain)
    lean.checkpointing = True
    for encoder in (plain, lean):
        encoder(image()).embedding.square().sum().backward()
    assert torch.equal(plain(image()).tokens, lean(image()).tokens)
    for mine, theirs in zip(lean.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


@pytest.mark.parametrize("variant", ["vit_b", "vit_l", "vit_h"])
def test_names_and_shapes_are_the_published_ones(variant):
    with torch.device("meta"):
        theirs = sam_model_registry[variant]().image_encoder
        ours = sam_encoder(variant, image_size=1024)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    assert [b.window_size for b in ours.blocks] == [b.window_size for b in theirs.blocks]
    assert [b.attn.heads for b in ours.blocks] == [b.attn.num_heads for b in theirs.blocks]
    assert ours.blocks[0].norm1.eps == theirs.blocks[0].norm1.eps


@pytest.mark.parametrize(("size", "millions"), [(256, 86.673), (512, 87.279), (1024, 89.671)])
def test_parameters_at_other_sizes_are_the_published_number(size, millions):
    with torch.device("meta"):
        encoder = sam_encoder("vit_b", image_size=size)
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e6, 3) == millions
    assert (encoder.image_size, encoder.patch_size, encoder.embed_dim) == (size, 16, 768)


def test_a_seed_gives_the_same_weights_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = sam_encoder("tiny", image_size=64, seed=11).state_dict()
    assert torch.equal(torch.rand(3), expected)
    second = sam_encoder("tiny", image_size=64, seed=11).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    other = sam_encoder("tiny", image_size=64, seed=12).state_dict()
    assert not torch.equal(first["patch_embed.proj.weight"], other["patch_embed.proj.weight"])


@pytest.mark.parametrize("size", [0, -16, 100, 225])
def test_sizes_that_are_no_multiple_of_the_patch_are_refused(size):
    with pytest.raises(ConfigError, match="multiple"):
        sam_encoder("tiny", image_size=size)


@pytest.mark.parametrize("shape", [(1, 3, 64, 80), (1, 1, 64, 64), (3, 64, 64), (1, 3, 48, 48)])
def test_images_of_another_size_are_refused(shape):
    with pytest.raises(ConfigError, match="image"):
        sam_encoder("tiny", image_size=64)(torch.zeros(shape))


def test_unknown_variants_are_refused():
    with pytest.raises(ConfigError, match="vit_x"):
        sam_encoder("vit_x")
    assert {"vit_b", "vit_l", "vit_h", "small", "tiny"} == set(VARIANTS)


@pytest.mark.slow
@pytest.mark.parametrize("size", [224, 256, 512])
def test_equals_segment_anything_at_real_sizes(size):
    torch.manual_seed(0)
    with torch.no_grad():
        theirs = sam_model_registry["vit_b"]().image_encoder
        theirs.pos_embed = nn.Parameter(torch.randn(1, size // 16, size // 16, 768) * 0.02)
        theirs.img_size = size
        for name, parameter in theirs.named_parameters():
            if "rel_pos" in name:
                nn.init.normal_(parameter, std=0.05)
        ours = SamEncoder(encoder=theirs)
        torch.testing.assert_close(ours(image(size, 1)).embedding, theirs(image(size, 1)), atol=1e-4, rtol=1e-4)
