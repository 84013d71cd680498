"""H-SAM's decoders against the computation written out step by step."""

import pytest
import torch
from monai.data import MetaTensor
from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from torch.nn import functional as F

from common.backbones.hsam.decoder import (
    NOISE_LEVELS,
    CoarseDecoder,
    CoarseMasks,
    FineDecoder,
    class_noise,
    position_heads,
)
from common.errors import ConfigError

B, K1, C, GRID = 2, 4, 32, 4


def fine_decoder(**options):
    return FineDecoder(**{"classes": K1, "grid": GRID, "width": C, "mlp_dim": 24, **options})


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    embedding, positions, dense = torch.randn(B, C, GRID, GRID), torch.randn(1, C, GRID, GRID), torch.randn(1, C, 1, 1)
    side = 4 * GRID
    coarse = CoarseMasks(
        torch.randn(B, K1, side, side), torch.randn(B, K1, GRID**2), torch.randn(B, C // 8, side, side)
    )
    return embedding, positions, dense.expand(1, C, GRID, GRID), coarse


def test_names_of_the_coarse_decoder_are_sams():
    sams = MaskDecoder(
        transformer_dim=C,
        transformer=TwoWayTransformer(2, C, 8, 24),
        num_multimask_outputs=K1 - 1,
        iou_head_hidden_dim=C,
    )
    ours = CoarseDecoder(classes=K1, width=C, mlp_dim=24)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in sams.state_dict().items()}


def test_coarse_masks_step_by_step(inputs):
    embedding, positions, dense, _ = inputs
    decoder = CoarseDecoder(classes=K1, width=C, mlp_dim=24)
    found = decoder(embedding, positions, dense)
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    for b in range(B):  # one image at a time, one class at a time
        out, image = decoder.transformer(embedding[b : b + 1] + dense, positions, tokens[None])
        up = decoder.output_upscaling(image.transpose(1, 2).reshape(1, C, GRID, GRID))[0]
        for k in range(K1):
            token = out[0, 1 + k]
            weights = decoder.output_hypernetworks_mlps[k](token)
            torch.testing.assert_close(found.logits[b, k], torch.einsum("c,chw->hw", weights, up))
            torch.testing.assert_close(found.similarity[b, k], (image[0] * token).sum(1))
        torch.testing.assert_close(found.upscaled[b], up)


def selected(decoder, similarity):
    """The share of each position, on the grid that the weights belong to."""
    x = decoder.norm1(decoder.self_attn(similarity, similarity, similarity))
    x = decoder.self_attn2(x, x, x)
    x = decoder.norm2(x + decoder.mlp.lin2(F.relu(decoder.mlp.lin1(x))))
    weight, bias = decoder.med_sel[0].weight[0], decoder.med_sel[0].bias
    scores = F.relu(sum(weight[k] * x[:, k] for k in range(x.shape[1])) + bias)  # [B,N]
    return torch.exp(scores) / torch.exp(scores).sum(1, keepdim=True)


