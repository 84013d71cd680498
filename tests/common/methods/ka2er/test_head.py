import pytest
import torch
from torch import nn

from common.backbones.sam.prompt import prompt_encoder
from common.errors import ConfigError, PromptError
from common.layers.attention.cross import sincos_position, to_tokens
from common.methods.ka2er.head import FUSE, FUSE_AT, BoxTokens, MaskHead

SIZE = (16, 24, 8)
CHANNELS = 12


def boxes(structures=2, batch=2):
    given = torch.full((batch, structures, 2, 3), torch.nan)
    given[0, -1] = torch.tensor([[2.0, 3, 1], [9, 20, 4]])
    given[1, 0] = torch.tensor([[0.0, 0, 7], [15, 23, 7]])
    return given


def head(outputs=3, **options):
    module = MaskHead(channels=CHANNELS, outputs=outputs, encoder=prompt_encoder(), **options).eval()
    nn.init.normal_(module.hyper[-1].weight)
    return module, nn.Conv3d(CHANNELS, outputs, 1)


def slice_embedding(module: BoxTokens, box, z):
    """One slice, with the public interface of the prompt encoder at the window's in-plane size."""
    encoder = module.encoder
    if box.isnan().any():
        return module.null
    if not box[0, 2] <= z <= box[1, 2]:
        return module.project(encoder.not_a_point_embed.weight[0])
    encoder.input_image_size = (SIZE[1], SIZE[0])
    sparse, _ = encoder(points=None, boxes=box[:, :2].reshape(1, 4), masks=None)
    return module.project(sparse[0].mean(0))


def naive(module, features, given, out):
    """One target and one slice at a time."""
    logits = torch.zeros(features.shape[0], module.outputs, *SIZE)
    offset = module.outputs - (given.shape[1] if given is not None else module.outputs)
    for b in range(features.shape[0]):
        for k in range(module.outputs):
            for z in range(SIZE[2]):
                has = given is not None and k >= offset
                prompt = slice_embedding(module.boxes, given[b, k - offset], z) if has else module.boxes.null
                logits[b, k, :, :, z] = slice_logits(module, features[b], k, z, prompt, out, b, given)
    return logits


def slice_logits(module, features, k, z, prompt, out, b, given):
    token = module.classes[k]
    if module.fuse_at == "token":
        token = module.mix(torch.cat([token, prompt])) if module.mix is not None else module.norm(token + prompt)
        mixed = features
    else:
        mixed = torch.zeros_like(features)
        offset = module.outputs - (given.shape[1] if given is not None else module.outputs)
        for s in range(SIZE[2]):
            has = given is not None and k >= offset
            e = slice_embedding(module.boxes, given[b, k - offset], s) if has else module.boxes.null
            plane = features[..., s].movedim(0, -1)
            both = torch.cat([plane, e.expand_as(plane)], -1)
            mixed[..., s] = (module.mix(both) if module.mix is not None else module.norm(plane + e)).movedim(-1, 0)
    pooled = torch.nn.functional.avg_pool3d(mixed[None], 8)
    where = sincos_position(pooled.shape[2:], CHANNELS, pooled)
    seen = module.look(token[None, None], to_tokens(pooled), context_position=where).tokens
    kernel = module.hyper(seen)[0, 0]
    weight, bias = out.weight[k, :, 0, 0, 0], out.bias[k]
    return torch.einsum("c,cxy->xy", kernel + weight, mixed[..., z]) + bias


@pytest.mark.parametrize("fuse", FUSE)
@pytest.mark.parametrize("fuse_at", FUSE_AT)
@pytest.mark.parametrize("prompted", [True, False])
def test_equals_the_loop_over_targets_and_slices(fuse, fuse_at, prompted):
    torch.manual_seed(0)
    module, out = head(fuse=fuse, fuse_at=fuse_at)
    features, given = torch.randn(2, CHANNELS, *SIZE), boxes() if prompted else None
    with torch.no_grad():
        got, want = module(features, given, out), naive(module, features, given, out)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fuse", FUSE)
@pytest.mark.parametrize("fuse_at", FUSE_AT)
def test_no_boxes_is_the_same_as_boxes_that_are_all_missing(fuse, fuse_at):
    module, out = head(fuse=fuse, fuse_at=fuse_at)
    features = torch.randn(2, CHANNELS, *SIZE)
    torch.testing.assert_close(module(features, None, out), module(features, boxes() * torch.nan, out))


def test_a_box_concerns_its_own_target_and_changes_with_the_slice():
    module, out = head()
    features = torch.randn(1, CHANNELS, *SIZE)
    with torch.no_grad():
        plain, prompted = module(features, None, out), module(features, boxes()[:1], out)
    changed = (plain - prompted).abs().amax((0, 2, 3))
    torch.testing.assert_close(plain[:, :2], prompted[:, :2])
    assert (changed[2] > 0).all()


def test_box_positions_are_relative_to_the_window():
    """Twice the window and the box gives the same embedding, up to the half voxel of the centre."""
    tokens = BoxTokens(encoder=prompt_encoder(), channels=CHANNELS)
    small = torch.tensor([[1.5, 2.5, 0.0], [5.5, 7.5, 3]])[None, None]
    large = torch.tensor([[3.5, 5.5, 0.0], [11.5, 15.5, 3]])[None, None]
    a, b = tokens(small, (16, 24, 8)), tokens(large, (32, 48, 8))
    torch.testing.assert_close(a.tokens, b.tokens)


def test_slices_of_a_jittered_box():
    tokens = BoxTokens(encoder=prompt_encoder(), channels=CHANNELS)
    inside = tokens(torch.tensor([[1.0, 1, 3.2], [2, 2, 3.7]])[None, None], SIZE).inside
    assert inside[0, 0].tolist() == [False, False, False, True, True, False, False, False]


def test_one_sigmoid_target():
    module, out = head(outputs=1, fuse_at="map")
    assert module(torch.randn(2, CHANNELS, *SIZE), boxes(1), out).shape == (2, 1, *SIZE)


def test_the_prompt_encoder_is_frozen_and_stays_in_evaluation_mode():
    module, out = head()
    module.train()
    assert not module.boxes.encoder.training
    module(torch.randn(2, CHANNELS, *SIZE), boxes(), out).sum().backward()
    assert all(p.grad is None for p in module.boxes.encoder.parameters())
    assert module.boxes.project.weight.grad.any()
    assert module.boxes.null.grad.any()
    assert module.classes.grad.any()


@pytest.mark.parametrize("options", [{"fuse": "sum"}, {"fuse_at": "image"}])
def test_unknown_fusion(options):
    with pytest.raises(ConfigError, match="unknown choice"):
        head(**options)


@pytest.mark.parametrize("shape", [(2, 4, 2, 3), (2, 1, 2, 3), (1, 2, 2, 3), (2, 2, 3, 2), (2, 2, 3), (2, 2, 6)])
def test_wrong_boxes(shape):
    module, out = head()
    with pytest.raises(PromptError, match="boxes"):
        module(torch.randn(2, CHANNELS, *SIZE), torch.zeros(shape), out)
