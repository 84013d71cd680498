"""MAE's transformer: sizes, the public layout, and a naive twin of the masked forward pass."""

import math

import pytest
import timm
import torch

from common.backbones.mae import MAE, load_mae, mae_encoder, sine_positions
from common.errors import ConfigError, WeightError

SMALL = {"image_size": 32, "patch": 8, "width": 16, "depth": 2, "heads": 2}
DECODER = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}


def test_the_papers_encoder_has_the_public_layout():
    with torch.device("meta"):
        encoder, public = mae_encoder(), timm.create_model("vit_large_patch16_224.mae", num_classes=0)
    shapes = {k: tuple(v.shape) for k, v in encoder.state_dict().items()}
    assert shapes == {k: tuple(v.shape) for k, v in public.state_dict().items()}
    assert sum(p.numel() for p in encoder.parameters()) == 303_301_632
    assert shapes["pos_embed"] == (1, 197, 1024) and shapes["blocks.23.attn.qkv.weight"] == (3072, 1024)


def test_the_papers_decoder_has_the_public_layout():
    with torch.device("meta"):
        network = MAE()
    extra = {k: tuple(v.shape) for k, v in network.state_dict().items() if k.startswith(("decoder_", "mask_token"))}
    assert extra["mask_token"] == (1, 1, 512) and extra["decoder_pos_embed"] == (1, 197, 512)
    assert extra["decoder_embed.weight"] == (512, 1024) and extra["decoder_pred.weight"] == (768, 512)
    assert extra["decoder_blocks.7.attn.qkv.weight"] == (1536, 512) and "decoder_norm.bias" in extra
    assert len(extra) == 2 + 2 + 2 + 2 + 8 * 12


def test_positions_are_sines_and_cosines():
    found = sine_positions(width=8, side=3)[0]
    assert not found[0].any()
    for y in range(3):
        for x in range(3):
            expected = []
            for position in (x, y):
                angles = [position / 10000 ** (i / 2) for i in range(2)]
                expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            assert found[1 + 3 * y + x].tolist() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ConfigError):
        sine_positions(width=6, side=2)


@torch.inference_mode()
def test_equals_the_loop_over_samples():
    network = MAE(**SMALL, **DECODER).eval()
    image, hidden = torch.randn(2, 3, 32, 32), torch.zeros(2, 4, 4, dtype=torch.bool)
    hidden[0, :2, 1:], hidden[1, 1:3, :3] = True, True
    got = network(image, hidden)
    assert torch.equal(got.hidden, hidden)
    for sample in range(2):
        tokens = network.patch_embed(image[sample : sample + 1])[0] + network.pos_embed[0, 1:]
        places = [i for i in range(16) if not hidden[sample].flatten()[i]]
        x = torch.stack([network.cls_token[0, 0] + network.pos_embed[0, 0], *(tokens[i] for i in places)])[None]
        for block in network.blocks:
            x = block(x)
        x = network.decoder_embed(network.norm(x))[0]
        every = [x[1 + places.index(i)] if i in places else network.mask_token[0, 0] for i in range(16)]
        y = torch.stack([x[0], *every])[None] + network.decoder_pos_embed
        for block in network.decoder_blocks:
            y = block(y)
        expected = network.decoder_pred(network.decoder_norm(y))[0, 1:].view(4, 4, -1)
        torch.testing.assert_close(got.prediction[sample], expected, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_hidden_pixels_do_not_reach_the_prediction():
    network = MAE(**SMALL, **DECODER).eval()
    image = torch.randn(2, 3, 32, 32)
    hidden = network(image).hidden
    assert hidden.flatten(1).sum(1).tolist() == [12, 12] and not torch.equal(hidden[0], hidden[1])
    pixels = hidden.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    other = torch.where(pixels, torch.randn_like(image), image)
    assert torch.equal(network(image, hidden).prediction, network(other, hidden).prediction)
    assert not torch.equal(network(image, hidden).prediction, network(image + 1, hidden).prediction)


def test_positions_stay_and_everything_else_learns():
    network = MAE(**SMALL, **DECODER)
    network(torch.randn(2, 3, 32, 32)).prediction.square().sum().backward()
    still = {n for n, p in network.named_parameters() if p.grad is None}
    assert still == {"pos_embed", "decoder_pos_embed"}


def test_loads_the_public_file_with_and_without_a_decoder(tmp_path):
    source = MAE(**SMALL, **DECODER)
    plain = {k: v for k, v in source.state_dict().items() if not k.startswith(("decoder_", "mask_token"))}
    torch.save({"model": plain}, tmp_path / "pretrain.pth")
    torch.save({"model": source.state_dict()}, tmp_path / "visualize.pth")
    for name in ("pretrain", "visualize"):
        encoder = mae_encoder(**SMALL)
        assert load_mae(encoder, tmp_path / f"{name}.pth").fraction == 1
        assert all(torch.equal(v, plain[k]) for k, v in encoder.state_dict().items())
    whole = MAE(**SMALL, **DECODER)
    before = whole.mask_token.clone()
    load_mae(whole, tmp_path / "pretrain.pth")
    assert torch.equal(whole.mask_token, before) and torch.equal(whole.cls_token, source.cls_token)
    load_mae(whole, tmp_path / "visualize.pth")
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in whole.state_dict().items())


def test_another_image_size_resizes_positions_and_keeps_the_class_tokens_row():
    source, larger = mae_encoder(**SMALL), mae_encoder(**{**SMALL, "image_size": 48})
    load_mae(larger, source.state_dict())
    assert larger.pos_embed.shape == (1, 37, 16) and torch.equal(larger.pos_embed[:, 0], source.pos_embed[:, 0])
    grid = source.pos_embed[0, 1:].T.reshape(1, 16, 4, 4)
    twin = torch.nn.functional.interpolate(grid, (6, 6), mode="bicubic", antialias=True)[0].flatten(1).T
    torch.testing.assert_close(larger.pos_embed[0, 1:], twin)


def test_what_does_not_fit_is_refused():
    with pytest.raises(WeightError):
        load_mae(mae_encoder(**SMALL), mae_encoder(**{**SMALL, "depth": 3}).state_dict())
    with pytest.raises(WeightError):
        load_mae(mae_encoder(**SMALL), mae_encoder(**{**SMALL, "width": 32}).state_dict())
    for wrong in ({"image_size": 30}, {"heads": 3}):
        with pytest.raises(ConfigError):
            mae_encoder(**{**SMALL, **wrong})
    for ratio in (0.0, 1.0):
        with pytest.raises(ConfigError):
            MAE(**SMALL, **DECODER, mask_ratio=ratio)
    hidden = torch.zeros(2, 4, 4, dtype=torch.bool)
    hidden[0, 0, 0] = True
    with pytest.raises(ConfigError):
        MAE(**SMALL, **DECODER)(torch.randn(2, 3, 32, 32), hidden)