@pytest.mark.parametrize("selection", ["positions", "released"])
def test_fine_masks_step_by_step(inputs, selection):
    embedding, positions, dense, coarse = inputs
    decoder = fine_decoder(selection=selection).eval()
    found = decoder(embedding, positions, dense, coarse)
    image = embedding + dense
    share = selected(decoder, coarse.similarity) if selection == "positions" else torch.ones(B, GRID**2)
    image = image * (1 + share.reshape(B, 1, GRID, GRID))
    guide = F.interpolate(coarse.logits, scale_factor=0.25, mode="bilinear").softmax(1).flatten(2)
    tokens = decoder.mask_tokens.weight[None].repeat(B, 1, 1)
    tokens, keys = decoder.transformer2(image, positions, tokens, guide)
    up = decoder.output_upscaling(keys.permute(0, 2, 1).reshape(B, C, GRID, GRID))
    up = decoder.skip_connect(torch.cat([up, coarse.upscaled], 1))
    assert up.shape == (B, C // 16, 16 * GRID, 16 * GRID)
    for k in range(K1):
        weights = decoder.output_hypernetworks_mlps2[k](tokens[:, k])
        torch.testing.assert_close(found[:, k], torch.einsum("bc,bchw->bhw", weights, up))


def test_selection_on_another_grid_is_resized_there_and_back(inputs):
    *_, coarse = inputs
    decoder = fine_decoder(grid=3).eval()
    x = F.interpolate(coarse.similarity.reshape(B, K1, GRID, GRID), size=(3, 3), mode="bilinear").flatten(2)
    x = decoder.norm1(decoder.self_attn(x, x, x))
    x = decoder.self_attn2(x, x, x)
    x = decoder.norm2(x + decoder.mlp(x))
    scores = decoder.med_sel(x.transpose(1, 2)).reshape(B, 1, 3, 3)
    scores = F.interpolate(scores, size=(GRID, GRID), mode="bilinear")
    found = decoder.select(coarse.similarity, (GRID, GRID))
    torch.testing.assert_close(found, scores.flatten(1).softmax(1).reshape(B, 1, GRID, GRID))
    torch.testing.assert_close(found.sum((1, 2, 3)), torch.ones(B))


@pytest.mark.parametrize(("h", "w"), [(2, 2), (3, 5), (7, 7)])
def test_any_grid_runs(h, w):
    decoder, coarse = fine_decoder().eval(), CoarseDecoder(classes=K1, width=C, mlp_dim=24)
    embedding, positions, dense = torch.randn(1, C, h, w), torch.randn(1, C, h, w), torch.zeros(1, C, h, w)
    out = decoder(embedding, positions, dense, coarse(embedding, positions, dense))
    assert out.shape == (1, K1, 16 * h, 16 * w)


def test_released_selection_computes_and_trains_nothing(inputs):
    embedding, positions, dense, coarse = inputs
    decoder = fine_decoder(selection="released")
    dead = [n for n, p in decoder.named_parameters() if not p.requires_grad]
    assert {n.split(".")[0] for n in dead} == {
        "self_attn", "norm1", "self_attn2", "norm2", "mlp", "med_sel", "iou_prediction_head",
    }  # fmt: skip
    decoder(embedding, positions, dense, coarse).sum().backward()
    assert all(p.grad is not None for p in decoder.parameters() if p.requires_grad)


def test_every_trained_parameter_gets_a_gradient(inputs):
    embedding, positions, dense, _ = inputs
    coarse, decoder = CoarseDecoder(classes=K1, width=C, mlp_dim=24), fine_decoder()
    masks = coarse(embedding, positions, dense)
    (decoder(embedding, positions, dense, masks).square().sum() + masks.logits.square().sum()).backward()
    for network in (coarse, decoder):
        assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []
        assert all("iou_prediction_head" in n for n, p in network.named_parameters() if not p.requires_grad)


def test_noise_is_stronger_for_rarer_classes():
    labels = torch.tensor([[[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1], [2, 0, 0, 0]]])  # 12 x 0, 3 x 1, 1 x 2
    similarity = torch.randn(1, K1, 16)
    torch.manual_seed(3)
    found = class_noise(similarity, labels, (4, 4), (0.5, 0.25))
    torch.manual_seed(3)
    epsilon = torch.randn(1, K1, 16)
    for n, label in enumerate(labels.flatten().tolist()):
        sigma = {2: 0.5, 1: 0.25}.get(label)
        expected = torch.zeros(K1) if sigma is None else similarity.mean() + sigma * epsilon[0, :, n]
        torch.testing.assert_close(found[0, :, n], expected)


def test_noise_samples_labels_at_the_nearest_pixel():
    big = torch.zeros(1, 1, 8, 8, dtype=torch.long)
    big[..., :4, :] = 1
    big[..., 0, 1] = 5  # between the sampled pixels
    small = torch.zeros(1, 4, 4, dtype=torch.long)
    small[:, :2] = 1
    similarity = torch.randn(1, 2, 16)
    torch.manual_seed(1)
    a = class_noise(similarity, big, (4, 4), NOISE_LEVELS)
    torch.manual_seed(1)
    assert torch.equal(a, class_noise(similarity, small, (4, 4), NOISE_LEVELS))


def test_labels_with_an_affine_leave_plain_tensors():
    labels = MetaTensor(torch.randint(0, 2, (1, 1, 8, 8)))
    assert type(class_noise(torch.zeros(1, 3, 16), labels, (4, 4), NOISE_LEVELS)) is torch.Tensor


def test_noise_needs_labels_of_the_images():
    with pytest.raises(ConfigError, match="labels"):
        class_noise(torch.zeros(2, 3, 4), torch.zeros(1, 8, 8), (2, 2), NOISE_LEVELS)


def test_training_noise_is_off_without_labels_and_in_eval_mode(inputs):
    embedding, positions, dense, coarse = inputs
    labels = torch.randint(0, K1, (B, 64, 64))
    decoder = fine_decoder(dropout=0.0, similarity_dropout=0.0)
    plain = decoder.eval()(embedding, positions, dense, coarse, labels)
    assert torch.equal(decoder.train()(embedding, positions, dense, coarse), plain)
    assert not torch.equal(decoder(embedding, positions, dense, coarse, labels), plain)
    silent = fine_decoder(dropout=0.0, similarity_dropout=0.0, noise=())
    silent.load_state_dict(decoder.state_dict())
    assert torch.equal(silent(embedding, positions, dense, coarse, labels), plain)


@pytest.mark.parametrize(("positions", "heads"), [(196, 7), (1024, 8), (256, 8), (400, 8), (9, 3), (121, 1)])
def test_heads_over_positions(positions, heads):
    assert position_heads(positions) == heads


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"classes": 1}, "too few classes"),
        ({"width": 20}, "impossible width"),
        ({"width": 24, "heads": 2}, "impossible size"),
        ({"grid": 0}, "impossible size"),
        ({"selection": "all"}, "unknown selection"),
        ({"noise": (0.1, -0.1)}, "negative"),
    ],
)
def test_ill_arguments(options, match):
    with pytest.raises(ConfigError, match=match):
        fine_decoder(**options)


def test_ill_arguments_of_the_coarse_decoder():
    with pytest.raises(ConfigError, match="too few classes"):
        CoarseDecoder(classes=1)
