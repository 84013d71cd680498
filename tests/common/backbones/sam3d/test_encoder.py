"""SAM-Med3D's encoder against padded windows in plain torch, and its options."""

import pytest
import torch
from torch import nn

from common.backbones.sam3d.encoder import Sam3DEncoder
from common.errors import ConfigError
from tools.bench.sam_med3d_plain import padded_encoder

TINY = {"image_size": 32, "patch": 8, "embed": 24, "depth": 3, "heads": 2, "width": 12}


def build(**options):
    torch.manual_seed(0)
    encoder = Sam3DEncoder(**{**TINY, "window": 3, "global_blocks": (2,), "rel_pos": "released", **options})
    for name, parameter in encoder.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(parameter, std=0.5)
    return encoder


def close(a, b, tolerance):
    assert a.shape == b.shape
    assert ((a - b).abs().max() / b.abs().max().clamp_min(1e-9)).item() < tolerance


# a remainder in each axis, windows larger than the grid, no padding, only global blocks
@pytest.mark.parametrize("options", [{}, {"window": 7}, {"window": 2}, {"global_blocks": (0, 1, 2)}], ids=str)
def test_equals_padded_windows_with_gradients(options):
    encoder = build(**options).double()
    image = torch.randn(2, 1, 32, 32, 32, dtype=torch.float64, requires_grad=True)
    got, expected = encoder(image), padded_encoder(encoder, image)
    close(got, expected, 1e-10)
    weight = torch.randn_like(expected)
    wanted = [image, *encoder.parameters()]
    for mine, reference in zip(
        torch.autograd.grad(got, wanted, weight), torch.autograd.grad(expected, wanted, weight), strict=True
    ):
        close(mine, reference, 1e-9)
    with torch.inference_mode():
        close(encoder(image), expected, 1e-10)


def test_the_intended_bias_is_another_one_and_does_not_depend_on_how_it_is_carried():
    encoder, released = build(rel_pos="intended"), build()
    image = torch.randn(1, 1, 32, 32, 32)
    with torch.inference_mode():
        folded = encoder(image)
        for block in encoder.blocks:
            assert block.attn.fold is True
            block.attn.fold = False
        close(encoder(image), folded, 1e-5)
        assert (folded - released(image)).abs().max() > 1e-3


def test_checkpointing_changes_no_gradient():
    plain, saving = build(), build(checkpointing=True)
    image = torch.randn(1, 1, 32, 32, 32)
    for encoder in (plain, saving):
        encoder(image).square().sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_patches_are_the_convolutions():
    encoder = build()
    image = torch.randn(2, 1, 32, 32, 32)
    expected = encoder.patch_embed.proj(image).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(encoder.patch_embed(image), expected, rtol=1e-4, atol=1e-5)


def test_half_precision_stays_close():
    encoder = build()
    image = torch.randn(1, 1, 32, 32, 32)
    with torch.inference_mode():
        expected = encoder(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = encoder(image).float()
    close(got, expected, 0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rel_pos": "other"},
        {"image_size": 33},
        {"image_size": -8},
        {"window": 0},
        {"heads": 5},
        {"global_blocks": (3,)},
    ],
    ids=str,
)
def test_ill_arguments(wrong):
    with pytest.raises(ConfigError):
        build(**wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("rel_pos", ["released", "intended"])
def test_a_gpu_gives_the_same(rel_pos):
    encoder = build(rel_pos=rel_pos)
    image = torch.randn(1, 1, 32, 32, 32)
    with torch.inference_mode():
        expected = encoder(image)
        close(encoder.cuda()(image.cuda()).cpu(), expected, 1e-3)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            close(encoder(image.cuda()).float().cpu(), expected, 0.1)
